package objects_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/backend"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/pack"
)

// noise is incompressible and the same for the same seed.
func noise(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// history is a repository with three commits of similar files, so that its
// packs have deltas of small and of large blobs, and of trees.
func history(t testing.TB) (g *repo, commits []objects.OID) {
	g = newRepo(t)
	big := noise(1, 200_000)
	for i := range 3 {
		copy(big[1000*i:], "changed here")
		g.write("tables/big/part.parquet", big)
		g.write("models/a.sql", []byte(strings.Repeat("SELECT 1\n", 200)+fmt.Sprint(i)))
		for j := range 40 {
			g.write(fmt.Sprintf("d/file%02d", j), fmt.Appendf(nil, "file %d\n", j+i/2))
		}
		commits = append(commits, g.commit(fmt.Sprint("commit ", i)))
	}
	g.git(nil, "tag", "-a", "-m", "a tag", "v1")
	return g, commits
}

func TestIngestWhatGitPacks(t *testing.T) {
	g, commits := history(t)
	for _, c := range []struct {
		name string
		args []string
	}{
		{"offset deltas", []string{"--all", "--delta-base-offset", "--window=50", "--depth=50"}},
		{"ref deltas", []string{"--all", "--window=50"}},
		{"undeltified", []string{"--all", "--window=0", "--compression=0"}},
	} {
		for _, threshold := range []int64{1, 1000, 32 << 10, 1 << 20} {
			t.Run(fmt.Sprintf("%s/%d", c.name, threshold), func(t *testing.T) {
				t.Parallel()
				s := newPlace(t).open(t, threshold)
				data := (&repo{t, g.dir}).pack("", c.args...)
				stats := push(t, s, data, commits[2])
				oids := (&repo{t, g.dir}).objects()
				if stats.Objects != len(oids) || stats.PackBytes != int64(len(data)) {
					t.Errorf("stats %+v for %d objects in %d bytes", stats, len(oids), len(data))
				}
				if (stats.Deltas == 0) != (c.name == "undeltified") {
					t.Errorf("%d deltas", stats.Deltas)
				}
				sameAs(t, &repo{t, g.dir}, s, oids)
			})
		}
	}
}

func TestIngestThinPack(t *testing.T) {
	g, commits := history(t)
	p := newPlace(t)
	s := p.open(t, 4<<10)
	push(t, s, g.pack(commits[0].String()+"\n"), commits[0])
	thin := g.pack(fmt.Sprintf("%s\n^%s\n", commits[2], commits[0]), "--thin")
	if stats := push(t, s, thin, commits[2]); stats.Deltas == 0 {
		t.Fatal("git made no deltas, the test shows nothing")
	}
	oids := g.objects()
	oids = oids[:0]
	for line := range strings.Lines(g.git(nil, "rev-list", "--objects", "--no-object-names", commits[2].String())) {
		oids = append(oids, oidOf(t, strings.TrimSpace(line)))
	}
	sameAs(t, g, s, oids)

	// Opened again, it is all still there.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	sameAs(t, g, p.open(t, 4<<10), oids)

	// Without the first commit the bases are missing.
	q := quarantine(t, newPlace(t).open(t, 0))
	_, err := q.Ingest(t.Context(), bytes.NewReader(thin), objects.Limits{})
	wantIngestError(t, err, "neither in the pack nor in the lake")
}

func wantIngestError(t *testing.T, err error, part string) {
	t.Helper()
	var ie *objects.IngestError
	if !errors.As(err, &ie) {
		t.Fatalf("error %v (%T), want an *IngestError with %q", err, err, part)
	}
	if !strings.Contains(ie.Error(), part) || strings.Contains(ie.Error(), "\n") {
		t.Errorf("error %q, want one line with %q", ie, part)
	}
}

func TestIngestLeavesWhatFollows(t *testing.T) {
	g, commits := history(t)
	data := g.pack("", "--all")
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"whole": func(r io.Reader) io.Reader { return r }, "bytewise": iotest.OneByteReader, "halves": iotest.HalfReader,
	} {
		for _, size := range []int{16, 4096, 1 << 20} {
			q := quarantine(t, newPlace(t).open(t, 0))
			br := bufio.NewReaderSize(wrap(io.MultiReader(bytes.NewReader(data), strings.NewReader("0000 what follows"))), size)
			if _, err := q.Ingest(t.Context(), br, objects.Limits{}); err != nil {
				t.Fatalf("%s, %d: %v", name, size, err)
			}
			if err := q.CheckConnected(t.Context(), commits); err != nil {
				t.Fatal(err)
			}
			if rest, err := io.ReadAll(br); err != nil || string(rest) != "0000 what follows" {
				t.Errorf("%s, %d: after the pack comes %q, %v", name, size, rest, err)
			}
		}
	}
}

// TestPropertyRoundTrip sends random histories through git, the store and back.
func TestPropertyRoundTrip(t *testing.T) {
	// A case starts a dozen git processes; the default of 100 cases takes too long.
	if err := flag.Set("rapid.checks", "20"); err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		g := newRepo(t)
		content := rapid.SliceOfN(rapid.Byte(), 0, 300)
		n := rapid.IntRange(1, 4).Draw(rt, "commits")
		var tip objects.OID
		for i := range n {
			for _, name := range rapid.SliceOfN(rapid.StringMatching(`[a-c](/[a-c]x){0,2}\.t`), 1, 5).Draw(rt, "names") {
				repeat := rapid.SampledFrom([]int{1, 2, 40, 500}).Draw(rt, "repeat")
				g.write(name, bytes.Repeat(content.Draw(rt, "content"), repeat))
			}
			tip = g.commit(fmt.Sprint(i))
		}
		args := []string{"--all", "--window=20"}
		if rapid.Bool().Draw(rt, "ofs") {
			args = append(args, "--delta-base-offset")
		}
		s := newPlace(t).open(t, rapid.SampledFrom([]int64{1, 100, 2000, 1 << 20}).Draw(rt, "threshold"))
		push(t, s, g.pack("", args...), tip)
		oids := g.objects()
		sameAs(t, g, s, oids)
		acceptedByGit(t, writePack(t, s, oids), len(oids))
	})
}

func writePack(t testing.TB, r pack.Reader, oids []objects.OID) []byte {
	t.Helper()
	var out bytes.Buffer
	w := pack.NewWriter(&out, r, len(oids))
	for _, oid := range oids {
		if err := w.WriteObject(t.Context(), oid); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// acceptedByGit has the real git check a pack.
func acceptedByGit(t testing.TB, data []byte, n int) {
	t.Helper()
	g := newRepo(t)
	g.run(data, "index-pack", "--strict", "--stdin")
	g.run(nil, "fsck", "--strict", "--full")
	if got := len(g.objects()); got != n {
		t.Errorf("git got %d objects out of %d", got, n)
	}
}

// plainReader hides a store's optional abilities.
type plainReader struct{ objects.Reader }

func TestWriterWithoutAbilities(t *testing.T) {
	g, commits := history(t)
	s := newPlace(t).open(t, 4<<10)
	push(t, s, g.pack("", "--all"), commits[2])
	oids := g.objects()
	acceptedByGit(t, writePack(t, plainReader{s}, oids), len(oids))
	acceptedByGit(t, writePack(t, s, oids), len(oids))
}

func TestMemoryBackend(t *testing.T) {
	g, commits := history(t)
	s := openOn(t, backend.NewMemory(), t.TempDir(), 4<<10)
	push(t, s, g.pack(commits[0].String()+"\n"), commits[0])
	push(t, s, g.pack(fmt.Sprintf("%s\n^%s\n", commits[2], commits[0]), "--thin"), commits[2])
	path := filepath.Join(t.TempDir(), "part")
	part := oidOf(t, g.git(nil, "rev-parse", "HEAD:tables/big/part.parquet"))
	if err := s.Link(t.Context(), part, path); err != nil {
		t.Fatal(err)
	}
	want := g.run(nil, "cat-file", "blob", part.String())
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("linked file has %d bytes, %v", len(got), err)
	}
}

// files returns all files below dir with their contents.
func files(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		all[p] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// smallPack has every kind of entry and is short enough to try each byte.
func smallPack(t testing.TB) []byte {
	g := newRepo(t)
	for i := range 2 {
		g.write("raw", bytes.Repeat([]byte(fmt.Sprintf("line %d\n", i)), 30))
		g.write("a/b", noise(7, 120+i))
		g.commit("x")
	}
	g.git(nil, "tag", "-a", "-m", "t", "t")
	return g.pack("", "--all", "--delta-base-offset", "--window=10")
}

func TestDamagedPacks(t *testing.T) {
	good := smallPack(t)
	p := newPlace(t)
	s := p.open(t, 100)
	ingest := func(data []byte) error {
		q, err := s.Quarantine()
		if err != nil {
			t.Fatal(err)
		}
		defer q.Discard()
		_, err = q.Ingest(t.Context(), bytes.NewReader(data), objects.Limits{})
		return err
	}
	if err := ingest(good); err != nil {
		t.Fatal(err)
	}
	for n := range good {
		var ie *objects.IngestError
		if err := ingest(good[:n]); !errors.As(err, &ie) {
			t.Fatalf("cut to %d of %d bytes: %v", n, len(good), err)
		}
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= byte(1 << (i % 8))
		var ie *objects.IngestError
		if err := ingest(bad); !errors.As(err, &ie) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
		// With a right checksum it may be a good pack of other objects (a
		// changed offset of a copy, say), but never one that names them wrong.
		if i%4 == 0 && i < len(bad)-20 {
			if err := ingest(seal(bad[:len(bad)-20])); err != nil && !errors.As(err, &ie) {
				t.Fatalf("byte %d changed under a right checksum: %v", i, err)
			}
		}
	}
	if left := files(t, p.data); len(left) != 0 {
		t.Errorf("packs that were never migrated left %d files", len(left))
	}
	if left := files(t, p.staging); len(left) != 1 {
		t.Errorf("discarded quarantines left files: %d", len(left))
	}
}

// seal appends the right checksum.
func seal(b []byte) []byte {
	sum := sha1.Sum(b)
	return append(bytes.Clone(b), sum[:]...)
}

type entry struct {
	typ  objects.Type
	head []byte // between header and data
	size int    // -1: of data
	data []byte
}

func makePack(t testing.TB, entries ...entry) []byte {
	t.Helper()
	b := pack.AppendHeader(nil, uint32(len(entries)))
	for _, e := range entries {
		if e.size < 0 {
			e.size = len(e.data)
		}
		b = pack.AppendEntryHeader(b, e.typ, int64(e.size))
		b = append(b, e.head...)
		b = append(b, deflated(t, e.data)...)
	}
	return seal(b)
}

func TestBadPacks(t *testing.T) {
	blob := func(s string) entry { return entry{objects.Blob, nil, -1, []byte(s)} }
	hello := oidOf(t, "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0") // "hello"
	refDelta := func(base objects.OID, d string) entry { return entry{7, base[:], -1, []byte(d)} }
	treeOf := func(mode, name string) entry {
		return entry{objects.Tree, nil, -1, append([]byte(mode+" "+name+"\x00"), hello[:]...)}
	}
	chain := []entry{blob("hello")}
	for range 5 {
		chain = append(chain, refDelta(hello, "\x05\x05\x90\x05"))
	}
	for _, c := range []struct {
		name   string
		pack   []byte
		limits objects.Limits
		want   string
	}{
		{"empty", nil, objects.Limits{}, "the pack ends early"},
		{"garbage", []byte("GET / HTTP/1.1\r\n\r\n"), objects.Limits{}, "not a git pack"},
		{"version", seal([]byte("PACK\x00\x00\x00\x09\x00\x00\x00\x00")), objects.Limits{}, "version 9"},
		{"fewer objects", seal(pack.AppendHeader(nil, 1)), objects.Limits{}, ""},
		{"bad checksum", makePack(t, blob("hello"))[:len(makePack(t, blob("hello")))-1], objects.Limits{}, "the pack ends early"},
		{"too many objects", makePack(t, blob("a"), blob("b")), objects.Limits{Objects: 1}, "limit is 1"},
		{"pack too large", makePack(t, blob(string(noise(1, 5000)))), objects.Limits{PackBytes: 1000}, "limit of 1000 bytes"},
		{"blob too large", makePack(t, blob("0123456789")), objects.Limits{ObjectBytes: 9}, "over the limit of 9 bytes"},
		{"tree too large", makePack(t, entry{objects.Tree, nil, gitobj.MaxBytes + 1, nil}), objects.Limits{}, "over the limit"},
		{"shorter than said", makePack(t, entry{objects.Blob, nil, 6, []byte("hello")}), objects.Limits{}, "shorter than its header"},
		{"longer than said", makePack(t, entry{objects.Blob, nil, 4, []byte("hello")}), objects.Limits{}, "longer than its header"},
		{"huge size", makePack(t, entry{objects.Blob, nil, 1 << 40, []byte("hello")}), objects.Limits{}, "over the limit"},
		{"unknown type", makePack(t, entry{5, nil, -1, nil}), objects.Limits{}, "unknown type 5"},
		{"bomb", makePack(t, blob(strings.Repeat("\x00", 1<<20))), objects.Limits{InflateRatio: 10, InflateFree: 1000}, "inflates to more than 10 times"},
		{"missing base", makePack(t, refDelta(hello, "\x05\x05\x90\x05")), objects.Limits{}, "neither in the pack nor"},
		{"delta depth", makePack(t, blob("hello"), refDelta(hello, "\x05\x06\x90\x05\x01!"),
			entry{6, []byte{byte(len(deflated(t, []byte("\x05\x06\x90\x05\x01!")))) + 21}, -1, []byte("\x06\x07\x90\x06\x01!")}),
			objects.Limits{DeltaDepth: 1}, "more than 1 deltas"},
		{"delta base size", makePack(t, blob("hello"), refDelta(hello, "\x06\x05\x90\x05")), objects.Limits{}, "wants a base of 6 bytes"},
		{"delta beyond base", makePack(t, blob("hello"), refDelta(hello, "\x05\x06\x90\x06")), objects.Limits{}, "beyond its base"},
		{"delta too short", makePack(t, blob("hello"), refDelta(hello, "\x05\x06\x90\x05")), objects.Limits{}, "1 bytes short"},
		{"delta too long", makePack(t, blob("hello"), refDelta(hello, "\x05\x04\x90\x05")), objects.Limits{}, "longer than it says"},
		{"delta reserved", makePack(t, blob("hello"), refDelta(hello, "\x05\x05\x00")), objects.Limits{}, "reserved"},
		{"delta cut", makePack(t, blob("hello"), refDelta(hello, "\x05\x05\x05hel")), objects.Limits{}, "cut off"},
		{"delta empty", makePack(t, blob("hello"), refDelta(hello, "")), objects.Limits{}, "cut off"},
		{"base in front of the pack", makePack(t, entry{6, []byte{1}, -1, []byte("x")}), objects.Limits{}, "not in front of it"},
		{"base between entries", makePack(t, blob("hello"), entry{6, []byte{3}, -1, []byte("x")}), objects.Limits{}, "where no object begins"},
		{"dot dot", makePack(t, blob("hello"), treeOf("100644", "..")), objects.Limits{}, "hasDotdot"},
		{"dot git", makePack(t, blob("hello"), treeOf("100644", ".GiT")), objects.Limits{}, "hasDotgit"},
		{"bad mode", makePack(t, blob("hello"), treeOf("100666", "a")), objects.Limits{}, "badFilemode"},
		{"bad commit", makePack(t, entry{objects.Commit, nil, -1, []byte("tree 123\n\nx")}), objects.Limits{}, "badTreeSha1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := quarantine(t, newPlace(t).open(t, 0))
			_, err := q.Ingest(t.Context(), bytes.NewReader(c.pack), c.limits)
			wantIngestError(t, err, c.want)
		})
	}
}

func TestSourceFailureIsNotThePacksFault(t *testing.T) {
	broken := errors.New("connection reset")
	q := quarantine(t, newPlace(t).open(t, 0))
	_, err := q.Ingest(t.Context(), io.MultiReader(bytes.NewReader(smallPack(t)[:100]), iotest.ErrReader(broken)), objects.Limits{})
	var ie *objects.IngestError
	if !errors.Is(err, broken) || errors.As(err, &ie) {
		t.Errorf("error %v (%T), want the reader's own", err, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := q.Ingest(ctx, bytes.NewReader(smallPack(t)), objects.Limits{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled ingest: %v", err)
	}
}

// TestBaseAfterDelta has two deltas in a row in front of their base.
func TestBaseAfterDelta(t *testing.T) {
	base := noise(3, 50_000)
	sum := func(b []byte) objects.OID {
		h := sha1.New()
		fmt.Fprintf(h, "blob %d\x00", len(b))
		h.Write(b)
		return objects.OID(h.Sum(nil))
	}
	varint := func(n int) (b []byte) {
		for ; n > 127; n >>= 7 {
			b = append(b, byte(n)|0x80)
		}
		return append(b, byte(n))
	}
	grow := func(n int) []byte { // copies n bytes (n < 64 KiB) and inserts "!"
		d := append(varint(n), varint(n+1)...)
		return append(d, 0xb0, byte(n), byte(n>>8), 1, '!')
	}
	one := append(bytes.Clone(base), '!')
	two := append(bytes.Clone(one), '!')
	baseOID, oneOID := sum(base), sum(one)
	data := makePack(t,
		entry{7, oneOID[:], -1, grow(len(one))},
		entry{7, baseOID[:], -1, grow(len(base))},
		entry{objects.Blob, nil, -1, base})
	for _, threshold := range []int64{50_001, 50_000, 1 << 20} {
		s := newPlace(t).open(t, threshold)
		push(t, s, data)
		for _, want := range [][]byte{base, one, two} {
			if _, got := read(t, s, sum(want)); !bytes.Equal(got, want) {
				t.Errorf("threshold %d: %d bytes differ", threshold, len(want))
			}
		}
	}
}
