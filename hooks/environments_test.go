package hooks

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/pyenv"
	"github.com/headgate/headgate/exec/sandbox"
	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/objects"
)

// anIndex stands for uv and the index that it asks: it knows tool 1.0, which
// depends on dep, and pyarrow, and keeps what it was asked.
type anIndex struct {
	*testing.T
	dir string
}

// newIndex gives the rig's gate an index, and a function that declares packages.
func newIndex(r *rig, packages map[string]string) *anIndex {
	r.Helper()
	ix := &anIndex{T: r.T, dir: r.TempDir()}
	doc := "lock-version = \"1.0\"\ncreated-by = \"uv\"\n"
	for _, name := range []string{"dep", "pyarrow", "tool"} {
		file := filepath.Join(ix.dir, name+"-1.0-py3-none-any.whl")
		sum := ix.wheel(file, name)
		doc += fmt.Sprintf("[[packages]]\nname = %q\nversion = \"1.0\"\nwheels = [{ url = \"file://%s\", hashes = { sha256 = \"%x\" } }]\n", name, file, sum)
	}
	ix.write("answer", doc)
	ix.write("uv", "#!/bin/sh\ncat requirements.in >> "+ix.dir+"/asked\n[ ! -e "+ix.dir+"/gone ] || { echo 'error: it burns' >&2; exit 2; }\ncat "+ix.dir+"/answer\n")
	if err := os.Chmod(filepath.Join(ix.dir, "uv"), 0o700); err != nil {
		r.Fatal(err)
	}
	store, err := pyenv.OpenStore(filepath.Join(r.dir, "python"), &pyenv.UV{Path: filepath.Join(ix.dir, "uv")})
	if err != nil {
		r.Fatal(err)
	}
	r.gate.cfg.Runtime = exec.New(r.boxes, exec.Environments{
		Python: []exec.Python{{Version: "3.11", Exact: "3.11.7", Own: objects.OID{1}, Tables: true}}, Packages: store,
	}, exec.Budget{CPUs: 2, Memory: 4 << 30}, slog.New(slog.DiscardHandler))
	r.boxes.python = func(_ context.Context, job sandbox.Job) (*protocol.Answer, error) {
		if job.Order.Op == protocol.OpDeclare {
			return &protocol.Answer{Declared: []protocol.Declaration{{
				Path: "models/py.py", Line: 3, Function: "py", Kind: "model", Name: "py", Strategy: "REPLACE", Packages: packages,
			}}}, nil
		}
		if job.Order.Op == protocol.OpCut {
			return &protocol.Answer{Snapshot: r.boxes.oneColumn("part-0")}, job.Files("part-0", 15, strings.NewReader("PAR1 a cut PAR1"))
		}
		text, err := os.ReadFile(filepath.Join(job.Packages, "tool.py"))
		part := "PAR1" + string(text) + "PAR1"
		if err == nil {
			err = job.Files("output.parquet", int64(len(part)), strings.NewReader(part))
		}
		return &protocol.Answer{Rows: 1}, err
	}
	return ix
}

func (ix *anIndex) write(name, text string) {
	ix.Helper()
	if err := os.WriteFile(filepath.Join(ix.dir, name), []byte(text), 0o600); err != nil {
		ix.Fatal(err)
	}
}

// asked is what uv was asked for since the last time.
func (ix *anIndex) asked() string {
	ix.Helper()
	text, err := os.ReadFile(filepath.Join(ix.dir, "asked"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		ix.Fatal(err)
	}
	ix.write("asked", "")
	return strings.Join(strings.Fields(string(text)), " ")
}

func (ix *anIndex) wheel(path, name string) [32]byte {
	ix.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	record := ""
	for _, f := range [][2]string{{name + ".py", name + " = 1\n"}, {name + "-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n"}, {name + "-1.0.dist-info/RECORD", ""}} {
		w, err := z.Create(f[0])
		if err != nil {
			ix.Fatal(err)
		}
		sum := sha256.Sum256([]byte(f[1]))
		record += fmt.Sprintf("%s,sha256=%s,%d\n", f[0], base64.RawURLEncoding.EncodeToString(sum[:]), len(f[1]))
		text := f[1]
		if text == "" {
			text = record
		}
		if _, err := io.WriteString(w, text); err != nil {
			ix.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		ix.Fatal(err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		ix.Fatal(err)
	}
	return sha256.Sum256(b.Bytes())
}

const allowsTool = "python: {packages: {allow: [tool]}}\n"

func withPython(policy string, more ...string) map[string]string {
	return with(base(), append([]string{"headgate.yaml", policy, "models/py.py", "import headgate\n"}, more...)...)
}

func TestDeclaredPackagesAreResolvedLockedAndKept(t *testing.T) {
	r := newRig(t)
	ix := newIndex(r, map[string]string{"Tool": "1.0"})
	r.must(r.toMain(withPython(allowsTool)))
	if got := ix.asked(); !strings.HasPrefix(got, "pyarrow tool==1.0") {
		t.Errorf("the index was asked for %q", got)
	}
	if out := r.out.String(); !strings.Contains(out, "tool 1.0, dep 1.0, pyarrow 1.0; 3 wheel(s)") || !strings.Contains(out, "headgate.lock did not have Python 3.11 with tool==1.0;") {
		t.Errorf("the pusher reads:\n%s", out)
	}
	rec := r.record(lake.Published)
	if len(rec.Environments) != 1 || rec.Environments[0].Packages["dep"] != "1.0" || rec.Environments[0].Locked {
		t.Errorf("environments of the record: %+v", rec.Environments)
	}
	lock := r.read(r.tip(mainRef), pyenv.LockFile)
	parsed, err := pyenv.ParseLock([]byte(lock))
	if err != nil || len(parsed.Environments()) != 1 {
		t.Fatalf("the lock that the gate added: %v\n%s", err, lock)
	}
	var env string
	for _, m := range rec.Models {
		if m.Name == "py" {
			env = m.Env
		}
	}
	if env == "" || env == (objects.OID{1}).String() {
		t.Errorf("the lineage says that it ran in %q", env)
	}

	// With the lock nothing is asked, and strict has nothing to complain of.
	r.must(r.toMain(withPython(allowsTool, pyenv.LockFile, lock, "README", "x"), "strict"))
	if got := ix.asked(); got != "" {
		t.Errorf("with a lock the index was asked for %q", got)
	}
	if rec := r.record(lake.Published); !rec.Environments[0].Locked || rec.Environments[0].Wheels != 0 {
		t.Errorf("environments of the record: %+v", rec.Environments)
	}
	if again := r.read(r.tip(mainRef), pyenv.LockFile); again != lock {
		t.Errorf("the lock was rewritten:\n%s", again)
	}
	// Without it, strict refuses: the next push may get other versions.
	var rejected *Rejection
	if err := r.toMain(withPython(allowsTool, "README", "y"), "strict"); !errors.As(err, &rejected) || !strings.Contains(err.Error(), "headgate lock") {
		t.Errorf("strict without a lock: %v", err)
	}
}

// A proposal is held against the policy of the tip, not against its own.
func TestAProposalCannotAllowItselfAPackage(t *testing.T) {
	r := newRig(t)
	ix := newIndex(r, map[string]string{"tool": "1.0"})
	r.must(r.toMain(with(base(), "headgate.yaml", "python: {packages: {allow: [other]}}\n")))
	var rejected *Rejection
	err := r.toMain(withPython("python: {packages: {allow: ['*']}}\n"))
	if !errors.As(err, &rejected) || !strings.Contains(err.Error(), `models/py.py:3: package "tool" is not allowed; the policy allows other`) {
		t.Errorf("a package that only the proposal allows: %v", err)
	}
	if got := ix.asked(); got != "" {
		t.Errorf("the index was asked for %q all the same", got)
	}
	r.must(r.toMain(with(base(), "headgate.yaml", allowsTool)))
	r.must(r.toMain(withPython(allowsTool)))
}

// What is denied is denied as a dependency, too, and before it is downloaded.
func TestDeniedPackages(t *testing.T) {
	r := newRig(t)
	ix := newIndex(r, map[string]string{"tool": "1.0"})
	denies := "python: {packages: {allow: ['*'], deny: [Dep]}}\n"
	var rejected *Rejection
	err := r.toMain(withPython(denies))
	if !errors.As(err, &rejected) || !strings.Contains(err.Error(), `package "dep", which Python 3.11 with tool==1.0 depends on, is denied`) {
		t.Errorf("a dependency that is denied: %v", err)
	}
	if wheels, err := os.ReadDir(filepath.Join(r.dir, "python", "wheels")); err != nil || len(wheels) > 0 {
		t.Errorf("downloaded all the same: %v, %v", wheels, err)
	}
	// Nor does a lock get around it.
	r.must(r.toMain(withPython("python: {packages: {allow: ['*']}}\n")))
	lock := r.read(r.tip(mainRef), pyenv.LockFile)
	r.must(r.toMain(with(base(), "headgate.yaml", denies)))
	ix.asked()
	if err := r.toMain(withPython(denies, pyenv.LockFile, lock)); !errors.As(err, &rejected) || !strings.Contains(err.Error(), "is denied") {
		t.Errorf("a lock with what is denied: %v", err)
	}
	if got := ix.asked(); got != "" {
		t.Errorf("the index was asked for %q", got)
	}
	if err := r.toMain(withPython("python: {packages: {allow: ['*'], deny: [tool]}}\n")); err == nil || !strings.Contains(err.Error(), "is denied") {
		t.Errorf("a proposal that allows itself what is denied: %v", err)
	}
}

func TestLocksThatDoNotHold(t *testing.T) {
	r := newRig(t)
	ix := newIndex(r, map[string]string{"tool": "1.0"})
	r.must(r.toMain(withPython(allowsTool)))
	lock := r.read(r.tip(mainRef), pyenv.LockFile)
	at := strings.Index(lock, `sha256 = "`) + len(`sha256 = "`)
	tampered := lock[:at] + strings.Repeat("0", 64) + lock[at+64:]
	for name, c := range map[string]struct{ text, want string }{
		"malformed":    {"lock-version = ", "headgate.lock:1:"},
		"another hash": {tampered, "has sha256 " + strings.Repeat("0", 64)},
		"too large":    {strings.Repeat("#", pyenv.MaxLock+1), "the limit is"},
	} {
		var rejected *Rejection
		if err := r.toMain(withPython(allowsTool, pyenv.LockFile, c.text)); !errors.As(err, &rejected) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want a rejection with %q", name, err, c.want)
		}
		r.record(lake.Rejected)
	}
	var rejected *Rejection
	if err := r.toMain(withPython(allowsTool, pyenv.LockFile+"/x", "a directory")); !errors.As(err, &rejected) {
		t.Errorf("a directory: %v", err)
	}
	// An index that cannot be asked is no verdict, and the pusher is told why.
	ix.write("gone", "")
	err := r.toMain(withPython(allowsTool, pyenv.LockFile, tampered))
	var unable *CouldNotRun
	if !errors.As(err, &unable) || !strings.Contains(err.Error(), "the package index of this server could not be asked") || strings.Contains(err.Error(), "burns") {
		t.Errorf("without an index: %v", err)
	}
	if rec := r.record(lake.Failed); len(rec.Reasons) != 1 || !strings.Contains(rec.Reasons[0], "could not be asked") {
		t.Errorf("reasons of the record: %q", rec.Reasons)
	}
	if !strings.Contains(r.out.String(), "could not be asked") {
		t.Errorf("the pusher reads:\n%s", r.out.String())
	}
}

// What is declared is a version, and not more.
func TestVersionsThatAreNone(t *testing.T) {
	r := newRig(t)
	ix := newIndex(r, map[string]string{"tool": "1.0\n--index-url https://evil.example"})
	var rejected *Rejection
	if err := r.toMain(withPython(allowsTool)); !errors.As(err, &rejected) || !strings.Contains(err.Error(), `models/py.py:3: package "tool": version`) {
		t.Errorf("error %v", err)
	}
	if got := ix.asked(); got != "" {
		t.Errorf("the index was asked for %q", got)
	}
	if _, err := json.Marshal(r.record(lake.Rejected)); err != nil {
		t.Error(err)
	}
}

// One function's packages that cannot be had are no reason not to replay the others.
func TestReplayWithoutAnIndex(t *testing.T) {
	r := newRig(t)
	ix := newIndex(r, map[string]string{"Tool": "1.0"})
	r.must(r.toMain(withPython(allowsTool)))
	if rep := r.replay(r.tip(mainRef)); !rep.Equal || rep.model("py").Status != ReplayEqual {
		t.Errorf("replay with the packages at hand: %+v", rep)
	}
	store, err := pyenv.OpenStore(t.TempDir(), &pyenv.UV{Path: filepath.Join(ix.dir, "uv")})
	if err != nil {
		t.Fatal(err)
	}
	ix.write("gone", "")
	elsewhere := exec.New(r.boxes, exec.Environments{
		Python: []exec.Python{{Version: "3.11", Exact: "3.11.7", Own: objects.OID{1}, Tables: true}}, Packages: store,
	}, exec.Budget{CPUs: 2, Memory: 4 << 30}, slog.New(slog.DiscardHandler))
	rep := r.replay(r.tip(mainRef), func(p *Replayer) { p.Runtime = elsewhere })
	if py := rep.model("py"); rep.Equal || py.Status != ReplayAbsent || !strings.Contains(py.Reason, "could not be made") {
		t.Errorf("a model whose packages cannot be had: %+v", py)
	}
	if one := rep.model("one"); one.Status != ReplayEqual {
		t.Errorf("a model that needs none: %+v", one)
	}
}
