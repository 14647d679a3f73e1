package hooks

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/hooks/trailer"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/refs"
)

const twoPersons = `branches:
  main: {gate: required}
  "release/*": {gate: required}
grants:
  - {who: [agents, ada, eve], propose: ["*"], create: ["release/*"], edit: ["**"]}
  - {who: [leads, ada], approve: ["verifiers/**", headgate.yaml]}
approvals:
  - {paths: ["verifiers/**", headgate.yaml]}
`

var (
	lea = Identity{Name: "lea", Groups: []string{"leads"}}
	lou = Identity{Name: "lou", Groups: []string{"leads"}}
)

// reviewed is a rig whose main asks for approvals, and a proposal that needs one.
func reviewed(t *testing.T) (r *rig, files map[string]string) {
	r = newRig(t)
	r.known = []Identity{ada, bot, eve, lea, lou, op}
	r.who = op
	r.must(r.toMain(with(base(), PolicyFile, twoPersons)))
	return r, r.state(r.tip(mainRef))
}

// stored makes a commit that the lake has, on top of main.
func (r *rig) stored(files map[string]string) objects.OID {
	r.Helper()
	oid, q := r.commit(files, r.tip(mainRef))
	r.must(q.Migrate(r.Context()))
	r.must(q.Discard())
	return oid
}

// to pushes a commit that the lake has.
func (r *rig) to(who Identity, name refs.Name, oid objects.OID, options ...string) error {
	r.Helper()
	q, err := r.lake.Objects.Quarantine()
	r.must(err)
	r.who = who
	u := refs.Update{Name: name, New: oid}
	if !strings.HasPrefix(string(name), approvalsPrefix) {
		u.Old = r.tip(name)
	}
	return r.push(q, options, false, u)[0].Err
}

func (r *rig) approve(who Identity, oid objects.OID, options ...string) error {
	r.Helper()
	return r.to(who, refs.Name(approvalsPrefix+oid.String()), oid, options...)
}

func TestApprovals(t *testing.T) {
	r, files := reviewed(t)
	// What falls under no rule takes no approval.
	r.must(r.to(bot, mainRef, r.stored(with(files, "models/two.sql", "SELECT n, n FROM one"))))
	files = r.state(r.tip(mainRef))
	oid := r.stored(with(files, "verifiers/more.sql", "SELECT n FROM two"))
	err := r.to(bot, mainRef, oid)
	r.refused(err, "a change of verifiers/more.sql takes 1 approval(s) (headgate.yaml:8), and has 0; who may give one: ada, lea, lou")
	if text := r.out.String(); !strings.Contains(text, "verify  more                         pass") || !strings.Contains(text, "git push origin "+oid.String()+":refs/approvals/"+oid.String()) {
		t.Errorf("the pusher was not told what is well and what to do:\n%s", text)
	}
	r.must(r.approve(lea, oid))
	r.must(r.approve(lea, oid)) // twice is once
	rep, err := r.gate.TestPolicy(t.Context(), r.lake, bot, PolicyAsked{Of: oid.String()})
	r.must(err)
	if text := rep.Text(); !strings.Contains(text, "headgate.yaml:8: a change of verifiers/more.sql takes 1 approval(s); ada, lea, lou may give one; given by lea") {
		t.Errorf("a test of the policy:\n%s", text)
	}
	r.must(r.to(bot, mainRef, oid))
	c, err := readCommit(t.Context(), r.lake.Objects, r.tip(mainRef))
	r.must(err)
	g, err := trailer.Parse(c.Message)
	if err != nil || !slices.Equal(g.ApprovedBy, []string{"lea"}) {
		t.Errorf("trailers: %+v, %v", g.ApprovedBy, err)
	}
	rec := r.record(lake.Published)
	if len(rec.Approvals) != 1 || !slices.Equal(rec.Approvals[0].By, []string{"lea"}) || !slices.Equal(rec.Approvals[0].Paths, []string{"verifiers/more.sql"}) {
		t.Errorf("record: %+v", rec.Approvals)
	}
}

// An approval is of one commit: what is amended, or a later change, needs another.
func TestApprovalIsOfOneCommit(t *testing.T) {
	r, files := reviewed(t)
	oid := r.stored(with(files, "verifiers/more.sql", "SELECT n FROM two"))
	r.must(r.approve(lea, oid))
	amended := r.stored(with(files, "verifiers/more.sql", "SELECT n FROM one"))
	r.refused(r.to(bot, mainRef, amended), "has 0")
	r.refused(r.to(lea, refs.Name(approvalsPrefix+oid.String()), amended), "an approval is of one commit and no other")
	// An old approval does not come back to life on another base: the commit is another.
	r.must(r.to(bot, mainRef, r.stored(with(files, "README", "words"))))
	rebased := r.stored(with(r.state(r.tip(mainRef)), "verifiers/more.sql", "SELECT n FROM two"))
	r.refused(r.to(bot, mainRef, rebased), "has 0")
	// Nor does what was approved bring along what was not.
	oid = r.stored(with(r.state(r.tip(mainRef)), "verifiers/more.sql", "SELECT n FROM two"))
	r.must(r.approve(lea, oid))
	onTop, q := r.commit(with(r.state(r.tip(mainRef)), "verifiers/more.sql", "SELECT n FROM two", "verifiers/fine.sql", ""), oid)
	r.must(q.Migrate(t.Context()))
	r.refused(r.to(bot, mainRef, onTop), "a change of verifiers/fine.sql, verifiers/more.sql takes 1 approval(s)")
}

func TestNobodyApprovesTheirOwn(t *testing.T) {
	r, files := reviewed(t)
	oid := r.stored(with(files, "verifiers/more.sql", "SELECT n FROM two"))
	r.must(r.approve(ada, oid))
	r.refused(r.to(ada, mainRef, oid), "has 0; who may give one: lea, lou")
	// Having somebody else push what one has proposed does not help.
	r.refused(r.to(bot, mainRef, oid), "has 0")
	r.refused(r.approve(bot, oid), "bot may not approve anything for main: no grant of headgate.yaml lets bot approve")
	r.refused(r.approve(ada, oid), "ada has proposed "+short(oid)+", and nobody approves their own proposal")
	// Nor is an administrator above it.
	other := r.stored(with(files, PolicyFile, strings.Replace(twoPersons, "approvals:\n  - {paths: [\"verifiers/**\", headgate.yaml]}\n", "", 1)))
	r.refused(r.to(op, mainRef, other), "a change of headgate.yaml takes 1 approval(s)")
	r.refused(r.approve(op, other), "op may not approve anything")
	r.must(r.approve(lou, other))
	r.must(r.to(op, mainRef, other))
}

// What counts is who may approve when the run would publish.
func TestApprovalsThatDoNotCountAnyMore(t *testing.T) {
	for name, change := range map[string]func(r *rig, oid objects.OID){
		"withdrawn":        func(r *rig, oid objects.OID) { r.must(r.approve(lea, oid, "withdraw")) },
		"no lead any more": func(r *rig, _ objects.OID) { r.known[3].Groups = nil },
		"no key any more": func(r *rig, _ objects.OID) {
			r.known = slices.DeleteFunc(r.known, func(i Identity) bool { return i.Name == "lea" })
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, files := reviewed(t)
			oid := r.stored(with(files, "verifiers/more.sql", "SELECT n FROM two"))
			r.must(r.approve(lea, oid))
			change(r, oid)
			r.refused(r.to(bot, mainRef, oid), "has 0")
		})
	}
	t.Run("for another branch", func(t *testing.T) {
		r, files := reviewed(t)
		r.must(r.to(eve, "refs/heads/release/1", r.stored(with(files, "README", "words"))))
		oid := r.stored(with(files, "verifiers/more.sql", "SELECT n FROM two"))
		r.must(r.approve(lea, oid, "target=release/1"))
		r.refused(r.to(bot, mainRef, oid), "has 0")
		r.refused(r.approve(lea, oid, "target=nowhere"), "there is no branch nowhere")
	})
	// Between the count and the publication.
	t.Run("at the last moment", func(t *testing.T) {
		r, files := reviewed(t)
		oid := r.stored(with(files, "verifiers/more.sql", "SELECT n FROM two"))
		r.must(r.approve(lea, oid))
		before, done := r.tip(mainRef), false
		r.gate.cfg.Now = func() time.Time {
			runs, err := r.lake.Runs.List(1)
			if err == nil && !done && runs[0].State == lake.Publishing {
				done = true
				q, err := r.lake.Objects.Quarantine()
				r.must(err)
				ref := refs.Name(approvalsPrefix + oid.String())
				out := r.gate.Receive(t.Context(), &Push{Lake: r.lake, Who: lea, Updates: []refs.Update{{Name: ref, New: oid}}, Options: []string{"withdraw"}, Objects: q, Progress: &strings.Builder{}})
				r.must(out[0].Err)
				r.must(q.Discard())
			}
			return time.Now()
		}
		if err := r.to(bot, mainRef, oid); err == nil || !done || r.tip(mainRef) != before {
			t.Errorf("published although the approval was withdrawn first (%v): %v", done, err)
		}
	})
}

func TestApprovalsThatAreNone(t *testing.T) {
	r, files := reviewed(t)
	oid := r.stored(files)
	ref := refs.Name(approvalsPrefix + oid.String())
	r.refused(r.to(lea, "refs/approvals/main", oid), "by its full oid")
	r.refused(r.to(lea, ref, objects.OID{}), "approvals are not deleted; withdraw yours")
	r.refused(r.approve(lea, oid, "withdraw"), "lea has not approved")
	r.refused(r.approve(lea, oid, "dry-run"), "an approval runs nothing")
	r.refused(r.to(bot, mainRef, oid, "withdraw"), "are for approvals")
	c, err := readCommit(t.Context(), r.lake.Objects, oid)
	r.must(err)
	r.refused(r.to(lea, refs.Name(approvalsPrefix+c.Tree.String()), c.Tree), "is no commit")
	q, err := r.lake.Objects.Quarantine()
	r.must(err)
	r.who = lea
	out := r.push(q, nil, true, refs.Update{Name: ref, New: oid}, refs.Update{Name: "refs/tags/v1", New: oid})
	if out[0].Err == nil || out[1].Err == nil {
		t.Errorf("an atomic push with others: %v, %v", out[0].Err, out[1].Err)
	}
	// Approvals that the server did not write stop the gate.
	oid = r.stored(with(files, "verifiers/more.sql", "SELECT n FROM two"))
	forged, q := r.commit(map[string]string{"approvals/main/lea.json": `{"format":1,"lake":"flights","proposal":"` + oid.String() + `","target":"refs/heads/main","who":"lea"}`})
	r.must(q.Migrate(t.Context()))
	r.must(r.lake.Refs.Apply(t.Context(), []refs.Update{{Name: refs.Name(approvalsPrefix + oid.String()), New: forged}}, refs.Cause{}))
	var unable *CouldNotRun
	if err := r.to(bot, mainRef, oid); !errors.As(err, &unable) {
		t.Errorf("forged approvals: %v", err)
	}
}

func TestApprovalsThatNobodyCouldGive(t *testing.T) {
	r, files := reviewed(t)
	for change, want := range map[string]string{
		"who: [leads, ada]":   "", // as it is
		"who: [lea]":          "",
		"who: [eve], approve": "approvals: a change of verifiers/** would take 2 approval(s) by others than who proposes it, and only eve may approve it",
	} {
		text := strings.Replace(twoPersons, "who: [leads, ada]", strings.TrimSuffix(change, ", approve"), 1)
		if want != "" {
			text = strings.Replace(text, "headgate.yaml]}\n`", "headgate.yaml], count: 2}\n", 1)
			text = strings.Replace(text, "approvals:\n  - {paths: [\"verifiers/**\", headgate.yaml]}", "approvals:\n  - {paths: [\"verifiers/**\", headgate.yaml], count: 2}", 1)
		}
		oid := r.stored(with(files, PolicyFile, text, "README", change))
		r.must(r.approve(lea, oid))
		if err := r.to(eve, mainRef, oid, "dry-run"); want == "" && err != nil && !strings.Contains(err.Error(), "dry run") {
			t.Errorf("%s: %v", change, err)
		} else if want != "" {
			r.refused(err, want)
		}
	}
	oid := r.stored(with(files, PolicyFile, "approvals: [{paths: [headgate.yaml]}]\n"))
	r.refused(r.to(eve, mainRef, oid), "approvals: there are no grants, so nobody could approve")
}
