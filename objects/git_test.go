package objects_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/backend"
)

// repo is a repository of the real git.
type repo struct {
	t   testing.TB
	dir string
}

func newRepo(t testing.TB) *repo {
	t.Helper()
	r := &repo{t, t.TempDir()}
	r.git(nil, "init", "-q", "-b", "main")
	return r
}

// git runs a command and returns its output without the last newline.
func (r *repo) git(stdin []byte, args ...string) string {
	r.t.Helper()
	return strings.TrimSuffix(string(r.run(stdin, args...)), "\n")
}

func (r *repo) run(stdin []byte, args ...string) []byte {
	r.t.Helper()
	out, err := r.try(stdin, args...)
	if err != nil {
		r.t.Fatalf("git %s: %v", strings.Join(args, " "), err)
	}
	return out
}

func (r *repo) try(stdin []byte, args ...string) ([]byte, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(),
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=A U Thor", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_AUTHOR_DATE=1700000000 +0200",
		"GIT_COMMITTER_NAME=C O Mitter", "GIT_COMMITTER_EMAIL=c@example.com", "GIT_COMMITTER_DATE=1700000000 -0330")
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("%w: %s", err, stderr.Bytes())
	}
	return out, nil
}

func (r *repo) write(name string, data []byte) {
	r.t.Helper()
	p := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(p, data, 0o644); err != nil {
		r.t.Fatal(err)
	}
}

func (r *repo) commit(message string) objects.OID {
	r.t.Helper()
	r.git(nil, "add", "-A")
	r.git(nil, "commit", "-q", "--allow-empty", "-m", message)
	return oidOf(r.t, r.git(nil, "rev-parse", "HEAD"))
}

// objects returns the names of all objects in the repository.
func (r *repo) objects() []objects.OID {
	r.t.Helper()
	var oids []objects.OID
	for line := range strings.Lines(r.git(nil, "cat-file", "--batch-all-objects", "--batch-check=%(objectname)")) {
		oids = append(oids, oidOf(r.t, strings.TrimSpace(line)))
	}
	return oids
}

// pack returns a pack of revs, which are lines for pack-objects --revs.
func (r *repo) pack(revs string, args ...string) []byte {
	r.t.Helper()
	return r.run([]byte(revs), append([]string{"pack-objects", "--stdout", "--revs", "-q"}, args...)...)
}

func oidOf(t testing.TB, s string) objects.OID {
	t.Helper()
	oid, err := objects.ParseOID(s)
	if err != nil {
		t.Fatal(err)
	}
	return oid
}

// place is where a test's store lives, so that it can be opened again.
type place struct {
	data, staging string
}

func newPlace(t testing.TB) place {
	dir := t.TempDir()
	return place{filepath.Join(dir, "objects"), filepath.Join(dir, "staging")}
}

func (p place) open(t testing.TB, threshold int64) *objects.Store {
	t.Helper()
	b, err := backend.NewLocal(p.data)
	if err != nil {
		t.Fatal(err)
	}
	return openOn(t, b, p.staging, threshold)
}

func openOn(t testing.TB, b backend.Backend, staging string, threshold int64) *objects.Store {
	t.Helper()
	s, err := objects.OpenStore(b, staging, objects.Options{RawThreshold: threshold})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !strings.Contains(err.Error(), "closed") {
			t.Error(err)
		}
	})
	return s
}

func quarantine(t testing.TB, s *objects.Store) *objects.Quarantine {
	t.Helper()
	q, err := s.Quarantine()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.Discard(); err != nil {
			t.Error(err)
		}
	})
	return q
}

// push ingests a pack, checks that it is connected and migrates it.
func push(t testing.TB, s *objects.Store, pack []byte, tips ...objects.OID) objects.IngestStats {
	t.Helper()
	q := quarantine(t, s)
	stats, err := q.Ingest(t.Context(), bytes.NewReader(pack), objects.Limits{})
	if err != nil {
		t.Fatalf("ingest: %v", err)
	}
	if err := q.CheckConnected(t.Context(), tips); err != nil {
		t.Fatalf("connected: %v", err)
	}
	if err := q.Migrate(t.Context()); err != nil {
		t.Fatalf("migrate: %v", err)
	}
	return stats
}

func put(t testing.TB, w objects.Writer, typ objects.Type, data []byte) objects.OID {
	t.Helper()
	oid, err := w.Put(t.Context(), typ, int64(len(data)), bytes.NewReader(data))
	if err != nil {
		t.Fatalf("put: %v", err)
	}
	return oid
}

func read(t testing.TB, r objects.Reader, oid objects.OID) (objects.Info, []byte) {
	t.Helper()
	info, rc, err := r.Open(context.Background(), oid)
	if err != nil {
		t.Fatalf("open %s: %v", oid, err)
	}
	defer rc.Close()
	data, err := io.ReadAll(rc)
	if err != nil {
		t.Fatalf("read %s: %v", oid, err)
	}
	if int64(len(data)) != info.Size {
		t.Fatalf("%s has %d bytes, Open says %d", oid, len(data), info.Size)
	}
	return info, data
}

// sameAs checks that r has exactly what git has under each name.
func sameAs(t testing.TB, g *repo, r objects.Reader, oids []objects.OID) {
	t.Helper()
	var ask strings.Builder
	for _, oid := range oids {
		fmt.Fprintln(&ask, oid)
	}
	out := g.run([]byte(ask.String()), "cat-file", "--batch")
	for _, oid := range oids {
		var name, typ string
		var size int
		head, rest, _ := bytes.Cut(out, []byte("\n"))
		if _, err := fmt.Sscan(string(head), &name, &typ, &size); err != nil {
			t.Fatalf("%s: %v", head, err)
		}
		info, data := read(t, r, oid)
		if info.Type.String() != typ || !bytes.Equal(data, rest[:size]) {
			t.Fatalf("%s: have a %s of %d bytes, git a %s of %d", oid, info.Type, len(data), typ, size)
		}
		stat, err := r.Stat(t.Context(), oid)
		if err != nil || stat != info {
			t.Fatalf("stat %s: %+v, %v; open said %+v", oid, stat, err, info)
		}
		out = rest[size+1:]
	}
}
