package hooks

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/sandbox"
	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/hooks/trailer"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/tree"
	"github.com/headgate/headgate/refs"
)

// Record is run.json, the whole story of a run. docs/formats.md describes it.
// Times are UTC, durations are seconds.
type Record struct {
	Format   int           `json:"format"` // 1
	ID       string        `json:"id"`
	Lake     string        `json:"lake"`
	State    lake.State    `json:"state"`
	Target   string        `json:"target"`
	Base     string        `json:"base"`
	Proposal string        `json:"proposal"`
	Subject  string        `json:"subject,omitempty"` // of the proposal
	Gate     string        `json:"gate,omitempty"`    // the gate commit, if published
	Who      string        `json:"who"`
	KeyPrint string        `json:"key,omitempty"` // fingerprint of the pusher's key
	Started  time.Time     `json:"started"`
	Ended    time.Time     `json:"ended,omitzero"`
	Reasons  []string      `json:"reasons,omitempty"`
	Warnings []string      `json:"warnings,omitempty"`
	Limits   *LimitsRecord `json:"limits,omitempty"` // of functions that declare none
	// Environments are those that functions declare, or that the server had to make.
	Environments []EnvironmentRecord `json:"environments,omitempty"`
	Merge        *MergeRecord        `json:"merge,omitempty"` // of a proposal that did not contain the tip
	Sources      []SourceRecord      `json:"sources"`
	Models       []ModelRecord       `json:"models"`
	Verifiers    []VerifierRecord    `json:"verifiers"`
	// PolicyChanges are the sections of headgate.yaml that the proposal changes.
	PolicyChanges []string `json:"policy_changes,omitempty"`
	// Approvals are the rules that the changes fall under, and who approved them.
	Approvals []ApprovalRecord `json:"approvals,omitempty"`
	// VerifierChanges are what the proposal does to the verifiers of the target's tip.
	VerifierChanges []VerifierChange `json:"verifier_changes,omitempty"`
	// Scores are of tables whose verifiers or columns the proposal changes, where the
	// policy asks for one.
	Scores []ScoreRecord `json:"scores,omitempty"`

	logs     map[string][]byte      // by path in the record
	failures map[string]objects.OID // by file name
}

// LimitsRecord is what bounds a function, and what becomes of its violations.
type LimitsRecord struct {
	Memory     int64   `json:"memory"`    // bytes
	Output     int64   `json:"output"`    // bytes
	FileSize   int64   `json:"file_size"` // bytes; 0 if only /tmp bounds it
	Log        int64   `json:"log"`       // bytes
	CPUs       float64 `json:"cpus"`
	Timeout    float64 `json:"timeout"` // seconds
	Pids       int     `json:"pids"`
	Violations string  `json:"violations"` // "fail" or "record"
}

// SourceRecord is a table that no model makes.
type SourceRecord struct {
	Name     string `json:"name"`
	Snapshot string `json:"snapshot"`
	Rows     int64  `json:"rows"`
}

// EnvironmentRecord is an environment of Python functions.
type EnvironmentRecord struct {
	Group    string            `json:"group"` // its name in headgate.lock
	Python   string            `json:"python"`
	Digest   string            `json:"digest"`   // names its content
	Declared []string          `json:"declared"` // "pandas==1.5.3"
	Packages map[string]string `json:"packages"` // all of it: name -> version
	Locked   bool              `json:"locked"`   // the proposal's headgate.lock had it
	Wheels   int               `json:"wheels_downloaded"`
	Bytes    int64             `json:"bytes_downloaded"`
}

// CostRecord is what a function took.
type CostRecord struct {
	Seconds      float64           `json:"seconds"`
	Sandboxes    int               `json:"sandboxes"`             // 0 if it was answered from the cache
	Warm         int               `json:"warm"`                  // of them taken from the pool
	WaitSeconds  float64           `json:"wait_seconds"`          // of Seconds, until the server's budget had room for them
	StartSeconds float64           `json:"start_seconds"`         // of Seconds, from then until the sandboxes had their orders
	PeakMemory   int64             `json:"peak_memory,omitempty"` // bytes
	Violations   []ViolationRecord `json:"violations,omitempty"`
}

// ViolationRecord is something the sandbox kept a function from doing.
type ViolationRecord struct {
	Kind   string `json:"kind"` // "connect", "exec", "write", ...
	Detail string `json:"detail"`
	Count  int    `json:"count"`
}

// ErrorRecord is a failure of the user's code or data.
type ErrorRecord struct {
	Kind      string `json:"kind"`
	Text      string `json:"text"`
	Traceback string `json:"traceback,omitempty"`
}

// ModelRecord is one model's evaluation.
type ModelRecord struct {
	Name     string            `json:"name"`
	Path     string            `json:"path"`
	Status   string            `json:"status"` // "ok", "failed", "skipped", "stopped"
	Cached   bool              `json:"cached"`
	Code     string            `json:"code,omitempty"`
	Env      string            `json:"env,omitempty"`
	Inputs   map[string]string `json:"inputs,omitempty"`   // table -> snapshot
	Params   map[string]any    `json:"params,omitempty"`   // name -> value
	Secrets  []string          `json:"secrets,omitempty"`  // names of those that it was given
	Strategy string            `json:"strategy,omitempty"` // "" is REPLACE
	Prior    string            `json:"prior,omitempty"`    // the snapshot that the strategy builds on
	Kept     bool              `json:"kept,omitempty"`     // a gate commit gave it already, so it was not evaluated
	Snapshot string            `json:"snapshot,omitempty"`
	// Deterministic says whether a second run on the same inputs gave the same;
	// absent if there was none.
	Deterministic *bool        `json:"deterministic,omitempty"`
	Rows          int64        `json:"rows"`
	Error         *ErrorRecord `json:"error,omitempty"`
	CostRecord
}

// VerifierRecord is one verifier's evaluation. Column tests of one table share a
// sandbox, so their costs are the group's.
type VerifierRecord struct {
	Name       string       `json:"name"`
	Path       string       `json:"path,omitempty"`
	Tip        bool         `json:"tip,omitempty"`      // it is the target's tip's, as the proposal does not have it
	Severity   string       `json:"severity,omitempty"` // "warn"; absent: "error"
	Status     string       `json:"status"`             // "pass", "warn", "fail", "error"
	Cached     bool         `json:"cached"`
	Violations int64        `json:"violating_rows"`
	Message    string       `json:"message,omitempty"`
	Rows       string       `json:"rows,omitempty"` // path of the violating rows in this record
	Error      *ErrorRecord `json:"error,omitempty"`
	CostRecord
}

func newRecord(id string, rq *request, now time.Time) *Record {
	return &Record{
		Format: 1, ID: id, Lake: string(rq.lake.Name), Target: string(rq.target), Base: rq.base.String(), Proposal: rq.proposal.String(),
		Who: rq.who.Name, KeyPrint: rq.who.Fingerprint, Started: now,
		Sources: []SourceRecord{}, Models: []ModelRecord{}, Verifiers: []VerifierRecord{},
		logs: make(map[string][]byte), failures: make(map[string]objects.OID),
	}
}

func (c *CostRecord) usage(u exec.Usage) {
	c.WaitSeconds = u.Wait.Seconds()
	c.Sandboxes, c.Warm, c.StartSeconds, c.PeakMemory, c.Violations = u.Sandboxes, u.Warm, u.Start.Seconds(), u.PeakMemory, nil
	for _, v := range u.Violations {
		c.Violations = append(c.Violations, ViolationRecord{Kind: v.Kind, Detail: v.Detail, Count: v.Count})
	}
}

func modelRecord(m *plan.Model, bound []exec.Bound, res *exec.Result, took time.Duration) ModelRecord {
	rec := ModelRecord{Name: m.Name, Path: m.Path, Status: "ok", Code: m.Code.String(), Inputs: make(map[string]string, len(bound))}
	rec.Seconds = took.Seconds()
	if m.Strategy != plan.StrategyReplace {
		rec.Strategy = m.Strategy
	}
	for _, b := range bound {
		rec.Inputs[b.Input.Table] = b.Table.Tree.String()
	}
	if res != nil {
		rec.Env, rec.Cached = res.Env.String(), res.Cached
		rec.usage(res.Usage)
		if res.Table != nil {
			rec.Snapshot, rec.Rows = res.Table.Tree.String(), res.Table.Rows()
		}
	}
	return rec
}

func (r *run) verifierRecord(v *plan.Verifier, took time.Duration) VerifierRecord {
	rec := VerifierRecord{Name: v.Name, Path: v.Path, Severity: string(v.Severity), Tip: r.standing.holds(v)}
	rec.Seconds = took.Seconds()
	return rec
}

func failureRecord(f *exec.Failure) *ErrorRecord {
	rec := &ErrorRecord{Kind: f.Kind, Text: f.Text}
	if f.Detail != nil {
		rec.Traceback = f.Detail.Traceback
	}
	return rec
}

func (rec *Record) source(name string, t *exec.Table) {
	rec.Sources = append(rec.Sources, SourceRecord{Name: name, Snapshot: t.Tree.String(), Rows: t.Rows()})
}

func (rec *Record) environment(p exec.Prepared) {
	e := EnvironmentRecord{
		Group: p.Group(), Python: p.Python, Digest: p.Environment.Digest(), Declared: p.Requirements(), Packages: make(map[string]string, len(p.Environment.Wheels)),
		Locked: p.Locked, Wheels: p.Made.Wheels, Bytes: p.Made.Bytes,
	}
	for _, w := range p.Environment.Wheels {
		e.Packages[w.Package] = w.Version
	}
	rec.Environments = append(rec.Environments, e)
}

// log files what a function said. A model and a verifier may have one name, and
// names that differ may be one as files.
func (rec *Record) log(name string, text []byte) {
	if len(text) > 0 {
		rec.logs[untaken(rec.logs, "logs/", name, ".log")] = bytes.Clone(text)
	}
}

// untaken returns a path for what a function left that nothing else has.
func untaken[T any](taken map[string]T, dir, name, ext string) string {
	path := dir + fileName(name) + ext
	for n := 2; ; n++ {
		if _, ok := taken[path]; !ok {
			return path
		}
		path = fmt.Sprintf("%s%s-%d%s", dir, fileName(name), n, ext)
	}
}

var notFile = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// fileName makes a file name of a function's name, which may be free text.
func fileName(name string) string {
	f := strings.Trim(notFile.ReplaceAllString(name, "-"), ".-")
	if f == "" {
		f = "unnamed"
	}
	return f
}

// failure files a verifier's violating rows and returns their path in the record.
func (rec *Record) failure(name string, rows objects.OID) string {
	path := untaken(rec.failures, "failures/", name, ".parquet")
	rec.failures[path] = rows
	return path
}

// sorted puts concurrent functions into an order that does not depend on time.
func (rec *Record) sorted() {
	sort.Slice(rec.Sources, func(i, j int) bool { return rec.Sources[i].Name < rec.Sources[j].Name })
	sort.Slice(rec.Models, func(i, j int) bool { return rec.Models[i].Name < rec.Models[j].Name })
	sort.Slice(rec.Verifiers, func(i, j int) bool {
		a, b := &rec.Verifiers[i], &rec.Verifiers[j]
		return a.Name < b.Name || a.Name == b.Name && !a.Tip && b.Tip
	})
}

func (rec *Record) modelTrailers() []trailer.Model {
	rec.sorted()
	var out []trailer.Model
	for _, m := range rec.Models {
		t := trailer.Model{
			Name: m.Name, Code: m.Code, Env: m.Env, Out: m.Snapshot, Rows: m.Rows, Cached: m.Cached,
			Params: canonicalJSON(m.Params), Strategy: m.Strategy, Prior: m.Prior,
		}
		t.NotDeterministic = m.Deterministic != nil && !*m.Deterministic
		for name, snap := range m.Inputs {
			t.Inputs = append(t.Inputs, trailer.Input{Table: name, Snapshot: snap})
		}
		sort.Slice(t.Inputs, func(i, j int) bool { return t.Inputs[i].Table < t.Inputs[j].Table })
		out = append(out, t)
	}
	return out
}

func (rec *Record) verifierTrailers() []trailer.Verifier {
	rec.sorted()
	var out []trailer.Verifier
	for _, v := range rec.Verifiers {
		result := v.Status
		if len(v.CostRecord.Violations) > 0 {
			result = "warn" // it passed, and did what a function may not
		}
		out = append(out, trailer.Verifier{Name: v.Name, Result: result, AtBase: v.Tip})
	}
	return out
}

// approvers are those whose approvals the run counted.
func (rec *Record) approvers() []string {
	var names []string
	for _, a := range rec.Approvals {
		names = append(names, a.By...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// summary is the body of the gate commit.
func (rec *Record) summary() string {
	cached := 0
	for _, m := range rec.Models {
		if m.Cached {
			cached++
		}
	}
	return fmt.Sprintf("%d model(s), %d of them from the cache; %d verifier(s) passed on this tree.\nThe run record is %s%s.",
		len(rec.Models), cached, len(rec.Verifiers), runsPrefix, rec.ID)
}

// writeRecord stores the run record as a commit in the quarantine.
func (r *run) writeRecord(ctx context.Context, final lake.State) (objects.OID, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rec.State, r.rec.Ended = final, r.gate.cfg.Now().UTC()
	r.rec.sorted()
	doc, err := json.MarshalIndent(r.rec, "", "  ")
	if err != nil {
		return objects.OID{}, fmt.Errorf("encode run record: %w", err)
	}
	files := make(map[string]tree.Edit, len(r.rec.logs)+len(r.rec.failures)+1)
	put := func(path string, data []byte) error {
		oid, err := r.q.Put(ctx, objects.Blob, int64(len(data)), bytes.NewReader(data))
		files[path] = tree.Edit{Mode: gitobj.ModeFile, OID: oid}
		return err
	}
	if err := put("run.json", append(doc, '\n')); err != nil {
		return objects.OID{}, err
	}
	for path, text := range r.rec.logs {
		if err := put(path, text); err != nil {
			return objects.OID{}, err
		}
	}
	for path, oid := range r.rec.failures {
		files[path] = tree.Edit{Mode: gitobj.ModeFile, OID: oid}
	}
	root, err := tree.Apply(ctx, r.q, objects.OID{}, files)
	if err != nil {
		return objects.OID{}, err
	}
	return r.sign(ctx, &gitobj.Commit{Tree: root, Message: fmt.Sprintf("Run %s: %s\n", r.rec.ID, final)})
}

// keepEvidence makes a refused run's record and the state it had built visible
// under refs/runs/<id> and refs/scratch/<id>.
func (r *run) keepEvidence(ctx context.Context, final lake.State) error {
	if r.q == nil {
		return fmt.Errorf("run %s has no quarantine", r.id())
	}
	record, err := r.writeRecord(ctx, final)
	if err != nil {
		return err
	}
	updates := []refs.Update{{Name: refs.Name(runsPrefix + r.id()), New: record}}
	if !r.tree.IsZero() {
		// Its parent is the proposal, so that a fix can be made on top of it. It is
		// no gate commit and is not signed: a push of it is judged like any other.
		house := r.gate.house()
		scratch, err := r.put(ctx, &gitobj.Commit{
			Tree: r.tree, Parents: []objects.OID{r.proposal}, Author: house, Committer: house,
			Message: fmt.Sprintf("Scratch state of run %s (%s)\n\nNothing here is verified.\n", r.id(), final),
		})
		if err != nil {
			return err
		}
		updates = append(updates, refs.Update{Name: refs.Name(scratchPrefix + r.id()), New: scratch})
	}
	if err := r.q.Migrate(ctx); err != nil {
		return err
	}
	return r.lake.Refs.Apply(ctx, updates, r.gate.causeOf(r.lake, fmt.Sprintf("run %s: %s", r.id(), final), r.runEvent(final, r.asked())))
}

// violationLine tells one violation to a person. Executed is what the sandbox
// holds, and a call that no function needs may do something to the sandbox
// itself: they are recorded, and the others were refused on the spot.
func violationLine(v sandbox.Violation) string {
	if v.Kind == sandbox.ViolationMore {
		return fmt.Sprintf("and %d further attempts that are not listed", v.Count)
	}
	what := map[string]string{
		sandbox.ViolationConnect: "tried to connect to %s (blocked)",
		sandbox.ViolationSend:    "tried to send to %s (blocked)",
		sandbox.ViolationSocket:  "tried to open a %s (blocked)",
		sandbox.ViolationExec:    "tried to run %s (recorded)",
		sandbox.ViolationWrite:   "tried to write to %s (blocked)",
		sandbox.ViolationSyscall: "tried the system call %s (recorded)",
	}[v.Kind]
	if what == "" {
		what = v.Kind + ": %s"
	}
	line := fmt.Sprintf(what, v.Detail)
	if v.Count > 1 {
		line += fmt.Sprintf(" %d times", v.Count)
	}
	return line
}

func violationText(vs []sandbox.Violation) string {
	text := violationLine(vs[0])
	if n := len(vs) - 1; n > 0 {
		text += fmt.Sprintf(" and %d other thing(s) that a function may not do", n)
	}
	return text
}
