package hooks

import (
	"cmp"
	"fmt"
	"time"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/sandbox"
	"github.com/headgate/headgate/hooks/policy"
)

// logSlack is what a sandbox lets through beyond the limit of a function's log: the
// limit is kept here, where no secret is cut in two by it.
const logSlack = 128 << 10

// limitsUnder are the limits of a function that declares none of its own: those of
// the governing policy, else the usual ones, under the server's ceiling.
func limitsUnder(governing *policy.Policy, top sandbox.Limits) sandbox.Limits {
	said, usual := governing.Sandbox, sandbox.DefaultLimits
	out := sandbox.Limits{
		Memory:  under(cmp.Or(said.Memory, usual.Memory), top.Memory),
		Output:  under(cmp.Or(said.Output, usual.Output), top.Output),
		CPUs:    under(cmp.Or(said.CPUs, usual.CPUs), top.CPUs),
		Timeout: under(cmp.Or(said.Timeout, usual.Timeout), top.Timeout),
		Pids:    under(cmp.Or(said.Pids, usual.Pids), top.Pids),
		// Without a word of the policy's, /tmp is the bound.
		FileSize: under(cmp.Or(said.FileSize, top.FileSize), top.FileSize),
		LogBytes: under(cmp.Or(said.Log, usual.LogBytes), top.LogBytes),
	}
	out.LogBytes += logSlack
	return out
}

// under is want, but at most top; a top of zero bounds nothing.
func under[T int | int64 | float64 | time.Duration](want, top T) T {
	if top > 0 {
		return min(want, top)
	}
	return want
}

func (r *run) limits() sandbox.Limits { return limitsUnder(r.policy, r.gate.cfg.Ceiling) }

func (r *run) logLimit() int64 { return r.limits().LogBytes - logSlack }

// warnCapped says where the policy or a function asks for more than this server
// gives. It gets what there is: to refuse would make a lake depend on the machine,
// and to say nothing would leave its owner guessing.
func (r *run) warnCapped() {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.policy.Sandbox
	asked := sandbox.Limits{Memory: s.Memory, Output: s.Output, CPUs: s.CPUs, Timeout: s.Timeout, Pids: s.Pids, FileSize: s.FileSize, LogBytes: s.Log}
	for _, text := range r.beyond(asked) {
		r.warn(fmt.Sprintf("%s asks for %s", PolicyFile, text))
	}
	own := func(what, name string, res plan.Resources) {
		for _, text := range r.beyond(sandbox.Limits{Memory: res.Memory, CPUs: res.CPUs, Timeout: res.Timeout, Pids: res.Pids}) {
			r.warn(fmt.Sprintf("%s %s asks for %s", what, name, text))
		}
	}
	for _, m := range r.plan.Models {
		own("model", m.Name, m.Resources)
	}
	for _, v := range r.plan.Verifiers {
		own("verifier", v.Name, v.Resources)
	}
}

// beyond tells what of the limits asked for is more than the ceiling.
func (r *run) beyond(asked sandbox.Limits) []string {
	top := r.gate.cfg.Ceiling
	var texts []string
	for _, l := range []struct {
		what       string
		over       bool
		want, most string
	}{
		{"memory", over(asked.Memory, top.Memory), sizeText(asked.Memory), sizeText(top.Memory)},
		{"output", over(asked.Output, top.Output), sizeText(asked.Output), sizeText(top.Output)},
		{"file size", over(asked.FileSize, top.FileSize), sizeText(asked.FileSize), sizeText(top.FileSize)},
		{"log", over(asked.LogBytes, top.LogBytes), sizeText(asked.LogBytes), sizeText(top.LogBytes)},
		{"cpus", over(asked.CPUs, top.CPUs), fmt.Sprint(asked.CPUs), fmt.Sprint(top.CPUs)},
		{"time", over(asked.Timeout, top.Timeout), asked.Timeout.String(), top.Timeout.String()},
		{"pids", over(asked.Pids, top.Pids), fmt.Sprint(asked.Pids), fmt.Sprint(top.Pids)},
	} {
		if l.over {
			texts = append(texts, fmt.Sprintf("%s of %s; this server gives a function at most %s, so that is its limit", l.what, l.want, l.most))
		}
	}
	return texts
}

func over[T int | int64 | float64 | time.Duration](want, top T) bool { return top > 0 && want > top }

// sizeText is a size as headgate.yaml has it.
func sizeText(n int64) string {
	for _, u := range []struct {
		unit int64
		name string
	}{{1 << 40, "TiB"}, {1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= u.unit && n%(u.unit/4) == 0 {
			return fmt.Sprintf("%g%s", float64(n)/float64(u.unit), u.name)
		}
	}
	return fmt.Sprintf("%dB", n)
}

// limitsRecord is what functions that declare nothing had, for the record.
func limitsRecord(l sandbox.Limits, s policy.Sandbox) *LimitsRecord {
	violations := "fail"
	if s.RecordViolations {
		violations = "record"
	}
	return &LimitsRecord{
		Memory: l.Memory, Output: l.Output, FileSize: l.FileSize, Log: l.LogBytes - logSlack,
		CPUs: l.CPUs, Timeout: l.Timeout.Seconds(), Pids: l.Pids, Violations: violations,
	}
}
