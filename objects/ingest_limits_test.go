package objects_test

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/pack"
)

// zeros is a deflated run of n zero bytes.
func zeroes(t testing.TB, n int64) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := zlib.NewWriterLevel(&b, zlib.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(w, zeroReader{}, n); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// rawEntry is an entry whose data is deflated already.
func rawEntry(typ objects.Type, size int64, head, deflated []byte) []byte {
	b := pack.AppendEntryHeader(nil, typ, size)
	return append(append(b, head...), deflated...)
}

func rawPack(count uint32, entries ...[]byte) []byte {
	b := pack.AppendHeader(nil, count)
	return seal(append(b, bytes.Join(entries, nil)...))
}

func varint(n int64) (b []byte) {
	for ; n > 127; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

// doubling is a chain of deltas, each of which is twice its base: 2^n times the
// first blob in some dozen bytes each.
func doubling(t testing.TB, n int) []byte {
	size := int64(64 << 10)
	entries := [][]byte{rawEntry(objects.Blob, size, nil, deflated(t, bytes.Repeat([]byte{'b'}, int(size))))}
	for range n {
		d := append(varint(size), varint(2*size)...)
		for range 2 {
			for at := int64(0); at < size; {
				n := min(size-at, 0xffffff)
				d = append(d, 0xff, byte(at), byte(at>>8), byte(at>>16), byte(at>>24), byte(n), byte(n>>8), byte(n>>16))
				at += n
			}
		}
		z := deflated(t, d)
		distance := int64(len(entries[len(entries)-1]))
		entries = append(entries, rawEntry(6, int64(len(d)), ofs(distance), z))
		size *= 2
	}
	return rawPack(uint32(len(entries)), entries...)
}

// ofs encodes the distance to a delta's base.
func ofs(n int64) []byte {
	b := []byte{byte(n & 0x7f)}
	for n >>= 7; n > 0; n >>= 7 {
		n--
		b = append([]byte{byte(n&0x7f) | 0x80}, b...)
	}
	return b
}

// chain is n deltas, each upon the one before it.
func chain(t testing.TB, n int) []byte {
	entries := [][]byte{rawEntry(objects.Blob, 5, nil, deflated(t, []byte("hello")))}
	for i := range n {
		d := append(varint(int64(5+i)), varint(int64(6+i))...)
		d = append(d, 0xb0, byte(5+i), byte((5+i)>>8), 1, '!')
		entries = append(entries, rawEntry(6, int64(len(d)), ofs(int64(len(entries[i]))), deflated(t, d)))
	}
	return rawPack(uint32(len(entries)), entries...)
}

// peak runs f and returns by how many bytes the heap grew at most. Garbage is
// collected early meanwhile, so that it counts for little.
func peak(f func()) int64 {
	defer debug.SetGCPercent(debug.SetGCPercent(10))
	runtime.GC()
	read := func() int64 {
		s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		metrics.Read(s)
		return int64(s[0].Value.Uint64())
	}
	before := read()
	var most atomic.Int64
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for t := time.NewTicker(time.Millisecond); ; {
			select {
			case <-quit:
				t.Stop()
				return
			case <-t.C:
				most.Store(max(most.Load(), read()))
			}
		}
	}()
	f()
	close(quit)
	<-done
	return most.Load() - before
}

// A bomb is refused by the limit it breaks, with little memory, and leaves nothing.
func TestBombs(t *testing.T) {
	const gib = 1 << 30
	small := objects.Limits{InflateFree: 32 << 20}
	hugeTree := append([]byte("100644 "+strings.Repeat("n", 4000)+"\x00"), make([]byte, 20)...)
	for _, c := range []struct {
		name   string
		pack   []byte
		limits objects.Limits
		want   string
		memory int64
	}{
		{"16 GiB of zeros", rawPack(1, rawEntry(objects.Blob, 16*gib, nil, zeroes(t, gib/4))), objects.Limits{InflateFree: 32 << 20, InflateRatio: 100}, "more than 100 times its size (the server's --max-push-inflation)", 32 << 20},
		{"a blob of a terabyte, promised", rawPack(1, rawEntry(objects.Blob, 1<<40, nil, zeroes(t, 1<<20))), objects.Limits{}, "over the limit of 17179869184 bytes (the server's --max-push-object-bytes)", 8 << 20},
		{"deltas that double, to 8 GiB", doubling(t, 17), small, "more than 512 times its size (the server's --max-push-inflation)", 64 << 20},
		{"a delta with a result of 2^55 bytes", rawPack(2, rawEntry(objects.Blob, 5, nil, deflated(t, []byte("hello"))),
			rawEntry(6, 9, ofs(int64(len(rawEntry(objects.Blob, 5, nil, deflated(t, []byte("hello")))))), deflated(t, append([]byte{5}, varint(1<<55)...)))), small, "over the limit of", 8 << 20},
		{"four billion objects", append(pack.AppendHeader(nil, 1<<32-1), make([]byte, 100)...), objects.Limits{}, "4294967295 objects, the limit is 2000000 (the server's --max-push-objects)", 8 << 20},
		{"a chain of 5,000 deltas", chain(t, 5000), objects.Limits{}, "more than 4095 deltas (the server's --max-push-delta-depth)", 64 << 20},
		{"a tree of 65 MiB", rawPack(1, rawEntry(objects.Tree, gitobj.MaxBytes+1, nil, zeroes(t, gitobj.MaxBytes+1))), objects.Limits{}, "over the limit of 67108864 bytes", 8 << 20},
		{"a commit of 64 MiB", rawPack(1, rawEntry(objects.Commit, gitobj.MaxBytes, nil, zeroes(t, gitobj.MaxBytes))), objects.Limits{}, "nulInHeader", 200 << 20},
		{"a tree of 64 MiB", rawPack(1, rawEntry(objects.Tree, int64(len(hugeTree)*16_000), nil, deflated(t, bytes.Repeat(hugeTree, 16_000)))), objects.Limits{}, "nullSha1", 200 << 20},
		{"longer than allowed", rawPack(1, rawEntry(objects.Blob, 1<<20, nil, deflated(t, noise(1, 1<<20)))), objects.Limits{PackBytes: 1 << 19}, "limit of 524288 bytes (the server's --max-push-bytes)", 8 << 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlace(t)
			q := quarantine(t, p.open(t, 0))
			var err error
			grew := peak(func() { _, err = q.Ingest(t.Context(), bytes.NewReader(c.pack), c.limits) })
			wantIngestError(t, err, c.want)
			if grew > c.memory {
				t.Errorf("%d bytes of memory for a pack of %d", grew, len(c.pack))
			}
			if err := q.Discard(); err != nil {
				t.Fatal(err)
			}
			if left := files(t, p.staging); len(left) != 1 || len(files(t, p.data)) != 0 { // the lock file
				t.Errorf("left behind: %d files", len(left))
			}
		})
	}
}

// What packs on their way in take together is bounded, and given back.
func TestStagingIsShared(t *testing.T) {
	s := newPlace(t).open(t, 1000)
	staging := objects.NewStaging(20<<20, 0)
	blobs := func(seed uint64, n int) []byte {
		var all []entry
		for i := range n {
			all = append(all, entry{objects.Blob, nil, -1, noise(seed+uint64(i), 3<<20)})
		}
		return makePack(t, all...)
	}
	take := func(data []byte) (*objects.Share, error) {
		share := staging.Share()
		_, err := quarantine(t, s).Ingest(t.Context(), bytes.NewReader(data), objects.Limits{Staging: share})
		return share, err
	}
	first, err := take(blobs(10, 4))
	if err != nil {
		t.Fatal(err)
	}
	second, err := take(blobs(20, 4))
	var ie *objects.IngestError
	if !errors.Is(err, objects.ErrNoSpace) || errors.As(err, &ie) || !strings.Contains(err.Error(), "of 20971520 bytes") {
		t.Fatalf("second: %v", err)
	}
	second.Close()
	first.Close()
	first.Close()
	if n := staging.Used(); n != 0 {
		t.Errorf("%d bytes are taken by nobody", n)
	}
	third, err := take(blobs(30, 5))
	if err != nil {
		t.Errorf("after the others have gone: %v", err)
	}
	third.Close()

	// The disk is never filled to the brim.
	staging = objects.NewStaging(0, 1<<60)
	if _, err := take(blobs(40, 1)); !errors.Is(err, objects.ErrNoSpace) || !strings.Contains(err.Error(), "free bytes") {
		t.Errorf("on a disk that is too full: %v", err)
	}
}

// A full disk is told as such, and leaves nothing. The test starts itself in a
// mount namespace of its own, where it has a disk of 8 MiB.
func TestFullDisk(t *testing.T) {
	const env = "HEADGATE_TEST_FULL_DISK"
	dir := os.Getenv(env)
	if dir == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestFullDisk$", "-test.v")
		cmd.Env = append(os.Environ(), env+"="+t.TempDir())
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		if os.Geteuid() != 0 {
			cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
		}
		out, err := cmd.CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("--- PASS: TestFullDisk")) {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Fatal(err)
	}
	p := place{filepath.Join(dir, "objects"), filepath.Join(dir, "staging")}
	s := p.open(t, 1<<20)
	for name, data := range map[string][]byte{
		"raw blobs":     makePack(t, entry{objects.Blob, nil, -1, noise(1, 4<<20)}, entry{objects.Blob, nil, -1, noise(2, 6<<20)}),
		"small objects": makePack(t, manyBlobs(12, 900<<10)...),
		"spooled deltas": makePack(t, entry{7, make([]byte, 20), -1, append([]byte{1, 1}, noise(3, 12<<20)...)},
			entry{objects.Blob, nil, -1, []byte("x")}),
	} {
		q := quarantine(t, s)
		_, err := q.Ingest(t.Context(), bytes.NewReader(data), objects.Limits{})
		var ie *objects.IngestError
		if !errors.Is(err, objects.ErrNoSpace) || errors.As(err, &ie) {
			t.Errorf("%s: %v", name, err)
		}
		if err := q.Discard(); err != nil {
			t.Fatal(err)
		}
		if left := files(t, p.staging); len(left) != 1 {
			t.Errorf("%s: left %d files", name, len(left))
		}
		// And what fits is taken.
		push(t, s, makePack(t, entry{objects.Blob, nil, -1, []byte(name)}))
	}
}

func manyBlobs(n, size int) []entry {
	var all []entry
	for i := range n {
		all = append(all, entry{objects.Blob, nil, -1, noise(uint64(100+i), size)})
	}
	return all
}

// Memory follows the number of objects, not their sizes.
func TestIngestMemoryPerObject(t *testing.T) {
	const n = 20_000
	var body bytes.Buffer
	for i := range n {
		var data [8]byte
		binary.BigEndian.PutUint64(data[:], uint64(i))
		body.Write(rawEntry(objects.Blob, 8, nil, deflated(t, data[:])))
	}
	data := rawPack(n, body.Bytes())
	q := quarantine(t, newPlace(t).open(t, 0))
	var err error
	grew := peak(func() { _, err = q.Ingest(t.Context(), bytes.NewReader(data), objects.Limits{}) })
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes an object", grew/n)
	if grew > n*500+8<<20 { // and a base cache, buffers
		t.Errorf("%d bytes of memory for %d objects", grew, n)
	}
}
