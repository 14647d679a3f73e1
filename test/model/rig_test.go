package model

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/sandbox"
	"github.com/headgate/headgate/hooks"
	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/tree"
	"github.com/headgate/headgate/refs"
)

const (
	mainRef  = refs.Name("refs/heads/main")
	proposed = refs.Name("refs/for/main")
	scratch  = "refs/scratch/"
)

// code is the lake that the model speaks of.
var code = map[string]string{
	"models/a.sql":       "SELECT n FROM s",
	"models/b.sql":       "SELECT n FROM a JOIN t",
	"verifiers/fine.sql": "SELECT n FROM b",
	"headgate.yaml":      "tables: {s: {key: [n]}, t: {key: [n]}}\n",
}

// point is where the real run of a push stands still until it is let go on.
type point int

const (
	atStart point = iota
	atA           // the order of the first model came
	atB
	atVerifier
	atDecide   // the verifier has answered, and the server does not know yet
	atSwap     // before the transaction that would publish
	swapped    // after it, whatever became of it
	atEvidence // before the transaction that shows what is left of a refusal
	shown
	over
)

// pusher is one push and the run that came of it. Its methods are called by one goroutine.
type pusher struct {
	at   point
	held bool
	come chan point // the run has come to a point
	on   chan struct{}
	free chan struct{} // closed: nothing is held any more
	out  hooks.Outcome // once it is over
}

type pusherKey struct{}

// hold keeps a run at a point. A cancelled run goes on by itself.
func hold(ctx context.Context, p point) {
	push, ok := ctx.Value(pusherKey{}).(*pusher)
	if !ok {
		return
	}
	select {
	case push.come <- p:
	case <-push.free:
		return
	}
	ended := ctx.Done()
	if p >= atSwap {
		ended = nil
	}
	select {
	case <-push.on:
	case <-ended:
	case <-push.free:
	}
}

// wait lets the run go on to its next point.
func (p *pusher) wait() {
	if p.held {
		p.on <- struct{}{}
	}
	p.at = <-p.come
	p.held = p.at != over
}

// until lets the run go on until it has come to a point, or past it.
func (p *pusher) until(to point) {
	for p.at < to {
		p.wait()
	}
}

// scripted answers orders as sandboxes would. A part's content is what the table is in the
// model: "S=1", "A=1", "B=1,0".
type scripted struct{}

var (
	readsFrom = regexp.MustCompile(`(?:FROM|JOIN) ([a-z]+)`)
	values    = regexp.MustCompile(`\b([STAB])=([0-9,]+)`)
)

func (scripted) Run(ctx context.Context, job sandbox.Job) (*sandbox.Report, error) {
	a, o := &protocol.Answer{}, job.Order
	judged := false
	in, err := contents(job)
	if err != nil {
		return nil, err
	}
	write := func(text string) error {
		part := "PAR1 " + text + " PAR1"
		a.Snapshot = snapshot("part-0")
		return job.Files("part-0", int64(len(part)), strings.NewReader(part))
	}
	switch o.Op {
	case protocol.OpTables:
		for _, q := range o.Queries {
			t := protocol.QueryTables{Name: q.Name, Tables: []string{}}
			for _, m := range readsFrom.FindAllStringSubmatch(q.SQL, -1) {
				t.Tables = append(t.Tables, m[1])
			}
			a.Tables = append(a.Tables, t)
		}
	case protocol.OpDescribe:
		a.Snapshot = snapshot(o.Inputs[0].Files...)
	case protocol.OpModel:
		if !strings.Contains(o.SQL, "JOIN") {
			hold(ctx, atA)
			err = write("A=" + in["S"])
			break
		}
		hold(ctx, atB)
		if in["T"] == fmt.Sprint(Broken) {
			a.Error = &protocol.UserError{Kind: "sql", Message: "Conversion Error: T", Line: 1}
			break
		}
		err = write("B=" + in["A"] + "," + in["T"])
	case protocol.OpMerge: // both sides changed the table, differently
		err = write("conflicts")
		a.Merged = &protocol.Merged{Conflicts: 1, Columns: []string{"kind"}, Sample: []map[string]any{{"kind": "cell"}}}
	case protocol.OpVerify:
		for _, q := range o.Queries {
			c := protocol.Check{Name: q.Name}
			if q.SQL == code["verifiers/fine.sql"] {
				hold(ctx, atVerifier)
				judged = true
				if in["B"] == "1,1" {
					c.Violations, c.File, c.Columns, c.Sample = 1, q.Name+".parquet", []string{"n"}, []map[string]any{{"n": 7}}
					err = job.Files(c.File, 8, strings.NewReader("PAR1PAR1"))
				}
			}
			a.Checks = append(a.Checks, c)
		}
	default:
		err = fmt.Errorf("unscripted order %q", o.Op)
	}
	if judged && len(a.Checks) == 1 && a.Checks[0].Violations == 0 {
		hold(ctx, atDecide)
	}
	if err := errors.Join(err, context.Cause(ctx)); err != nil {
		return nil, err
	}
	return &sandbox.Report{Answer: a}, nil
}

func contents(job sandbox.Job) (map[string]string, error) {
	dir, err := os.MkdirTemp("", "scripted-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	found := make(map[string]string)
	for i, in := range job.Inputs {
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := in.Link(path); err != nil {
			return nil, err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		if m := values.FindSubmatch(data); m != nil {
			found[string(m[1])] = string(m[2])
		}
	}
	return found, nil
}

func snapshot(files ...string) *protocol.Snapshot {
	s := &protocol.Snapshot{Columns: []protocol.Column{{Name: "n", Type: "BIGINT"}}}
	for _, f := range files {
		s.Parts = append(s.Parts, protocol.Part{File: f, Rows: 1, Stats: []protocol.ColumnStats{{Min: json.RawMessage("7"), Max: json.RawMessage("7")}}})
	}
	return s
}

// heldRefs stops runs before and after their last transaction.
type heldRefs struct{ refs.Store }

func (s heldRefs) Apply(ctx context.Context, updates []refs.Update, cause refs.Cause) error {
	before, after := atEvidence, shown
	if slices.ContainsFunc(updates, func(u refs.Update) bool { return u.Name == mainRef }) {
		before, after = atSwap, swapped
	}
	hold(ctx, before)
	err := s.Store.Apply(ctx, updates, cause)
	hold(ctx, after)
	return err
}

// server is a gate and its one lake. A crash is another server on a copy of what the disk held.
type server struct {
	*testing.T
	keys   string // directory of the server's keys
	root   string // and of all that a crash leaves
	gate   *hooks.Gate
	lakes  *lake.Directory
	lake   *lake.Lake
	pushes map[uint8]*pusher
	ctx    context.Context
	stop   context.CancelFunc
}

func open(t *testing.T, keys, root string, create bool) *server {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	s := &server{T: t, keys: keys, root: root, pushes: make(map[uint8]*pusher)}
	s.ctx, s.stop = context.WithCancel(context.Background())
	temp := filepath.Join(root, "tmp")
	must(os.MkdirAll(temp, 0o700))
	signer, err := hooks.LoadSigner(filepath.Join(keys, "gate"))
	must(err)
	key, err := lake.LoadSecretsKey(filepath.Join(keys, "secrets_key"))
	must(err)
	log := slog.New(slog.DiscardHandler)
	s.gate = hooks.New(hooks.Config{
		Runtime: exec.New(scripted{}, exec.Environments{}, exec.Budget{CPUs: 4, Memory: 4 << 30}, log), Signer: signer, TempDir: temp, Logger: log,
		Ceiling: sandbox.Limits{Memory: 1 << 30, Output: 1 << 30, Timeout: time.Minute, CPUs: 1},
	})
	s.lakes, err = lake.OpenDirectory(filepath.Join(root, "lakes"), key, log)
	must(err)
	var l *lake.Lake
	if create {
		l, err = s.lakes.Create(s.ctx, "flights")
	} else {
		l, err = s.lakes.Open(s.ctx, "flights")
	}
	must(err)
	held := *l
	held.Refs = heldRefs{l.Refs}
	s.lake = &held
	return s
}

func (s *server) close() {
	s.stop()
	for _, p := range s.pushes {
		close(p.free)
	}
	s.must(s.gate.Wait(context.Background()))
	s.must(s.lakes.Close())
}

func (s *server) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// crash returns a server on what the disk holds at this moment, while no run moves.
func (s *server) crash() *server {
	s.Helper()
	root := filepath.Join(s.TempDir(), "disk")
	for {
		before := s.files()
		err := os.CopyFS(root, os.DirFS(s.root))
		if err == nil && slices.Equal(before, s.files()) {
			break
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.Fatal(err)
		}
		s.must(os.RemoveAll(root)) // packs were joined meanwhile
	}
	next := open(s.T, s.keys, root, false)
	s.close()
	return next
}

// files lists what is on disk.
func (s *server) files() (names []string) {
	s.Helper()
	err := filepath.WalkDir(s.root, func(path string, _ fs.DirEntry, err error) error {
		names = append(names, path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	s.must(err)
	return names
}

// commit puts a commit of a tree into a quarantine.
func (s *server) commit(q *objects.Quarantine, root objects.OID, parents ...objects.OID) objects.OID {
	s.Helper()
	who := gitobj.Signature{Name: "Ada", Email: "ada@example.org", When: time.Unix(1700000000, 0).UTC()}
	data := (&gitobj.Commit{Tree: root, Parents: parents, Author: who, Committer: who, Message: "Change it\n"}).Encode()
	oid, err := q.Put(s.ctx, objects.Commit, int64(len(data)), bytes.NewReader(data))
	s.must(err)
	return oid
}

func (s *server) blob(q *objects.Quarantine, text string) tree.Edit {
	s.Helper()
	oid, err := q.Put(s.ctx, objects.Blob, int64(len(text)), strings.NewReader(text))
	s.must(err)
	return tree.Edit{Mode: gitobj.ModeFile, OID: oid}
}

// parquet is a table as somebody may push it: a directory with a file, and no table.json.
func (s *server) parquet(q *objects.Quarantine, content string) tree.Edit {
	s.Helper()
	dir, err := tree.Apply(s.ctx, q, objects.OID{}, map[string]tree.Edit{"plain.parquet": s.blob(q, "PAR1 "+content+" PAR1")})
	s.must(err)
	return tree.Edit{Mode: gitobj.ModeTree, OID: dir}
}

func (s *server) quarantine() *objects.Quarantine {
	s.Helper()
	q, err := s.lake.Objects.Quarantine()
	s.must(err)
	return q
}

// push starts a push. The run stands still before anything of it is visible.
func (s *server) push(number uint8, q *objects.Quarantine, at refs.Update, options ...string) *pusher {
	p := &pusher{come: make(chan point), on: make(chan struct{}), free: make(chan struct{})}
	s.pushes[number] = p
	ctx := context.WithValue(s.ctx, pusherKey{}, p)
	go func() {
		out := s.gate.Receive(ctx, &hooks.Push{
			Lake: s.lake, Who: hooks.Identity{Name: "ada"}, Updates: []refs.Update{at}, Options: options, Objects: q, Progress: io.Discard,
		})
		p.out = out[0]
		_ = q.Discard() // of a server that is gone
		select {
		case p.come <- over:
		case <-p.free:
		}
	}()
	return p
}

func (s *server) tip(name refs.Name) objects.OID {
	s.Helper()
	oid, err := s.lake.Refs.Get(s.ctx, name)
	if err != nil && !errors.Is(err, refs.ErrNotFound) {
		s.Fatal(err)
	}
	return oid
}

func (s *server) treeOf(commit objects.OID) objects.OID {
	s.Helper()
	data, err := objects.ReadAll(s.ctx, s.lake.Objects, commit, objects.Commit, 1<<20)
	s.must(err)
	c, err := gitobj.ParseCommit(data)
	s.must(err)
	return c.Tree
}
