package refs_test

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/headgate/headgate/refs"
	"github.com/headgate/headgate/refs/refstest"
)

func TestMemory(t *testing.T) {
	refstest.Run(t, func(*testing.T) refs.Store { return refs.NewMemory() })
}

func TestBolt(t *testing.T) {
	refstest.Run(t, func(t *testing.T) refs.Store { return openBolt(t, filepath.Join(t.TempDir(), "refs.db")) })
}

func openBolt(t testing.TB, path string) refs.Store {
	t.Helper()
	s, err := refs.OpenBolt(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestBoltKeeps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "refs.db")
	s := openBolt(t, path)
	if err := s.Apply(t.Context(), []refs.Update{{Name: "refs/heads/main", New: refs.OID{1}}}, refs.Cause{Who: "ann", Why: "push"}); err != nil {
		t.Fatal(err)
	}
	if _, err := refs.OpenBolt(path); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second store was opened: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openBolt(t, path)
	defer s.Close()
	if oid, err := s.Get(t.Context(), "refs/heads/main"); err != nil || oid != (refs.OID{1}) {
		t.Errorf("after opening again: %s, %v", oid, err)
	}
	if log, err := s.Log(t.Context(), "refs/heads/main", 5); err != nil || len(log) != 1 || log[0].Who != "ann" {
		t.Errorf("log after opening again: %v, %v", log, err)
	}
}

// names are tried on git check-ref-format too.
var names = []string{
	"refs/heads/main", "refs/heads/a/b", "refs/x", "refs/heads/a.b", "refs/heads/@", "refs/heads/-x", "refs/heads/ü", "refs/heads/a@b", "refs/heads/a{b",
	"refs/heads/\xff", "refs/heads/a.locks", "refs/heads/'\"$`!#%&();<>|",
	"", "refs", "refs/", "refs/heads/", "/refs/heads/a", "refs//a", "refs/heads/a/", "refs/heads/.a", "refs/.heads/a", "refs/heads/a..b", "refs/heads/a.",
	"refs/heads/a.lock", "refs/heads.lock/a", "refs/heads/a b", "refs/heads/a~1", "refs/heads/a^", "refs/heads/a:b", "refs/heads/a?", "refs/heads/a*", "refs/heads/[a",
	"refs/heads/a\\b", "refs/heads/a@{b", "refs/heads/a\tb", "refs/heads/a\nb", "refs/heads/a\x7f", "refs/heads/../../x", "refs/heads/..",
}

func TestParseAgreesWithGit(t *testing.T) {
	for _, name := range names {
		_, err := refs.Parse(name)
		git := exec.Command("git", "check-ref-format", name).Run()
		var exit *exec.ExitError
		if git != nil && !errors.As(git, &exit) {
			t.Fatal(git)
		}
		if (err == nil) != (git == nil) {
			t.Errorf("%q: git says %v, we say %v", name, git, err)
		}
	}
	for _, name := range []string{"heads/main", "HEAD", "x/y", "refs/heads/" + strings.Repeat("a", 1024)} {
		if _, err := refs.Parse(name); err == nil {
			t.Errorf("%q was taken", name)
		}
	}
}

// BenchmarkApply is one durable update of a writer's own ref.
func BenchmarkApply(b *testing.B) {
	for _, writers := range []int{1, 4, 256} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			s := openBolt(b, filepath.Join(b.TempDir(), "refs.db"))
			defer s.Close()
			var id atomic.Int64
			b.SetParallelism(max(writers/2, 1)) // times GOMAXPROCS
			if writers == 1 {
				benchmarkWriter(b, s, 0, func() bool { return b.Loop() })
				return
			}
			b.RunParallel(func(pb *testing.PB) { benchmarkWriter(b, s, id.Add(1), pb.Next) })
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "applies/s")
		})
	}
}

// BenchmarkCreate is one durable creation of a ref, of 256 writers each in a
// namespace of its own: pages all over the tree change in each commit.
func BenchmarkCreate(b *testing.B) {
	const writers = 256
	s := openBolt(b, filepath.Join(b.TempDir(), "refs.db"))
	defer s.Close()
	var id atomic.Int64
	b.SetParallelism(writers / runtime.GOMAXPROCS(0))
	b.RunParallel(func(pb *testing.PB) {
		writer := id.Add(1)
		for i := 0; pb.Next(); i++ {
			u := refs.Update{Name: refs.Name(fmt.Sprintf("refs/heads/agent/%03d/%06d", writer, i)), New: refs.OID{1}}
			if err := s.Apply(b.Context(), []refs.Update{u}, refs.Cause{Who: "bench", Why: "push"}); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "creations/s")
}

func benchmarkWriter(b *testing.B, s refs.Store, id int64, next func() bool) {
	name := refs.Name(fmt.Sprintf("refs/heads/agent/%d", id))
	var at refs.OID
	for i := 1; next(); i++ {
		var to refs.OID
		copy(to[:], fmt.Sprintf("%020d", i))
		if err := s.Apply(b.Context(), []refs.Update{{Name: name, Old: at, New: to}}, refs.Cause{Who: "bench", Why: "push"}); err != nil {
			b.Error(err)
			return
		}
		at = to
	}
}
