package hooks

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/sandbox"
	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/refs"
)

const (
	secretValue = "hunter2-hunter2"
	giving      = "secrets:\n  API_KEY: {models: [enrich]}\n"
)

// talker is a Python function with a secret that it says in every way it can.
type talker struct {
	mu       sync.Mutex
	got      []map[string]string // secrets of each call
	fails    bool
	declared []protocol.DeclaredParam
}

func (f *talker) answer(_ context.Context, job sandbox.Job) (*protocol.Answer, error) {
	switch job.Order.Op {
	case protocol.OpDeclare:
		return &protocol.Answer{Declared: []protocol.Declaration{{
			Path: "models/enrich.py", Line: 4, Function: "enrich", Kind: "model", Name: "enrich", Secrets: f.declared,
			Inputs: []protocol.DeclaredInput{{Param: "src", Table: "src"}},
		}}}, nil
	case protocol.OpPyModel:
		f.mu.Lock()
		f.got = append(f.got, job.Order.Secrets)
		f.mu.Unlock()
		value := job.Order.Secrets["key"]
		if value == "" {
			value = "nothing at all"
		}
		for _, p := range []string{"the key is ", value[:5], value[5:9], value[9:], "\nand as base64 ", base64.StdEncoding.EncodeToString([]byte("x:" + value)), "\n"} {
			if _, err := io.WriteString(job.Log, p); err != nil {
				return nil, err
			}
		}
		job.Note("a note with " + value)
		if f.fails {
			return &protocol.Answer{Error: &protocol.UserError{
				Kind: "python", Message: "KeyError: '" + value + "'", File: "models/enrich.py", Line: 5, Traceback: "  get(" + value + ")\nKeyError: '" + value + "'",
			}}, nil
		}
		return &protocol.Answer{Rows: 1}, job.Files("output.parquet", 8, strings.NewReader("PAR1PAR1"))
	case protocol.OpCut:
		part := []byte("PAR1 enriched PAR1")
		return &protocol.Answer{Snapshot: new(scripted).oneColumn("part-0")}, job.Files("part-0", int64(len(part)), bytes.NewReader(part))
	}
	return nil, fmt.Errorf("unscripted order %q", job.Order.Op)
}

// withTalker is a rig whose lake has a model with a secret.
func withTalker(t *testing.T) (*rig, *talker, *bytes.Buffer, map[string]string) {
	r := newRig(t)
	f := &talker{declared: []protocol.DeclaredParam{{Param: "key", Name: "API_KEY"}}}
	r.boxes.python = f.answer
	var log bytes.Buffer
	r.gate.cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	return r, f, &log, with(base(), "models/enrich.py", "# a function", "headgate.yaml", giving)
}

// toMainAs is toMain by another user.
func (r *rig) toMainAs(who Identity, files map[string]string, options ...string) error {
	r.Helper()
	r.who = who
	defer func() { r.who = Identity{Name: "ada"} }()
	return r.toMain(files, options...)
}

func TestSecretIsGivenToWhomTheTipNames(t *testing.T) {
	admin := Identity{Name: "root", Admin: true}
	r, f, _, files := withTalker(t)
	if err := r.lake.Secrets.Set("API_KEY", secretValue, "root", time.Now()); err != nil {
		t.Fatal(err)
	}
	granting := with(base(), "headgate.yaml", giving)

	// Nobody's first push grants anything, and only an administrator's may try.
	if err := r.toMain(granting); err == nil || !strings.Contains(err.Error(), "only an administrator may change secrets") || !strings.Contains(err.Error(), "you are ada") {
		t.Errorf("first push with secrets by a user: %v", err)
	}
	if err := r.toMainAs(admin, files); err == nil || !strings.Contains(err.Error(), `model enrich asks for the secret "API_KEY"`) || !strings.Contains(err.Error(), "models/enrich.py:4") {
		t.Errorf("first push that uses its own grant: %v", err)
	}
	r.must(r.toMain(base()))
	// A proposal cannot grant itself, not even an administrator's.
	if err := r.toMainAs(admin, files); err == nil || !strings.Contains(err.Error(), "an administrator can push one that does") {
		t.Errorf("grant and use in one push: %v", err)
	}
	if err := r.toMain(granting); err == nil || !strings.Contains(err.Error(), "only an administrator may change secrets") {
		t.Errorf("grant by a user: %v", err)
	}
	r.must(r.toMainAs(admin, granting))
	if len(f.got) != 0 {
		t.Fatalf("a function ran before it was granted: %v", f.got)
	}
	r.must(r.toMain(files))
	if len(f.got) != 1 || f.got[0]["key"] != secretValue {
		t.Errorf("the function got %v", f.got)
	}
	if doc := r.runJSON(); !strings.Contains(doc, `"API_KEY"`) {
		t.Error("the record does not say that the model had the secret")
	}
	// A user can neither widen nor drop it in passing.
	if err := r.toMain(with(files, "headgate.yaml", "secrets:\n  API_KEY: {models: [\"*\"]}\n")); err == nil {
		t.Error("a user widened the grant")
	}
	// What is not set says how to set it.
	if err := r.lake.Secrets.Remove("API_KEY"); err != nil {
		t.Fatal(err)
	}
	if err := r.toMain(with(files, "README", "x")); err == nil || !strings.Contains(err.Error(), "secret set flights API_KEY") {
		t.Errorf("a secret that is not set: %v", err)
	}
}

// A branch without a gate can say anything of itself.
func TestUngatedBranchGrantsNoSecret(t *testing.T) {
	r, f, _, files := withTalker(t)
	if err := r.lake.Secrets.Set("API_KEY", secretValue, "root", time.Now()); err != nil {
		t.Fatal(err)
	}
	r.must(r.toMain(base()))
	const branch = refs.Name("refs/heads/agent/x")
	oid, q := r.commit(files, r.tip(mainRef))
	r.must(r.push(q, nil, false, refs.Update{Name: branch, New: oid})[0].Err)
	again, q := r.commit(with(files, "README", "again"), oid)
	out := r.push(q, []string{"run"}, false, refs.Update{Name: branch, Old: oid, New: again})
	if out[0].Err == nil || !strings.Contains(out[0].Err.Error(), "asks for the secret") || len(f.got) != 0 {
		t.Errorf("a branch gave itself a secret: %v, %v", out[0].Err, f.got)
	}
}

func TestSecretIsInNothingThatIsKeptOrShown(t *testing.T) {
	r, f, log, files := withTalker(t)
	if err := r.lake.Secrets.Set("API_KEY", secretValue, "root", time.Now()); err != nil {
		t.Fatal(err)
	}
	r.must(r.toMainAs(Identity{Name: "root", Admin: true}, with(base(), "headgate.yaml", giving)))
	told := func(what string) {
		t.Helper()
		runs, err := r.lake.Runs.List(1)
		if err != nil {
			t.Fatal(err)
		}
		record := r.tip(refs.Name(runsPrefix + runs[0].ID))
		kept := r.read(record, "logs/enrich.log")
		if !strings.Contains(kept, "the key is ***\nand as base64 ") {
			t.Errorf("%s: the log is %q", what, kept)
		}
		encoded := base64.StdEncoding.EncodeToString([]byte(secretValue))
		for where, text := range map[string]string{
			"log": kept, "run.json": r.runJSON(), "sideband": r.out.String(), "journal": fmt.Sprint(runs[0]), "server's log": log.String(),
		} {
			for _, form := range []string{secretValue, encoded[:12], base64.StdEncoding.EncodeToString([]byte("x:" + secretValue))[4:16], secretValue[:9]} {
				if strings.Contains(text, form) {
					t.Errorf("%s: %s holds %q:\n%s", what, where, form, text)
				}
			}
		}
		if !strings.Contains(r.out.String(), "enrich | the key is ***") || !strings.Contains(r.out.String(), "enrich | a note with ***") {
			t.Errorf("%s: the pusher reads\n%s", what, r.out.String())
		}
	}
	r.must(r.toMain(files))
	told("a model that passes")
	f.fails = true
	err := r.toMain(with(files, "models/enrich.py", "# another"), "no-cache")
	var rejected *Rejection
	if !errors.As(err, &rejected) || strings.Contains(err.Error(), secretValue) {
		t.Fatalf("a model that fails: %v", err)
	}
	told("a model that fails")
}

// A result belongs to the value it was made with, of which the cache keeps a digest.
func TestSecretsValueIsPartOfTheAction(t *testing.T) {
	r, f, _, files := withTalker(t)
	set := func(value string) {
		t.Helper()
		if err := r.lake.Secrets.Set("API_KEY", value, "root", time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	set(secretValue)
	r.must(r.toMainAs(Identity{Name: "root", Admin: true}, with(base(), "headgate.yaml", giving)))
	r.must(r.toMain(files))
	set(secretValue)
	r.must(r.toMain(with(files, "README", "1")))
	if len(f.got) != 1 {
		t.Errorf("the same value: the model ran %d times, want once", len(f.got))
	}
	set("another value")
	r.must(r.toMain(with(files, "README", "2")))
	if len(f.got) != 2 {
		t.Errorf("another value: the model ran %d times, want twice", len(f.got))
	}
	r.record(lake.Published)
}
