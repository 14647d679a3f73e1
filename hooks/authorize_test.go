package hooks

import (
	"errors"
	"strings"
	"testing"

	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/tree"
	"github.com/headgate/headgate/refs"
)

const grants = `branches:
  main: {gate: required}
  "release/*": {gate: required}
grants:
  - {who: [agents], push: ["agent/*"], propose: [main], edit: ["models/**", "tables/**", "lib/**"]}
  - {who: [ada], propose: ["*"], create: ["release/*"], edit: ["**"], push: ["refs/notes/*"]}
  - {who: [bob], force: ["bob/*", "refs/tags/*"], delete: ["bob/*"]}
`

var (
	ada = Identity{Name: "ada"}
	bot = Identity{Name: "bot", Groups: []string{"agents"}}
	bob = Identity{Name: "bob"}
	eve = Identity{Name: "eve"}
	op  = Identity{Name: "op", Admin: true}
)

// governed is a rig whose main has grants.
func governed(t *testing.T, change ...string) (*rig, map[string]string) {
	r := newRig(t)
	r.known = []Identity{ada, bot, bob, eve, op}
	r.who = op
	files := with(base(), append([]string{PolicyFile, grants}, change...)...)
	r.must(r.toMain(files))
	return r, files
}

// as pushes new at name.
func (r *rig) as(who Identity, name refs.Name, files map[string]string, parents ...objects.OID) error {
	r.Helper()
	r.who = who
	u := refs.Update{Name: name, Old: r.tip(name)}
	q, err := r.lake.Objects.Quarantine()
	if files != nil {
		u.New, q = r.commit(files, parents...)
	} else if err != nil {
		r.Fatal(err)
	}
	return r.push(q, nil, false, u)[0].Err
}

// state returns the files of a commit.
func (r *rig) state(commit objects.OID) map[string]string {
	r.Helper()
	c, err := readCommit(r.Context(), r.lake.Objects, commit)
	r.must(err)
	files := make(map[string]string)
	r.must(tree.Walk(r.Context(), r.lake.Objects, c.Tree, func(path string, e gitobj.Entry) error {
		if e.Mode != gitobj.ModeTree {
			files[path] = r.read(commit, path)
		}
		return nil
	}))
	return files
}

func (r *rig) refused(err error, want string) {
	r.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		r.Errorf("got %v, want %q", err, want)
	}
}

func TestGrantsByBranch(t *testing.T) {
	r, files := governed(t)
	main := r.tip(mainRef)
	change := with(files, "models/two.sql", "SELECT n, n FROM one")
	r.refused(r.as(eve, mainRef, change, main), "eve may not propose to main: no grant of headgate.yaml lets eve propose main (line 5 lets agents; line 6 lets ada)")
	r.refused(r.as(eve, "refs/heads/agent/x", files, main), "eve may not create agent/x")
	r.must(r.as(bot, "refs/heads/agent/x", files, main))
	first := r.tip("refs/heads/agent/x")
	r.must(r.as(bot, "refs/heads/agent/x", change, first))
	r.refused(r.as(bot, "refs/heads/agent/x", files, main), "bot may not force agent/x")
	r.refused(r.as(bot, "refs/heads/agent/x", nil), "bot may not delete agent/x")
	r.refused(r.as(eve, "refs/heads/agent/x", files, r.tip("refs/heads/agent/x")), "eve may not push agent/x")
	r.must(r.as(op, "refs/heads/agent/x", nil))
	r.must(r.as(bob, "refs/heads/bob/x", files, main))
	r.must(r.as(bob, "refs/heads/bob/x", change, main))
	r.must(r.as(bob, "refs/heads/bob/x", nil))
	r.must(r.as(bob, "refs/tags/v1", files, main))
	r.refused(r.as(bot, "refs/tags/v1", change, main), "bot may not force refs/tags/v1")
	r.refused(r.as(bot, "refs/tags/v2", change, main), "bot may not create refs/tags/v2")
	r.must(r.as(ada, "refs/notes/review", files))
	r.refused(r.as(bob, "refs/notes/other", files), "bob may not create refs/notes/other")
	// A new gated branch takes both grants.
	r.refused(r.as(bot, "refs/heads/release/1", change, main), "bot may not propose to release/1")
	r.must(r.as(ada, "refs/heads/release/1", change, main))
}

// What an ungated branch says of itself gives nobody anything.
func TestAnUngatedBranchGrantsNothing(t *testing.T) {
	r, files := governed(t)
	all := with(files, PolicyFile, "grants: [{who: [\"*\"], push: [\"*\"], force: [\"*\"], propose: [\"*\"], edit: [\"**\"]}]\n")
	r.must(r.as(bot, "refs/heads/agent/x", all, r.tip(mainRef)))
	r.refused(r.as(eve, "refs/heads/agent/x", files, r.tip("refs/heads/agent/x")), "eve may not push agent/x")
}

// What counts is what a proposal makes of the target's state, whatever path tricks
// it goes by.
func TestGrantsByPath(t *testing.T) {
	twice := "SELECT n FROM two -- again"
	for name, c := range map[string]struct {
		change []string
		path   string // that the refusal names; "" if it is published
	}{
		"a model":             {[]string{"models/two.sql", "SELECT n, n FROM one"}, ""},
		"a table":             {[]string{"tables/src/a.parquet", "PAR1 other PAR1"}, ""},
		"a verifier":          {[]string{"verifiers/fine.sql", twice}, "bot may not change verifiers/fine.sql"},
		"a verifier less":     {[]string{"verifiers/fine.sql", ""}, "bot may not change verifiers/fine.sql"},
		"one more":            {[]string{"verifiers/more.sql", twice}, "bot may not change verifiers/more.sql"},
		"a rename":            {[]string{"verifiers/fine.sql", "", "models/fine.sql", "SELECT n FROM two"}, "bot may not change verifiers/fine.sql"},
		"the policy":          {[]string{PolicyFile, grants + "sandbox: {cpus: 1}\n"}, "bot may not change headgate.yaml"},
		"a file of its own":   {[]string{"README.md", "words"}, "bot may not change README.md"},
		"another case":        {[]string{"Models/two.sql", "x"}, "bot may not change Models/two.sql"},
		"an invisible letter": {[]string{"mod\u200bels/two.sql", "x"}, "bot may not change mod"},
	} {
		t.Run(name, func(t *testing.T) {
			r, files := governed(t)
			err := r.as(bot, mainRef, with(files, c.change...), r.tip(mainRef))
			if c.path == "" {
				r.must(err)
				return
			}
			r.refused(err, c.path)
		})
	}
}

// Who may write to a place that is another one in somebody's checkout needs the
// grant for that one too.
func TestTwinsNeedBothGrants(t *testing.T) {
	r := newRig(t)
	r.who = op
	files := with(base(), PolicyFile, "branches: {main: {gate: required}}\ngrants:\n  - {who: [eve], propose: [main], edit: [\"Verifiers/**\", \"HEADGATE.yaml\", \"docs/**\", \"ﬁles/**\"]}\n", "files/a", "1")
	r.must(r.toMain(files))
	files = r.state(r.tip(mainRef))
	for path, twin := range map[string]string{
		"Verifiers/x.sql": "it is verifiers/x.sql where names are not told apart",
		"HEADGATE.yaml":   "it is headgate.yaml where",
		"ﬁles/a":          "it is files/a where",
	} {
		r.refused(r.as(eve, mainRef, with(files, path, "x"), r.tip(mainRef)), "eve may not change "+path+": "+twin)
	}
	r.must(r.as(eve, mainRef, with(files, "docs/x", "1", "docs/X", "2"), r.tip(mainRef)))
}

// Links, submodules and modes are changes of their paths, and lead nowhere.
func TestLinksAndSubmodulesAreChangesOfTheirPaths(t *testing.T) {
	for _, mode := range []gitobj.Mode{gitobj.ModeSymlink, gitobj.ModeGitlink, gitobj.ModeExec} {
		r, files := governed(t)
		tip := r.tip(mainRef)
		oid, q := r.commit(files, tip)
		c, err := readCommit(t.Context(), q, oid)
		r.must(err)
		e, err := tree.Lookup(t.Context(), q, c.Tree, "verifiers/fine.sql")
		r.must(err)
		root, err := tree.Apply(t.Context(), q, c.Tree, map[string]tree.Edit{"verifiers/fine.sql": {Mode: mode, OID: e.OID}})
		r.must(err)
		c.Tree = root
		data := c.Encode()
		oid, err = q.Put(t.Context(), objects.Commit, int64(len(data)), strings.NewReader(string(data)))
		r.must(err)
		r.who = bot
		if err := r.push(q, nil, false, refs.Update{Name: mainRef, Old: tip, New: oid})[0].Err; err == nil {
			t.Errorf("mode %o of a verifier was changed without the grant", mode)
		}
	}
}

// A verifier can be changed by what it imports, and a source table by a model that
// is put in its place.
func TestChangesFromElsewhere(t *testing.T) {
	r, files := governed(t)
	only := strings.Replace(grants, `"models/**", "tables/**", "lib/**"`, `"models/**"`, 1)
	r.who = op
	r.must(r.toMain(with(files, PolicyFile, only, "tables/other/a.parquet", "PAR1 other PAR1")))
	files = r.state(r.tip(mainRef))
	r.refused(r.as(bot, mainRef, with(files, "models/src.sql", "SELECT n FROM other"), r.tip(mainRef)), "bot may not change tables/src/table.json")
	// What a model makes is nobody's edit, whatever was pushed in its place.
	r.must(r.as(bot, mainRef, with(files, "tables/one/a.parquet", "PAR1 forged PAR1", "models/two.sql", "SELECT n, n FROM one"), r.tip(mainRef)))
}

func TestPoliciesThatAreNotSound(t *testing.T) {
	r, files := governed(t)
	for text, want := range map[string]string{
		"grants: [{who: [adda], propose: [main], edit: [\"**\"]}]\n":                    `headgate.yaml:1: grants: there is no user or group "adda" (did you mean "ada"?)`,
		"grants: [{who: [ada], push: [main], edit: [\"**\"]}]\n":                        "main is gated, so nobody can push it",
		"grants: [{who: [ada], propose: [main], edit: [\"**\"], read_tables: [src]}]\n": "does not keep tables from those who may read others",
		"grants: [{who: [ada, ada], propose: [main]}]\n":                                `grants.who names "ada" twice`,
	} {
		r.refused(r.as(op, mainRef, with(files, PolicyFile, text), r.tip(mainRef)), want)
	}
	r.known = r.known[:4] // no administrator has a key any more
	r.refused(r.as(ada, mainRef, with(files, PolicyFile, "grants: [{who: [ada], propose: [main], edit: [\"models/**\"]}]\n"), r.tip(mainRef)), "nobody could change headgate.yaml again")
	// A name that goes from the server later keeps nobody from working.
	r.known = []Identity{bot, op}
	r.must(r.as(bot, mainRef, with(files, "models/two.sql", "SELECT n, n FROM one"), r.tip(mainRef)))
}

// The policy of the tip governs, not the one that comes with the push; and what
// it changes is on record.
func TestPolicyChangesAreOnRecord(t *testing.T) {
	r, files := governed(t)
	open := with(files, PolicyFile, "branches: {main: {gate: off}}\n")
	r.refused(r.as(bot, mainRef, open, r.tip(mainRef)), "bot may not change headgate.yaml")
	if got := strings.Join(r.record(lake.Rejected).PolicyChanges, " "); got != "branches grants" {
		t.Errorf("record: %q", got)
	}
	r.must(r.as(ada, mainRef, open, r.tip(mainRef)))
	if !strings.Contains(r.out.String(), "CHANGED by this push: branches, grants") {
		t.Errorf("the pusher was not told:\n%s", r.out.String())
	}
}

// Rights that go while a run is under way are gone when it would publish.
func TestRightsThatGoDuringARun(t *testing.T) {
	for name, during := range map[string]func(r *rig, files map[string]string){
		"the group": func(r *rig, _ map[string]string) { r.known = []Identity{ada, {Name: "bot"}, op} },
		"the key":   func(r *rig, _ map[string]string) { r.known = []Identity{ada, op} },
		"the grant": func(r *rig, files map[string]string) {
			oid, q := r.commit(with(files, PolicyFile, "grants: [{who: [ada], propose: [main], edit: [\"**\"]}]\n"), r.tip(mainRef))
			r.must(r.gate.Receive(r.Context(), &Push{Lake: r.lake, Who: op, Updates: []refs.Update{{Name: mainRef, Old: r.tip(mainRef), New: oid}}, Objects: q, Progress: &strings.Builder{}})[0].Err)
			r.must(q.Discard())
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, files := governed(t)
			once := false
			r.boxes.during = func() {
				if !once {
					once = true
					during(r, files)
				}
			}
			err := r.as(bot, mainRef, with(files, "models/two.sql", "SELECT n, n FROM one"), r.tip(mainRef))
			var rejected *Rejection
			if !errors.As(err, &rejected) {
				t.Errorf("got %v, want a rejection", err)
			}
		})
	}
}

// What the server merges is held against what the tip has: what others have
// published since is not the proposer's, and what is theirs is not hidden by it.
func TestGrantsOfMergedProposals(t *testing.T) {
	r, _ := governed(t)
	old := r.tip(mainRef)
	files := r.state(old)
	r.must(r.as(ada, mainRef, with(files, "verifiers/fine.sql", "SELECT n FROM two -- finer"), old))
	propose := func(who Identity, change ...string) error {
		oid, q := r.commit(with(files, change...), old)
		r.who = who
		return r.push(q, nil, false, refs.Update{Name: "refs/for/main", New: oid})[0].Err
	}
	r.refused(propose(eve, "models/two.sql", "SELECT n, n FROM one"), "eve may not propose to main")
	r.refused(propose(bot, "models/two.sql", "SELECT n, n FROM one", "verifiers/more.sql", "SELECT n FROM two"), "bot may not change verifiers/more.sql")
	r.must(propose(bot, "models/two.sql", "SELECT n, n FROM one"))
	if got := r.read(r.tip(mainRef), "verifiers/fine.sql"); !strings.Contains(got, "finer") {
		t.Errorf("what ada published is gone: %q", got)
	}
}

// A branch that is older than the rule that gates it is gated by it, whatever its
// own tip says.
func TestOldBranchesAreGatedByMain(t *testing.T) {
	r := newRig(t)
	r.known = []Identity{ada, bot, bob, eve, op}
	r.who = op
	open := with(base(), PolicyFile, "branches: {main: {gate: required}, \"release/*\": {gate: off}}\n")
	r.must(r.toMain(open))
	release := refs.Name("refs/heads/release/1")
	r.must(r.as(eve, release, open, r.tip(mainRef)))
	r.must(r.as(op, mainRef, with(open, PolicyFile, grants), r.tip(mainRef)))
	old := r.tip(release)
	r.refused(r.as(eve, release, with(open, "README", "words"), old), "eve may not propose to release/1")
	r.refused(r.as(bob, release, nil), "bob may not propose to release/1")
	r.refused(r.as(ada, release, nil), "release/1 is gated and cannot be deleted")
	r.must(r.as(ada, release, with(r.state(r.tip(mainRef)), PolicyFile, grants), old))
	if c, err := readCommit(t.Context(), r.lake.Objects, r.tip(release)); err != nil || !r.gate.isGateCommit(c) {
		t.Errorf("release/1 moved without the gate: %v", err)
	}
}
