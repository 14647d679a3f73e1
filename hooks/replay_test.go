package hooks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/tree"
)

// replayer replays with the rig's sandboxes, in a quarantine that is thrown away.
func (r *rig) replayer() *Replayer {
	r.Helper()
	q, err := r.lake.Objects.Quarantine()
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = q.Discard() })
	return &Replayer{Runtime: r.gate.cfg.Runtime, Store: q, TempDir: r.gate.cfg.TempDir, Ceiling: r.gate.cfg.Ceiling,
		Signature: r.gate.cfg.Signer.Verify, Verifiers: true}
}

func (r *rig) replay(commit objects.OID, change ...func(*Replayer)) *ReplayReport {
	r.Helper()
	p := r.replayer()
	for _, f := range change {
		f(p)
	}
	rep, err := p.Replay(r.Context(), commit)
	if err != nil {
		r.Fatal(err)
	}
	return rep
}

// forge makes a copy of main's tip with edits of its tree and its message.
func (r *rig) forge(files map[string]string, message func(string) string) objects.OID {
	r.Helper()
	ctx := r.Context()
	q, err := r.lake.Objects.Quarantine()
	if err != nil {
		r.Fatal(err)
	}
	c, err := readCommit(ctx, q, r.tip(mainRef))
	if err != nil {
		r.Fatal(err)
	}
	edits := make(map[string]tree.Edit)
	for path, text := range files {
		oid, err := q.Put(ctx, objects.Blob, int64(len(text)), strings.NewReader(text))
		if err != nil {
			r.Fatal(err)
		}
		edits[path] = tree.Edit{Mode: gitobj.ModeFile, OID: oid}
	}
	if c.Tree, err = tree.Apply(ctx, q, c.Tree, edits); err != nil {
		r.Fatal(err)
	}
	if message != nil {
		c.Message = message(c.Message)
	}
	data := c.Encode()
	oid, err := q.Put(ctx, objects.Commit, int64(len(data)), strings.NewReader(string(data)))
	if err == nil {
		err = q.Migrate(ctx)
	}
	if err = errors.Join(err, q.Discard()); err != nil {
		r.Fatal(err)
	}
	return oid
}

func (rep *ReplayReport) model(name string) *ReplayedModel {
	for i := range rep.Models {
		if rep.Models[i].Name == name {
			return &rep.Models[i]
		}
	}
	return &ReplayedModel{Status: "not there"}
}

func TestReplayOfAnHonestCommit(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(base()))
	r.boxes.took("")
	rep := r.replay(r.tip(mainRef))
	if !rep.Equal || rep.Signature != SignatureGood || len(rep.Models) != 2 || len(rep.Verifiers) != 1 {
		t.Errorf("replay of what the gate made: %+v", rep)
	}
	if n := r.boxes.took(protocol.OpModel); n != 2 {
		t.Errorf("%d models ran, want 2: a replay takes nothing from the action cache", n)
	}
	rep = r.replay(r.tip(mainRef), func(p *Replayer) { p.Tables, p.Verifiers, p.Signature = []string{"TWO"}, false, nil })
	if !rep.Equal || rep.Signature != SignatureUnchecked || len(rep.Models) != 1 || rep.Models[0].Name != "two" {
		t.Errorf("replay of one table: %+v", rep)
	}
	var missing *NoSuchTableError
	p := r.replayer()
	p.Tables = []string{"src"}
	if _, err := p.Replay(t.Context(), r.tip(mainRef)); !errors.As(err, &missing) {
		t.Errorf("replay of a source table: %v, want a *NoSuchTableError", err)
	}
}

// Another machine has another DuckDB: that is told, and is no difference by itself.
func TestReplayInAnotherEnvironment(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(base()))
	elsewhere := exec.New(r.boxes, exec.Environments{Worker: objects.OID{9}}, exec.Budget{CPUs: 2, Memory: 4 << 30}, slog.New(slog.DiscardHandler))
	var lines []string
	rep := r.replay(r.tip(mainRef), func(p *Replayer) {
		p.Runtime, p.Progress = elsewhere, func(l string) { lines = append(lines, l) }
	})
	if one := rep.model("one"); !rep.Equal || one.Env == one.CommittedEnv || rep.Verdict() != nil {
		t.Errorf("replay elsewhere: equal %t, %+v", rep.Equal, one)
	}
	if text := strings.Join(lines, "\n"); !strings.Contains(text, "env differs: the commit ran with 0000000000, here it is 0900000000; outputs equal anyway") {
		t.Errorf("it is not told:\n%s", text)
	}
}

func TestReplayFindsForgery(t *testing.T) {
	swap := func(old, new string) func(string) string {
		return func(m string) string {
			if !strings.Contains(m, old) {
				panic(fmt.Sprintf("%q is not in %q", old, m))
			}
			return strings.Replace(m, old, new, 1)
		}
	}
	r := newRig(t)
	r.must(r.toMain(with(base(), "models/other.sql", "SELECT n FROM src WHERE true")))
	tip := r.tip(mainRef)
	other := strings.ReplaceAll(r.read(tip, "tables/one/table.json"), `"max":7`, `"max":8`)
	base := r.replay(tip).Base
	for _, c := range []struct {
		name    string
		files   map[string]string
		message func(string) string
		model   string // where it shows; "" if it is the commit's
		want    string
	}{
		{name: "a derived table was edited", files: map[string]string{"tables/one/table.json": other}, model: "one", want: "the table was changed after it was made"},
		{name: "a table that a model reads was edited", files: map[string]string{"tables/src/table.json": strings.ReplaceAll(r.read(tip, "tables/src/table.json"), `"max":7`, `"max":8`)},
			model: "one", want: "the message says that it read src at"},
		{name: "a model was edited", files: map[string]string{"models/one.sql": "SELECT n -- new\nFROM src"}, model: "one", want: "the message says code="},
		{name: "a model reads something else", files: map[string]string{"models/two.sql": "SELECT n FROM other"}, model: "two", want: "the code in the tree does not"},
		{name: "the output in the message", message: swap("out=", "out=0000000000000000000000000000000000000000 x="), model: "one", want: "where the message says 0000000000"},
		{name: "the rows in the message", message: swap("rows=1", "rows=2"), model: "one", want: "the message says 2 rows, it has 1"},
		{name: "a model is left out of the message", message: swap("Model: one", "Hodel: one"), model: "one", want: "the message has no line for it"},
		{name: "a model too many in the message", message: func(m string) string {
			i := strings.Index(m, "Model: one")
			line, _, _ := strings.Cut(m[i:], "\n")
			return strings.Replace(m, line, line+"\n"+strings.Replace(line, "one", "ghost", 1), 1)
		}, want: "its tree has no such model"},
		{name: "another base", message: swap("Base: "+base, "Base: "+tip.String()), want: "its message says Base: " + tip.String()},
	} {
		t.Run(c.name, func(t *testing.T) {
			rep := r.replay(r.forge(c.files, c.message))
			if rep.Equal {
				t.Errorf("the forged commit is said to be as it says: %+v", rep)
			}
			if rep.Signature != SignatureBad {
				t.Errorf("signature %q, want %q", rep.Signature, SignatureBad)
			}
			if err := rep.Verdict(); err == nil || !strings.Contains(err.Error(), "is not what") {
				t.Errorf("verdict: %v", err)
			}
			texts := strings.Join(append(rep.Problems, rep.model(c.model).Problems...), "\n")
			if !strings.Contains(texts, c.want) {
				t.Errorf("problems are:\n%s\nwant one with %q", texts, c.want)
			}
			// The signature apart, it is the forgery alone that makes it differ.
			rep = r.replay(r.forge(c.files, c.message), func(p *Replayer) { p.Signature = nil })
			if rep.Equal {
				t.Error("without the signature, the forged commit is said to be as it says")
			}
		})
	}
}

func TestReplayFindsWhatIsNotDeterministic(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(with(base(), "models/one.sql", "SELECT n, 'RANDOM' FROM src")))
	rep := r.replay(r.tip(mainRef))
	one, two := rep.model("one"), rep.model("two")
	if rep.Equal || one.Status != ReplayDiffers || !one.NotDeterministic || one.Replayed == one.Committed {
		t.Errorf("a model that gives something else each time: %+v", one)
	}
	if two.Status != ReplayEqual {
		t.Errorf("a model that reads it: %+v; it is replayed on what the commit has, and equal", two)
	}
	// A commit that says so itself is as good as its word.
	marked := r.forge(nil, func(m string) string {
		i := strings.Index(m, "Model: one")
		line, _, _ := strings.Cut(m[i:], "\n")
		return strings.Replace(m, line, line+" deterministic=false", 1)
	})
	rep = r.replay(marked, func(p *Replayer) { p.Signature = nil })
	if one := rep.model("one"); !rep.Equal || one.Status != ReplayDiffers {
		t.Errorf("a difference that the commit announces: equal %t, %+v", rep.Equal, one)
	}
}

func TestReplayTakesParametersFromTheMessage(t *testing.T) {
	r := newRig(t)
	files := with(base(),
		"headgate.yaml", "parameters:\n  day: {type: date, default: 2001-01-01}\n  n: {type: int}\n",
		"models/one.sql", "-- headgate: params=[day, n]\nSELECT n FROM src WHERE d = getvariable('day') AND n < getvariable('n')")
	r.must(r.toMain(files, "param.n=12345678901234567", "param.day=2001-01-31"))
	r.boxes.params = nil
	if rep := r.replay(r.tip(mainRef)); !rep.Equal {
		t.Errorf("replay with parameters: %+v", rep)
	}
	if got := r.boxes.params; got["day"] != "2001-01-31" || got["n"] != int64(12345678901234567) {
		t.Errorf("the replayed function got %#v", got)
	}
	rep := r.replay(r.forge(nil, func(m string) string { return strings.Replace(m, " params=", " xarams=", 1) }))
	if one := rep.model("one"); rep.Equal || one.Status != ReplayDiffers || !strings.Contains(strings.Join(one.Problems, ""), "no value for a parameter") {
		t.Errorf("without its parameters: %+v", one)
	}
}

func TestReplayOfTablesThatBuildOnTheirPast(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(map[string]string{"tables/src/a.parquet": "PAR1 src 1 PAR1", "models/log.sql": fmt.Sprint(appending, 1)}))
	first := r.tip(mainRef)
	r.must(r.propose(first, sourceFiles(r, first, "PAR1 src 2 PAR1")))
	second := r.tip(mainRef)
	r.must(r.propose(second, map[string]string{"README.md": "kept"}))
	kept := r.tip(mainRef)
	r.must(r.propose(first, nil))
	reverted := r.tip(mainRef)
	for what, commit := range map[string]objects.OID{"the first rows": first, "rows after them": second, "a table that was kept": kept, "a revert": reverted} {
		if rep := r.replay(commit); !rep.Equal || len(rep.Models) != 1 || len(rep.Notes) > 0 {
			t.Errorf("replay of %s: %+v", what, rep)
		}
	}
	unsigned := func(p *Replayer) { p.Signature = nil }
	r.must(r.propose(second, nil))
	prior := " prior=" + r.trailerOf(r.tip(mainRef), "log").Prior
	for _, c := range []struct{ name, prior, want string }{
		{"no prior", "", "the message says that it builds on no table"},
		{"a prior of somebody's own", " prior=" + r.trailerOf(second, "log").Out, "which is neither the table at the base nor"},
	} {
		rep := r.replay(r.forge(nil, func(m string) string { return strings.Replace(m, prior, c.prior, 1) }), unsigned)
		if log := rep.model("log"); rep.Equal || !strings.Contains(strings.Join(log.Problems, "\n"), c.want) {
			t.Errorf("with %s: %+v", c.name, log)
		}
	}
	// Without the base it cannot be told.
	c, err := readCommit(t.Context(), r.lake.Objects, second)
	if err != nil {
		t.Fatal(err)
	}
	rep := r.replay(second, func(p *Replayer) {
		p.Store, p.Verifiers = &partial{p.Store.(*objects.Quarantine), map[objects.OID]bool{c.Parents[0]: true}}, false
	})
	if !rep.Equal || !strings.Contains(strings.Join(rep.Notes, "\n"), "the history is not in this clone") {
		t.Errorf("without the base: %+v", rep)
	}
}

func TestReplayOfTablesThatAreNotStored(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(with(base(), "models/one.sql", "-- headgate: strategy=none\nSELECT n FROM src", "verifiers/one.sql", "SELECT n FROM one")))
	if rep := r.replay(r.tip(mainRef)); !rep.Equal || len(rep.Models) != 2 || len(rep.Verifiers) != 2 {
		t.Errorf("replay: %+v", rep)
	}
	// Its child alone needs it too.
	if rep := r.replay(r.tip(mainRef), func(p *Replayer) { p.Tables, p.Verifiers = []string{"two"}, false }); !rep.Equal || len(rep.Models) != 2 {
		t.Errorf("replay of its child: %+v", rep)
	}
	// And so does a verifier. The one on the table that goes has to go before it.
	r.must(r.toMain(with(base(), "models/one.sql", "-- headgate: strategy=none\nSELECT n FROM src", "verifiers/one.sql", "SELECT n FROM one", "verifiers/fine.sql", "")))
	r.must(r.toMain(map[string]string{"tables/src/a.parquet": "PAR1 source PAR1", "models/one.sql": "-- headgate: strategy=none\nSELECT n FROM src",
		"models/other.sql": "SELECT n FROM src", "verifiers/one.sql": "SELECT n FROM one"}))
	if rep := r.replay(r.tip(mainRef), func(p *Replayer) { p.Tables = []string{"other"} }); !rep.Equal || len(rep.Verifiers) != 1 {
		t.Errorf("replay of its verifier: %+v", rep)
	}
}

func TestReplayRefusesOtherCommits(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(base()))
	for _, c := range []struct {
		name   string
		commit objects.OID
	}{
		{"a proposal", func() objects.OID {
			c, _ := readCommit(t.Context(), r.lake.Objects, r.tip(mainRef))
			return c.Parents[1]
		}()},
		{"the empty first commit", func() objects.OID {
			c, _ := readCommit(t.Context(), r.lake.Objects, r.tip(mainRef))
			return c.Parents[0]
		}()},
		{"lineage that cannot be read", r.forge(nil, func(m string) string { return strings.Replace(m, "Base: ", "Base: x", 1) })},
		{"code that makes no plan", r.forge(map[string]string{"models/bad.sql": "SELECT n FROM nowhere"}, nil)},
		{"a policy that is none", r.forge(map[string]string{"headgate.yaml": "branches: 3"}, nil)},
	} {
		var refused *NotReplayableError
		if _, err := r.replayer().Replay(t.Context(), c.commit); !errors.As(err, &refused) {
			t.Errorf("replay of %s: %v, want a *NotReplayableError", c.name, err)
		}
	}
}

// partial is a store that lacks some objects, as a clone may.
type partial struct {
	*objects.Quarantine
	lacks map[objects.OID]bool
}

// remote is a store that is told beforehand what will be read.
type remote struct {
	*objects.Quarantine
	mu        sync.Mutex
	announced map[objects.OID]bool
	missed    []objects.OID
}

func (s *remote) Prefetch(_ context.Context, oids []objects.OID) error {
	for _, oid := range oids {
		s.announced[oid] = true
	}
	return nil
}

func (s *remote) Link(ctx context.Context, oid objects.OID, path string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.announced[oid] {
		s.missed = append(s.missed, oid)
	}
	return s.Quarantine.Link(ctx, oid, path)
}

// Each object that a partial clone has to fetch alone is a round trip.
func TestReplayAnnouncesWhatItReads(t *testing.T) {
	r := newRig(t)
	keyed := "-- headgate: strategy=append key=[n]\nSELECT n FROM src"
	r.must(r.toMain(with(base(), "models/log.sql", keyed, "verifiers/kept.sql", "SELECT n FROM base.log")))
	first := r.tip(mainRef)
	r.must(r.propose(first, sourceFiles(r, first, "PAR1 src 2 PAR1")))
	var store *remote
	rep := r.replay(r.tip(mainRef), func(p *Replayer) {
		store = &remote{Quarantine: p.Store.(*objects.Quarantine), announced: make(map[objects.OID]bool)}
		p.Store = store
	})
	if !rep.Equal || len(rep.Verifiers) != 2 || len(store.announced) == 0 {
		t.Errorf("replay: %+v", rep)
	}
	if len(store.missed) > 0 {
		t.Errorf("%d parts were read without a word before: %v", len(store.missed), store.missed)
	}
}

func (s *partial) Open(ctx context.Context, oid objects.OID) (objects.Info, io.ReadCloser, error) {
	if s.lacks[oid] {
		return objects.Info{}, nil, fmt.Errorf("%w: %s", objects.ErrNotFound, oid)
	}
	return s.Quarantine.Open(ctx, oid)
}

func (s *partial) Link(ctx context.Context, oid objects.OID, path string) error {
	if s.lacks[oid] {
		return fmt.Errorf("%w: %s", objects.ErrNotFound, oid)
	}
	return s.Quarantine.Link(ctx, oid, path)
}

func TestReplayOfWhatACloneLacks(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(base()))
	c := mustCommit(t, r)
	meta, err := tree.Lookup(t.Context(), r.lake.Objects, c.Tree, "tables/src/table.json")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := tree.Lookup(t.Context(), r.lake.Objects, c.Tree, "tables/src")
	if err != nil {
		t.Fatal(err)
	}
	entries, err := tree.List(t.Context(), r.lake.Objects, dir.OID)
	if err != nil {
		t.Fatal(err)
	}
	without := func(oid objects.OID) func(*Replayer) {
		return func(p *Replayer) {
			p.Store, p.Verifiers = &partial{p.Store.(*objects.Quarantine), map[objects.OID]bool{oid: true}}, false
		}
	}
	rep := r.replay(r.tip(mainRef), without(entries[0].OID))
	one, two := rep.model("one"), rep.model("two")
	if rep.Equal || one.Status != ReplayAbsent || one.Reason == "" {
		t.Errorf("without a part: equal %t, its model %+v; want it absent, and a reason", rep.Equal, one)
	}
	if two.Status != ReplayEqual {
		t.Errorf("without a part, the model that does not need it: %+v", two)
	}
	if err := rep.Verdict(); err == nil || !strings.Contains(err.Error(), "not every model could be replayed") {
		t.Errorf("verdict without a part: %v", err)
	}
	p := r.replayer()
	without(meta.OID)(p)
	if _, err := p.Replay(t.Context(), r.tip(mainRef)); !errors.Is(err, objects.ErrNotFound) || !strings.Contains(err.Error(), "this clone lacks") {
		t.Errorf("without what says what tables there are: %v", err)
	}
	// A shallow clone lacks the base.
	rep = r.replay(r.tip(mainRef), without(c.Parents[0]))
	if !rep.Equal || len(rep.Notes) != 1 {
		t.Errorf("without the base: equal %t, notes %q; want it equal and said", rep.Equal, rep.Notes)
	}
}

func TestReplayReportsFailure(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(base()))
	rep := r.replay(r.forge(map[string]string{"models/one.sql": "SELECT n, 'BAD' FROM src", "verifiers/fine.sql": "SELECT n FROM two -- VIOLATIONS 3"}, nil))
	if one := rep.model("one"); rep.Equal || one.Status != ReplayFailed || one.Error == nil || !strings.Contains(one.Error.Text, "BAD") {
		t.Errorf("a model that fails: %+v", one)
	}
	if v := rep.Verifiers[0]; v.Equal || v.Replayed != "fail" || v.Committed != "pass" || !strings.Contains(v.line(), "the message says pass") {
		t.Errorf("a verifier that fails: %+v", v)
	}
}

func TestAllowedSigners(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(base()))
	line := r.gate.cfg.Signer.AllowedSigners()
	key := line[strings.Index(line, "ssh-"):]
	for _, c := range []struct{ name, file, bad string }{
		{"the gate's own line", line, ""},
		{"among others", "# keys\n\nada@example.org " + key + "\nbob,gate@headgate namespaces=\"file,git\" " + key + "\n", ""},
		{"nobody's", "ada@example.org " + key, "no line for gate@headgate"},
		{"for files", `gate@headgate namespaces="file" ` + key, "not one for signing commits"},
		{"of a certificate authority", `gate@headgate cert-authority ` + key, "not one for signing commits"},
		{"until no time", `gate@headgate valid-before="2020" ` + key, "is no time"},
		{"valid", `gate@headgate valid-after="20200101Z",valid-before="22000101" ` + key, ""},
		{"no key", "gate@headgate ssh-ed25519 AAAA", "line 1"},
	} {
		a, err := ParseAllowedSigners([]byte(c.file))
		if c.bad == "" && err != nil || c.bad != "" && (err == nil || !strings.Contains(err.Error(), c.bad)) {
			t.Errorf("%s: %v, want an error with %q", c.name, err, c.bad)
		}
		if err == nil && a.Verify(mustCommit(t, r)) != nil {
			t.Errorf("%s: the gate's signature is refused", c.name)
		}
	}
	stranger, err := LoadSigner(t.TempDir() + "/key")
	if err != nil {
		t.Fatal(err)
	}
	a, err := ParseAllowedSigners([]byte(stranger.AllowedSigners()))
	if err != nil {
		t.Fatal(err)
	}
	if a.Verify(mustCommit(t, r)) == nil {
		t.Error("a commit that another key signed is let through")
	}
}

func mustCommit(t *testing.T, r *rig) *gitobj.Commit {
	t.Helper()
	c, err := readCommit(t.Context(), r.lake.Objects, r.tip(mainRef))
	if err != nil {
		t.Fatal(err)
	}
	return c
}
