package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/headgate/headgate/objects/backend"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/pack"
)

// versions is a lake of some tables that change one at a time: for each change a
// tree of all tables, one of the table, and a description with a line for each part.
type versions struct {
	tb     testing.TB
	s      *Store
	rnd    *rand.Rand
	tables []gitobj.Entry
	parts  [][]gitobj.Entry
	all    map[OID][]byte
	types  map[OID]Type
}

func newVersions(tb testing.TB, s *Store, tables, parts int) *versions {
	v := &versions{tb: tb, s: s, rnd: rand.New(rand.NewPCG(3, 4)), all: map[OID][]byte{}, types: map[OID]Type{}}
	v.tables = make([]gitobj.Entry, tables)
	v.parts = make([][]gitobj.Entry, tables)
	v.push(func(q *Quarantine) {
		for i := range tables {
			for range parts {
				v.parts[i] = append(v.parts[i], v.part(q))
			}
			v.table(q, i)
		}
	})
	return v
}

func (v *versions) put(q *Quarantine, t Type, data []byte) OID {
	v.tb.Helper()
	oid, err := q.Put(context.Background(), t, int64(len(data)), bytes.NewReader(data))
	if err != nil {
		v.tb.Fatal(err)
	}
	v.all[oid], v.types[oid] = bytes.Clone(data), t
	return oid
}

func (v *versions) tree(q *Quarantine, entries ...gitobj.Entry) OID {
	data, err := gitobj.EncodeTree(entries)
	if err != nil {
		v.tb.Fatal(err)
	}
	return v.put(q, Tree, data)
}

func (v *versions) part(q *Quarantine) gitobj.Entry {
	data := make([]byte, 200)
	for i := range data {
		data[i] = byte(v.rnd.Uint32())
	}
	data[0] = 0 // as of something binary
	oid := v.put(q, Blob, data)
	return gitobj.Entry{Name: oid.String()[:20] + ".parquet", Mode: gitobj.ModeFile, OID: oid}
}

func (v *versions) table(q *Quarantine, i int) {
	var b strings.Builder
	b.WriteString("{\n\"columns\": [],\n\"parts\": [\n")
	for _, p := range v.parts[i] {
		fmt.Fprintf(&b, "{\"bytes\":108200,\"file\":%q,\"rows\":3376},\n", p.Name)
	}
	meta := gitobj.Entry{Name: "table.json", Mode: gitobj.ModeFile, OID: v.put(q, Blob, []byte(b.String()))}
	v.tables[i] = gitobj.Entry{Name: fmt.Sprintf("table_%03d", i), Mode: gitobj.ModeTree, OID: v.tree(q, append([]gitobj.Entry{meta}, v.parts[i]...)...)}
}

// change pushes a change of one table.
func (v *versions) change() {
	v.push(func(q *Quarantine) {
		i := v.rnd.IntN(len(v.tables))
		v.parts[i][v.rnd.IntN(len(v.parts[i]))] = v.part(q)
		v.table(q, i)
		root := v.tree(q, v.tables...)
		v.put(q, Commit, fmt.Appendf(nil, "tree %s\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\n%d\n", root, len(v.all)))
	})
}

func (v *versions) push(fn func(*Quarantine)) {
	v.tb.Helper()
	q, err := v.s.Quarantine()
	if err != nil {
		v.tb.Fatal(err)
	}
	fn(q)
	if err := errors.Join(q.Migrate(context.Background()), q.Discard()); err != nil {
		v.tb.Fatal(err)
	}
}

// hold reads everything in every way.
func (v *versions) hold() {
	v.tb.Helper()
	ctx := context.Background()
	for oid, want := range v.all {
		got, err := ReadAll(ctx, v.s, oid, v.types[oid], 1<<30)
		if err != nil || !bytes.Equal(got, want) {
			v.tb.Fatalf("%s %s: %d bytes of %d, %v", v.types[oid], oid, len(got), len(want), err)
		}
		if info, err := v.s.Stat(ctx, oid); err != nil || info.Type != v.types[oid] || info.Size != int64(len(want)) {
			v.tb.Fatalf("stat of %s %s: %+v, %v", v.types[oid], oid, info, err)
		}
		info, stream, ok, err := v.s.Deflated(ctx, oid)
		if err != nil || !ok || info.Type != v.types[oid] {
			v.tb.Fatalf("deflated %s %s: %+v, %v, %v", v.types[oid], oid, info, ok, err)
		}
		if got, err := inflated(stream, info.Size); err != nil || !bytes.Equal(got, want) {
			v.tb.Fatalf("deflated %s %s: %v", v.types[oid], oid, err)
		}
	}
}

// depths returns how many objects of the packs are how many deltas deep.
func (v *versions) depths() map[int]int {
	v.tb.Helper()
	count := map[int]int{}
	r := v.s.OpenPacked()
	for oid := range v.all {
		depth := 0
		for {
			d, ok, err := r.Packed(context.Background(), oid)
			if err != nil {
				v.tb.Fatal(err)
			}
			if !ok || d.Base.IsZero() {
				break
			}
			depth++
			oid = d.Base
		}
		count[depth]++
	}
	return count
}

func (v *versions) packBytes() int64 {
	var n int64
	for _, pf := range v.s.small.packs {
		n += pf.size
	}
	return n
}

// Joining packs makes deltas of versions, a few deep; everything reads as before,
// git takes the pack for its own, and joining again changes nothing of that.
func TestJoinedVersionsBecomeDeltas(t *testing.T) {
	root := filepath.Join(t.TempDir(), "objects")
	b, err := backend.NewLocal(root)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := openIn(t, b, dir, Options{})
	v := newVersions(t, s, 60, 30)
	for range 4 {
		for range 100 {
			v.change()
		}
		before := v.packBytes()
		if stats, err := s.Repack(t.Context()); err != nil || stats.Joined == 0 {
			t.Fatalf("%+v, %v", stats, err)
		}
		v.hold()
		t.Logf("%d objects, %d bytes before and %d after, depths %v", len(v.all), before, v.packBytes(), v.depths())
	}
	// All packs into one, as gc does it.
	pf, err := s.rewrite(t.Context(), s.small.packs, func(*packFile, int) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	if err := s.swap(t.Context(), pf, slices.Clone(s.small.packs)); err != nil {
		t.Fatal(err)
	}
	v.hold()
	wantSound(t, s)
	depths := v.depths()
	deltas := 0
	for depth, n := range depths {
		if depth > maxDepth {
			t.Errorf("%d objects are %d deltas deep", n, depth)
		}
		if depth > 0 {
			deltas += n
		}
	}
	// Each of 400 changes has three trees or texts; one in 64 versions stays whole.
	if deltas < 400*3*8/10 {
		t.Errorf("%d deltas, depths %v", deltas, depths)
	}

	// git reads the pack, and makes the same index of it.
	idx := filepath.Join(t.TempDir(), "idx")
	path := filepath.Join(root, "pack", pf.id)
	if out, err := exec.Command("git", "index-pack", "--strict", "-o", idx, path+".pack").CombinedOutput(); err != nil {
		t.Fatalf("git index-pack: %v\n%s", err, out)
	}
	want, err := os.ReadFile(idx)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path + ".idx"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("git's index of the pack is another one (%v)", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	v.s = openIn(t, b, dir, Options{})
	v.hold()
	if err := v.s.Close(); err != nil {
		t.Fatal(err)
	}
}

// Whatever is removed of a pack, what is left of it stays whole: a delta whose
// base goes is stored anew.
func TestBasesThatGo(t *testing.T) {
	s := openIn(t, backend.NewMemory(), t.TempDir(), Options{})
	v := newVersions(t, s, 20, 20)
	for range 150 {
		v.change()
	}
	if _, err := s.Repack(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 6 {
		// Nothing here asks whether what goes is named by what stays.
		gone := map[OID]bool{}
		for oid := range v.all {
			if v.rnd.IntN(5) == 0 {
				gone[oid] = true
			}
		}
		maps.DeleteFunc(v.all, func(oid OID, _ []byte) bool { return gone[oid] })
		pf, err := s.rewrite(t.Context(), s.small.packs, func(pf *packFile, pos int) bool { return !gone[pf.idx.OID(pos)] })
		if err != nil {
			t.Fatal(err)
		}
		if err := s.swap(t.Context(), pf, slices.Clone(s.small.packs)); err != nil {
			t.Fatal(err)
		}
		v.hold()
		for depth, n := range v.depths() {
			if depth > maxDepth {
				t.Errorf("%d objects are %d deltas deep", n, depth)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// Who reads deltas while their packs are replaced finds everything at every
// moment.
func TestReadersOfDeltasSeeNoGap(t *testing.T) {
	dir := t.TempDir()
	b, err := backend.NewLocal(filepath.Join(dir, "objects"))
	if err != nil {
		t.Fatal(err)
	}
	s := openIn(t, b, dir, Options{})
	v := newVersions(t, s, 60, 30)
	for range 120 {
		v.change()
	}
	rewrite := func() {
		packs := slices.Clone(s.small.packs)
		pf, err := s.rewrite(t.Context(), packs, func(*packFile, int) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		if err := s.swap(t.Context(), pf, packs); err != nil {
			t.Fatal(err)
		}
		if len(packs) > 1 && !pf.mapped {
			t.Fatal("the index is too small to be mapped")
		}
	}
	rewrite()
	var deltas []OID
	r := s.OpenPacked()
	for oid := range v.all {
		if p, ok, err := r.Packed(t.Context(), oid); err != nil {
			t.Fatal(err)
		} else if ok && !p.Base.IsZero() {
			deltas = append(deltas, oid)
		}
	}
	done := make(chan struct{})
	var readers sync.WaitGroup
	all, types := maps.Clone(v.all), maps.Clone(v.types)
	for n := range 4 {
		readers.Go(func() {
			r := s.OpenPacked()
			for i := n; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				oid := deltas[i%len(deltas)]
				s.bases.mu.Lock()
				s.bases.cache = newBaseCache(0)
				s.bases.mu.Unlock()
				if data, err := ReadAll(t.Context(), s, oid, types[oid], 1<<20); err != nil || !bytes.Equal(data, all[oid]) {
					t.Errorf("object %s: %v", oid, err)
					return
				}
				if info, err := s.Stat(t.Context(), oid); err != nil || info.Size != int64(len(all[oid])) {
					t.Errorf("stat %s: %+v, %v", oid, info, err)
					return
				}
				if _, ok, err := r.Packed(t.Context(), oid); err != nil || !ok {
					t.Errorf("packed %s: %v, %v", oid, ok, err)
					return
				}
			}
		})
	}
	for range 15 {
		v.change()
		rewrite()
	}
	close(done)
	readers.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// placed is where a test's pack has its objects.
type placed struct {
	sent, known map[OID]bool
	at          map[OID]uint32
}

func (p *placed) Sent(oid OID) bool             { return p.sent[oid] }
func (p *placed) Known(oid OID) bool            { return p.known[oid] }
func (p *placed) Offset(oid OID) uint32         { return p.at[oid] }
func (p *placed) SetOffset(oid OID, off uint32) { p.at[oid] = off }

// Stored deltas go out as they are if their base does, or is with the receiver,
// in any order; else the object goes out whole.
func TestDeltasAreReused(t *testing.T) {
	s := openIn(t, backend.NewMemory(), t.TempDir(), Options{})
	v := newVersions(t, s, 20, 20)
	for range 200 {
		v.change()
	}
	if _, err := s.Repack(t.Context()); err != nil {
		t.Fatal(err)
	}
	oids := slices.Collect(maps.Keys(v.all))
	whole := 0
	for _, c := range []struct {
		name           string
		offsets, known bool
		part           int // of all objects is sent
	}{{"all, by distance", true, false, 1}, {"all, by name", false, false, 1}, {"a half", true, false, 2}, {"a half, thin", true, true, 2}} {
		p := &placed{sent: map[OID]bool{}, known: map[OID]bool{}, at: map[OID]uint32{}}
		var list []OID
		for i, oid := range oids {
			if i%c.part == 0 {
				p.sent[oid] = true
				list = append(list, oid)
			} else if c.known {
				p.known[oid] = true
			}
		}
		var buf bytes.Buffer
		w := pack.NewWriter(&buf, s, len(list))
		w.ReuseDeltas(p, c.offsets)
		for _, oid := range list {
			if err := w.WriteObject(t.Context(), oid); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.Close(); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d objects, %d deltas, %d bytes", c.name, len(list), w.Deltas(), buf.Len())
		if w.Deltas() < len(list)/10 {
			t.Errorf("%s: %d deltas of %d objects", c.name, w.Deltas(), len(list))
		}
		if c.name == "all, by distance" {
			whole = buf.Len()
		} else if c.part == 1 && buf.Len() <= whole {
			t.Errorf("%s: distances are not shorter than names: %d and %d bytes", c.name, whole, buf.Len())
		}
		// The receiver has what it is known to have.
		to := openIn(t, backend.NewMemory(), t.TempDir(), Options{})
		q, err := to.Quarantine()
		if err != nil {
			t.Fatal(err)
		}
		for oid := range p.known {
			if _, err := q.Put(t.Context(), v.types[oid], int64(len(v.all[oid])), bytes.NewReader(v.all[oid])); err != nil {
				t.Fatal(err)
			}
		}
		stats, err := q.Ingest(t.Context(), &buf, Limits{})
		if err != nil || stats.Deltas != w.Deltas() || stats.Objects != len(list) {
			t.Fatalf("%s: %+v, %v", c.name, stats, err)
		}
		for _, oid := range list {
			if got, err := ReadAll(t.Context(), q, oid, v.types[oid], 1<<30); err != nil || !bytes.Equal(got, v.all[oid]) {
				t.Fatalf("%s: %s: %v", c.name, oid, err)
			}
		}
		if err := errors.Join(q.Discard(), to.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// Damage in a base is found in what is made of it, and joins nothing.
func TestDamagedBasesAreNoticed(t *testing.T) {
	b := backend.NewMemory()
	s := openIn(t, b, t.TempDir(), Options{})
	v := newVersions(t, s, 5, 20)
	for range 30 {
		v.change()
	}
	if _, err := s.Repack(t.Context()); err != nil {
		t.Fatal(err)
	}
	var damaged, delta OID
	for oid := range v.all {
		if d, ok, err := s.OpenPacked().Packed(t.Context(), oid); err != nil {
			t.Fatal(err)
		} else if ok && !d.Base.IsZero() {
			damaged, delta = d.Base, oid
			break
		}
	}
	loc, ok, err := s.find(damaged, false)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	rc, err := b.Get(t.Context(), loc.pack.key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(rc)
	if err := errors.Join(err, rc.Close()); err != nil {
		t.Fatal(err)
	}
	data[loc.offset+int64(loc.length)/2] ^= 0x20
	if err := b.Put(t.Context(), loc.pack.key, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	s.bases.cache = newBaseCache(basesBytes)
	var corrupt *CorruptError
	if _, _, err := s.Open(t.Context(), delta); !errors.As(err, &corrupt) || corrupt.OID != delta {
		t.Errorf("an object whose base is damaged: %v", err)
	}
	found := map[OID]bool{}
	if _, err := s.Check(t.Context(), func(f Fault) { found[f.OID] = true }); err != nil || !found[damaged] || !found[delta] {
		t.Errorf("fsck finds %d faults, %v, %v; %v", len(found), found[damaged], found[delta], err)
	}
	v.change()
	if _, err := s.rewrite(t.Context(), s.small.packs, func(*packFile, int) bool { return true }); err == nil {
		t.Error("a damaged pack was joined")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// What is read of an entry's head is what was written, and lies in front of it.
func FuzzHead(f *testing.F) {
	f.Add([]byte{0x95, 0x0a, 0x80, 0x01}, int64(1000))
	f.Add(pack.AppendDistance(pack.AppendEntryHeader(nil, plumbing.OFSDeltaObject, 500), 70_000), int64(80_000))
	f.Fuzz(func(t *testing.T, b []byte, at int64) {
		h, err := parseHead(b, at)
		if err != nil {
			return
		}
		if h.n > len(b) || h.size < 0 || h.t == plumbing.OFSDeltaObject && (h.base >= at || h.base < pack.HeaderSize) {
			t.Fatalf("%+v at %d of %d bytes", h, at, len(b))
		}
		head := pack.AppendEntryHeader(nil, h.t, h.size)
		if h.t == plumbing.OFSDeltaObject {
			head = pack.AppendDistance(head, at-h.base)
		}
		if again, err := parseHead(head, at); err != nil || again.t != h.t || again.size != h.size || again.base != h.base {
			t.Fatalf("%+v became %+v, %v", h, again, err)
		}
	})
}
