package objects_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zlib"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/backend"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/pack"
)

func deflated(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	zw := zlib.NewWriter(&b)
	if _, err := zw.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func treeWith(t testing.TB, entries ...gitobj.Entry) []byte {
	t.Helper()
	data, err := gitobj.EncodeTree(entries)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestQuarantineIsAlone(t *testing.T) {
	s := newPlace(t).open(t, 1000)
	q, other := quarantine(t, s), quarantine(t, s)
	small := put(t, q, objects.Blob, []byte("hello"))
	large := put(t, q, objects.Blob, noise(1, 5000))
	empty := put(t, q, objects.Blob, nil)
	all := []objects.OID{small, large, empty}
	if small.String() != "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0" || empty.String() != "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391" {
		t.Errorf("names %s, %s are not git's", small, empty)
	}
	for _, oid := range all {
		read(t, q, oid)
		for _, r := range []objects.Reader{s, other} {
			if _, err := r.Stat(t.Context(), oid); !errors.Is(err, objects.ErrNotFound) {
				t.Errorf("%s is visible before it migrates: %v", oid, err)
			}
			if _, _, err := r.Open(t.Context(), oid); !errors.Is(err, objects.ErrNotFound) {
				t.Errorf("%s opens before it migrates: %v", oid, err)
			}
		}
	}
	if err := q.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, oid := range all {
		read(t, s, oid)
		read(t, q, oid)
		read(t, other, oid)
	}
	// It may take more, and objects of the first round again.
	more := put(t, q, objects.Blob, []byte("more"))
	put(t, q, objects.Blob, []byte("hello"))
	if err := q.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	read(t, s, more)
	for range 2 {
		if err := q.Discard(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := q.Put(t.Context(), objects.Blob, 1, strings.NewReader("x")); err == nil {
		t.Error("a discarded quarantine takes objects")
	}
	read(t, s, more)
}

func TestPutRefusesWrongSizesAndBadTrees(t *testing.T) {
	q := quarantine(t, newPlace(t).open(t, 1000))
	for _, size := range []int64{11, 5000} {
		if _, err := q.Put(t.Context(), objects.Blob, size, strings.NewReader("ten bytes!")); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("ten bytes as %d: %v", size, err)
		}
	}
	r := strings.NewReader(strings.Repeat("x", 5000))
	for _, size := range []int64{10, 2000} {
		if _, err := q.Put(t.Context(), objects.Blob, size, r); err != nil {
			t.Error(err)
		}
	}
	if r.Len() != 2990 {
		t.Errorf("put read further than its size: %d bytes are left", r.Len())
	}
	var ce *gitobj.CheckError
	if _, err := q.Put(t.Context(), objects.Tree, 3, strings.NewReader("bad")); !errors.As(err, &ce) {
		t.Errorf("bad tree: %v", err)
	}
}

func TestCheckConnected(t *testing.T) {
	s := newPlace(t).open(t, 1000)
	q0 := quarantine(t, s)
	stored := put(t, q0, objects.Blob, []byte("stored"))
	if err := q0.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	none := oidOf(t, strings.Repeat("ab", 20))
	file := func(name string, oid objects.OID) gitobj.Entry {
		return gitobj.Entry{Name: name, Mode: gitobj.ModeFile, OID: oid}
	}
	dir := func(name string, oid objects.OID) gitobj.Entry {
		return gitobj.Entry{Name: name, Mode: gitobj.ModeTree, OID: oid}
	}
	commit := func(tree objects.OID, parents ...objects.OID) []byte {
		return (&gitobj.Commit{Tree: tree, Parents: parents}).Encode()
	}
	for _, c := range []struct {
		name  string
		build func(q *objects.Quarantine) objects.OID
		want  *objects.MissingError // OID, Type and Actual are compared
	}{
		{"good", func(q *objects.Quarantine) objects.OID {
			// A parent directory lands before what it names: order does not matter.
			sub := treeWith(t, file("f", stored))
			top := treeWith(t, dir("d", blobName(t, "tree", sub)), gitobj.Entry{Name: "module", Mode: gitobj.ModeGitlink, OID: none})
			tree := put(t, q, objects.Tree, top)
			put(t, q, objects.Tree, sub)
			return put(t, q, objects.Commit, commit(tree))
		}, nil},
		{"missing blob", func(q *objects.Quarantine) objects.OID {
			return put(t, q, objects.Commit, commit(put(t, q, objects.Tree, treeWith(t, file("f", none)))))
		}, &objects.MissingError{OID: none, Type: objects.Blob}},
		{"missing tree", func(q *objects.Quarantine) objects.OID { return put(t, q, objects.Commit, commit(none)) },
			&objects.MissingError{OID: none, Type: objects.Tree}},
		{"missing parent", func(q *objects.Quarantine) objects.OID {
			return put(t, q, objects.Commit, commit(put(t, q, objects.Tree, nil), none))
		}, &objects.MissingError{OID: none, Type: objects.Commit}},
		{"missing tip", func(*objects.Quarantine) objects.OID { return none }, &objects.MissingError{OID: none}},
		{"stored blob as tree", func(q *objects.Quarantine) objects.OID {
			return put(t, q, objects.Tree, treeWith(t, dir("d", stored)))
		}, &objects.MissingError{OID: stored, Type: objects.Tree, Actual: objects.Blob}},
		{"new tree as blob", func(q *objects.Quarantine) objects.OID {
			return put(t, q, objects.Tree, treeWith(t, file("d", put(t, q, objects.Tree, nil))))
		}, &objects.MissingError{OID: blobName(t, "tree", nil), Type: objects.Blob, Actual: objects.Tree}},
		{"tag of nothing", func(q *objects.Quarantine) objects.OID {
			return put(t, q, objects.Tag, (&gitobj.Tag{Object: none, Type: objects.Commit, Name: "x"}).Encode())
		}, &objects.MissingError{OID: none, Type: objects.Commit}},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := quarantine(t, s)
			tip := c.build(q)
			err := q.CheckConnected(t.Context(), []objects.OID{tip})
			if c.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var me *objects.MissingError
			if !errors.As(err, &me) || me.OID != c.want.OID || me.Type != c.want.Type || me.Actual != c.want.Actual {
				t.Fatalf("error %v, want like %v", err, c.want)
			}
			if tip == c.want.OID {
				return
			}
			if err := q.Migrate(t.Context()); !errors.As(err, &me) {
				t.Errorf("migrated unconnected: %v", err)
			}
			if _, err := s.Stat(t.Context(), tip); !errors.Is(err, objects.ErrNotFound) {
				t.Errorf("visible though unconnected: %v", err)
			}
		})
	}
}

func TestGitmodules(t *testing.T) {
	s := newPlace(t).open(t, 0)
	q := quarantine(t, s)
	evil := put(t, q, objects.Blob, []byte("[submodule \"../../x\"]\n\tpath = x\n\turl = ../x\n"))
	if err := q.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The blob is harmless until a tree gives it the name, also one that only NTFS takes for it.
	for _, name := range []string{".gitmodules", ".GITMODULES ", "GITMOD~1"} {
		q := quarantine(t, s)
		put(t, q, objects.Tree, treeWith(t, gitobj.Entry{Name: name, Mode: gitobj.ModeFile, OID: evil}))
		var ce *gitobj.CheckError
		if err := q.CheckConnected(t.Context(), nil); !errors.As(err, &ce) || ce.ID != "gitmodulesName" {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func blobName(t testing.TB, typ string, data []byte) objects.OID {
	t.Helper()
	return oidOf(t, newRepo(t).git(data, "hash-object", "-t", typ, "--stdin"))
}

func TestLink(t *testing.T) {
	p := newPlace(t)
	s := p.open(t, 1000)
	q := quarantine(t, s)
	small, large := []byte("hello"), noise(1, 5000)
	names := []objects.OID{put(t, q, objects.Blob, small), put(t, q, objects.Blob, large)}
	dir := t.TempDir()
	check := func(l objects.Linker, prefix string) {
		for i, want := range [][]byte{small, large} {
			path := filepath.Join(dir, fmt.Sprint(prefix, i))
			if err := l.Link(t.Context(), names[i], path); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %d bytes, %v", path, len(got), err)
			}
			if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o444 {
				t.Errorf("%s: %v, %v", path, st.Mode(), err)
			}
			if err := l.Link(t.Context(), names[i], path); !errors.Is(err, os.ErrExist) {
				t.Errorf("link over a file: %v", err)
			}
		}
	}
	check(q, "q")
	if err := q.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	check(s, "s")
	check(q, "m")
	raw, err := os.Stat(filepath.Join(p.data, "raw", names[1].String()[:2], names[1].String()))
	if err != nil {
		t.Fatal(err)
	}
	if linked, err := os.Stat(filepath.Join(dir, "s1")); err != nil || !os.SameFile(raw, linked) {
		t.Errorf("a large blob was copied, not linked: %v", err)
	}
	if err := s.Link(t.Context(), oidOf(t, strings.Repeat("0a", 20)), filepath.Join(dir, "none")); !errors.Is(err, objects.ErrNotFound) {
		t.Errorf("link of nothing: %v", err)
	}
}

func TestDamagedStoreIsNoticed(t *testing.T) {
	p := newPlace(t)
	s := p.open(t, 1000)
	q := quarantine(t, s)
	small := put(t, q, objects.Blob, []byte("hello hello hello"))
	large := put(t, q, objects.Blob, noise(1, 5000))
	if err := q.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	for path := range files(t, p.data) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		switch filepath.Ext(path) {
		case ".idx":
			continue
		case ".pack":
			b[25] ^= 1
		default:
			b[4000] ^= 1
		}
		// In place, as a bad disk does it.
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, oid := range []objects.OID{small, large} {
		_, rc, err := s.Open(t.Context(), oid)
		if err == nil {
			_, err = io.ReadAll(rc)
			rc.Close()
		}
		var ce *objects.CorruptError
		if !errors.As(err, &ce) || ce.OID != oid {
			t.Errorf("read of a damaged object: %v", err)
		}
	}
	var ce *objects.CorruptError
	if _, _, _, err := s.Deflated(t.Context(), small); !errors.As(err, &ce) {
		t.Errorf("stored stream of a damaged object: %v", err)
	}
}

// failing is a backend that fails, and does nothing any more, from its n-th change on.
type failing struct {
	*backend.Local
	left int
}

var errCrash = errors.New("crash")

func (f *failing) Adopt(ctx context.Context, files []backend.Adoption) error {
	for i := range files {
		if f.left == 0 {
			return errCrash
		}
		f.left--
		if err := f.Local.Adopt(ctx, files[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

// TestCrashInMigrate stops Migrate after each of its steps and opens the store
// anew: it has all of what it shows, and the push can be made again.
func TestCrashInMigrate(t *testing.T) {
	g, commits := history(t)
	first, second := g.pack(commits[0].String()+"\n"), g.pack(fmt.Sprintf("%s\n^%s\n", commits[2], commits[0]))
	const threshold = 20
	for steps, done := 0, false; !done; steps++ {
		p := newPlace(t)
		s := p.open(t, threshold)
		push(t, s, first, commits[0])
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		local, err := backend.NewLocal(p.data)
		if err != nil {
			t.Fatal(err)
		}
		s, err = objects.OpenStore(&failing{local, steps}, p.staging, objects.Options{RawThreshold: threshold})
		if err != nil {
			t.Fatal(err)
		}
		q, err := s.Quarantine()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := q.Ingest(t.Context(), bytes.NewReader(second), objects.Limits{}); err != nil {
			t.Fatal(err)
		}
		err = q.Migrate(t.Context())
		if done = err == nil; !done && !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil { // the quarantine stays, as after a kill
			t.Fatal(err)
		}

		s = p.open(t, threshold)
		if left, err := filepath.Glob(filepath.Join(p.staging, "q-*")); err != nil || len(left) > 0 {
			t.Errorf("after %d steps the old quarantine is still there: %v, %v", steps, left, err)
		}
		wantClosed(t, s, g)
		_, err = s.Stat(t.Context(), commits[2])
		if (err == nil) != done {
			t.Errorf("after %d steps the new commit's state is %v", steps, err)
		}
		push(t, s, second, commits[2])
		wantClosed(t, s, g)
		if _, err := s.Stat(t.Context(), commits[2]); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if steps > 100 {
			t.Fatal("Migrate never succeeds")
		}
	}
}

// wantClosed checks that each tree and commit which the store shows has all it names.
func wantClosed(t *testing.T, s *objects.Store, g *repo) {
	t.Helper()
	for _, oid := range g.objects() {
		info, err := s.Stat(t.Context(), oid)
		if errors.Is(err, objects.ErrNotFound) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		_, data := read(t, s, oid)
		var names []objects.OID
		switch info.Type {
		case objects.Tree:
			entries, err := gitobj.ParseTree(data)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				names = append(names, e.OID)
			}
		case objects.Commit:
			c, err := gitobj.ParseCommit(data)
			if err != nil {
				t.Fatal(err)
			}
			names = append(c.Parents, c.Tree)
		}
		for _, name := range names {
			if _, err := s.Stat(t.Context(), name); err != nil {
				t.Fatalf("%s names %s: %v", oid, name, err)
			}
		}
	}
}

func TestSecondStoreIsRefused(t *testing.T) {
	p := newPlace(t)
	p.open(t, 0)
	b, err := backend.NewLocal(p.data)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := objects.OpenStore(b, p.staging, objects.Options{}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second store was opened: %v", err)
	}
}

// TestManyPacks has more packs than files may be open, read from all sides.
func TestManyPacks(t *testing.T) {
	p := newPlace(t)
	s := p.open(t, 0)
	var oids []objects.OID
	for i := range 80 {
		q := quarantine(t, s)
		oids = append(oids, put(t, q, objects.Blob, fmt.Appendf(nil, "blob %d", i)))
		if err := q.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = p.open(t, 0)
	var wg sync.WaitGroup
	for k := range 4 {
		wg.Go(func() {
			for i := range 200 {
				n := (i*7 + k*13) % len(oids)
				data, err := objects.ReadAll(t.Context(), s, oids[n], objects.Blob, 100)
				if err != nil || string(data) != fmt.Sprintf("blob %d", n) {
					t.Errorf("%q, %v", data, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestConcurrentPuts(t *testing.T) {
	s := newPlace(t).open(t, 100)
	q := quarantine(t, s)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 50 {
				data := noise(uint64(i), 10*i)
				oid := put(t, q, objects.Blob, data)
				if _, got := read(t, q, oid); !bytes.Equal(got, data) {
					t.Errorf("blob %d differs", i)
				}
			}
		})
	}
	wg.Wait()
	if err := q.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestServedTwice: the second time a raw blob's sum comes from memory. The stream is
// the same, and content that was damaged meanwhile does not pass for whole.
func TestServedTwice(t *testing.T) {
	p := newPlace(t)
	s := p.open(t, 1000)
	q := quarantine(t, s)
	oid := put(t, q, objects.Blob, noise(1, 300_000))
	if err := q.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	serve := func() []byte {
		var b bytes.Buffer
		w := pack.NewWriter(&b, s, 1)
		if err := w.WriteObject(t.Context(), oid); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	if _, ok := s.Adler32(oid); ok {
		t.Error("the sum of a blob is known that was never served")
	}
	first := serve()
	if _, ok := s.Adler32(oid); !ok {
		t.Error("the sum is not remembered")
	}
	if !bytes.Equal(first, serve()) {
		t.Error("the second pack is another")
	}
	take := func(data []byte) error {
		there := newPlace(t).open(t, 1000)
		_, err := quarantine(t, there).Ingest(t.Context(), bytes.NewReader(data), objects.Limits{})
		ours, _ := s.Adler32(oid)
		if theirs, ok := there.Adler32(oid); err == nil && (!ok || theirs != ours) {
			t.Errorf("of a pack that came in the sum is %08x, %t; want %08x", theirs, ok, ours)
		}
		return err
	}
	if err := take(first); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(p.data, "raw", oid.String()[:2], oid.String())
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[200_000] ^= 1
	if err := errors.Join(os.Chmod(path, 0o644), os.WriteFile(path, b, 0o644)); err != nil {
		t.Fatal(err)
	}
	var ie *objects.IngestError
	if err := take(serve()); !errors.As(err, &ie) {
		t.Errorf("a damaged blob was served and taken: %v", err)
	}
}
