// Package reach is the reachability index of a lake: its commits without their
// texts, and which objects each of them leads to. What a commit leads to never
// changes, so an index can be incomplete, but not out of date. It knows nothing
// of refs, and reads objects only to build itself.
//
// The ideas are git's commit-graph and bitmaps, see gitformat-commit-graph(5)
// and gitformat-pack(5); formats.md has the bytes.
package reach

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"sort"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/headgate/headgate/objects/gitobj"
)

// OID is the SHA-1 name of a git object.
type OID = plumbing.Hash

const (
	magic       = "HGRX"
	version     = 1
	headerSize  = 32
	commitSize  = 32
	tagSize     = 4
	bitmapSize  = 8
	trailerSize = sha1.Size

	none      = 1<<32 - 1 // no parent, or no such number
	moreEdges = 1 << 31   // the second parent is an index into the edges; there, the last one
	isTree    = 1 << 31   // of a content's size
	isNested  = 1 << 31   // of a tag's target: the tag names another tag
	sizeMask  = isTree - 1

	// maxObjects keeps numbers clear of the two marks above.
	maxObjects = 1<<31 - 1
)

// Index is a reachability index. Objects have positions: commits first, parents
// before children, then annotated tags, then trees and blobs, which are called
// contents here. It is safe for concurrent use.
type Index struct {
	data []byte

	commits, tags, contents int

	oids    []byte // 20 bytes each, by position
	order   []byte // positions by oid
	fanout  []byte // for each prefix of shift bits less than 32: how many oids are not above it
	shift   uint
	sizes   []byte // of contents
	records []byte // of commits
	edges   []byte
	targets []byte // of tags: the commit's number, and whether other tags lie between
	bitmaps []byte // commit's number, offset into runs
	runs    []byte
}

// Commit is what is known of a commit. Its parents are numbers of commits, which
// are positions too.
type Commit struct {
	Tree       uint32 // position
	Parents    []uint32
	Generation uint32 // 1 for a root, else one more than the largest of its parents
	Date       int64  // the committer's, in seconds
}

func errFormat(format string, args ...any) error {
	return fmt.Errorf("reachability index: "+format, args...)
}

// ErrDamaged is what Parse returns if the bytes are not those that were written.
var ErrDamaged = errors.New("reachability index: it does not match its checksum")

// Parse reads an index, which keeps b. It checks all that later reads rely on,
// so that none of them can fail.
func Parse(b []byte) (*Index, error) {
	if len(b) < headerSize+trailerSize || string(b[:4]) != magic {
		return nil, errFormat("no such file")
	}
	if sum := sha1.Sum(b[:len(b)-trailerSize]); !bytes.Equal(sum[:], b[len(b)-trailerSize:]) {
		return nil, ErrDamaged
	}
	u := func(at int) int64 { return int64(binary.BigEndian.Uint32(b[at:])) }
	if u(4) != version {
		return nil, errFormat("version %d, want %d", u(4), version)
	}
	commits, tags, contents, edges, bitmaps, fan := u(8), u(12), u(16), u(20), u(24), u(28)
	n := commits + tags + contents
	if n > maxObjects || fan > 16 {
		return nil, errFormat("counts out of range")
	}
	x := &Index{data: b, commits: int(commits), tags: int(tags), contents: int(contents), shift: uint(32 - fan)}
	rest := b[headerSize : len(b)-trailerSize]
	for _, s := range []struct {
		part *[]byte
		size int64
	}{
		{&x.oids, n * 20},
		{&x.order, n * 4},
		{&x.fanout, 4 << fan},
		{&x.sizes, contents * 4},
		{&x.records, commits * commitSize},
		{&x.edges, edges * 4},
		{&x.targets, tags * tagSize},
		{&x.bitmaps, bitmaps * bitmapSize},
	} {
		if int64(len(rest)) < s.size {
			return nil, errFormat("it is cut off")
		}
		*s.part, rest = rest[:s.size], rest[s.size:]
	}
	x.runs = rest
	return x, x.check()
}

// check holds every number against what it counts.
func (x *Index) check() error {
	n := x.Len()
	at := uint32(0)
	for i := range len(x.fanout) / 4 {
		v := u32(x.fanout, i)
		if v < at || int(v) > n {
			return errFormat("its fan-out table is wrong")
		}
		at = v
	}
	if int(at) != n {
		return errFormat("its fan-out table is wrong")
	}
	var last OID
	for i := range n {
		p := u32(x.order, i)
		if int(p) >= n {
			return errFormat("its order is wrong")
		}
		oid := x.OID(p)
		if i > 0 && bytes.Compare(last[:], oid[:]) >= 0 {
			return errFormat("its order is wrong")
		}
		last = oid
		prefix := x.prefix(oid)
		if int(u32(x.fanout, prefix)) <= i || prefix > 0 && int(u32(x.fanout, prefix-1)) > i {
			return errFormat("its fan-out table is wrong")
		}
	}
	for k := range x.commits {
		r := x.records[k*commitSize:]
		p1, p2, upTo := u32(r, 1), u32(r, 2), u32(r, 4)
		ok := int(u32(r, 0)) < x.contents && (p1 == none || int(p1) < k) && (upTo == none || int(upTo) <= x.contents)
		switch {
		case p2 == none:
		case p1 == none:
			ok = false
		case p2&moreEdges == 0:
			ok = ok && int(p2) < k
		default:
			for i := int(p2 &^ moreEdges); ; i++ {
				if i >= len(x.edges)/4 || int(u32(x.edges, i)&^moreEdges) >= k {
					ok = false
					break
				}
				if u32(x.edges, i)&moreEdges != 0 {
					break
				}
			}
		}
		if !ok {
			return errFormat("commit %d is wrong", k)
		}
	}
	for i := range x.tags {
		if int(u32(x.targets, i)&^isNested) >= x.commits {
			return errFormat("tag %d is wrong", i)
		}
	}
	for i := range len(x.bitmaps) / bitmapSize {
		k, off := u32(x.bitmaps, 2*i), u32(x.bitmaps, 2*i+1)
		if int(k) >= x.commits || i > 0 && k <= u32(x.bitmaps, 2*i-2) || int(off) > len(x.runs) {
			return errFormat("bitmap %d is wrong", i)
		}
		if !readRuns(x.runs[off:], [2]int{x.commits, x.contents}, func(int, uint32, uint32) {}) {
			return errFormat("bitmap %d is wrong", i)
		}
	}
	return nil
}

func u32(b []byte, i int) uint32 { return binary.BigEndian.Uint32(b[i*4:]) }

// Bytes returns the index as it is stored.
func (x *Index) Bytes() []byte { return x.data }

// Len returns the number of objects.
func (x *Index) Len() int { return x.commits + x.tags + x.contents }

// Commits returns the number of commits, whose positions are below it.
func (x *Index) Commits() int { return x.commits }

func (x *Index) prefix(oid OID) int { return int(uint64(binary.BigEndian.Uint32(oid[:])) >> x.shift) }

// Find returns an object's position.
func (x *Index) Find(oid OID) (pos uint32, ok bool) {
	prefix := x.prefix(oid)
	lo, hi := 0, int(u32(x.fanout, prefix))
	if prefix > 0 {
		lo = int(u32(x.fanout, prefix-1))
	}
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		p := u32(x.order, mid)
		switch bytes.Compare(x.oids[int(p)*20:][:20], oid[:]) {
		case 0:
			return p, true
		case -1:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return 0, false
}

// OID returns the object at a position.
func (x *Index) OID(pos uint32) OID { return OID(x.oids[int(pos)*20:][:20]) }

// Type returns the type of the object at a position.
func (x *Index) Type(pos uint32) gitobj.Type {
	switch n := int(pos) - x.commits - x.tags; {
	case int(pos) < x.commits:
		return plumbing.CommitObject
	case n < 0:
		return plumbing.TagObject
	case u32(x.sizes, n)&isTree != 0:
		return plumbing.TreeObject
	}
	return plumbing.BlobObject
}

// BlobSize returns the size of the blob at a position. ok is false if the index
// does not know it, as of the largest ones.
func (x *Index) BlobSize(pos uint32) (size int64, ok bool) {
	n := u32(x.sizes, int(pos)-x.commits-x.tags)
	return int64(n), n < sizeMask
}

// Commit returns the commit at a position.
func (x *Index) Commit(n uint32) Commit {
	r := x.records[int(n)*commitSize:]
	c := Commit{
		Tree:       u32(r, 0) + uint32(x.commits+x.tags),
		Generation: u32(r, 3),
		Date:       int64(binary.BigEndian.Uint64(r[24:])),
	}
	p1, p2 := u32(r, 1), u32(r, 2)
	switch {
	case p1 == none:
	case p2 == none:
		c.Parents = []uint32{p1}
	case p2&moreEdges == 0:
		c.Parents = []uint32{p1, p2}
	default:
		c.Parents = []uint32{p1}
		for i := int(p2 &^ moreEdges); ; i++ {
			e := u32(x.edges, i)
			c.Parents = append(c.Parents, e&^moreEdges)
			if e&moreEdges != 0 {
				break
			}
		}
	}
	return c
}

// Target returns the commit that the annotated tag at a position names. It
// returns false if there is no tag, or one that names another tag.
func (x *Index) Target(pos uint32) (commit uint32, ok bool) {
	n := int(pos) - x.commits
	if n < 0 || n >= x.tags {
		return 0, false
	}
	commit = u32(x.targets, n)
	return commit &^ isNested, commit&isNested == 0
}

// Reach adds everything that a commit leads to, itself included, to a set. It
// returns false, and adds nothing, if the index holds no bitmap of that commit.
func (x *Index) Reach(n uint32, to *Set) bool {
	if upTo := x.upTo(n); upTo != none {
		first := uint32(x.commits + x.tags)
		to.AddRange(0, n+1)
		to.AddRange(first, first+upTo)
		return true
	}
	runs := x.runsOf(n)
	if runs == nil {
		return false
	}
	first := [2]uint32{0, uint32(x.commits + x.tags)}
	readRuns(runs, [2]int{x.commits, x.contents}, func(part int, lo, hi uint32) {
		to.AddRange(first[part]+lo, first[part]+hi)
	})
	return true
}

// ReachesAny reports whether a commit leads to any of some commits, which are
// given in ascending order. known is false if the index holds no bitmap of it.
func (x *Index) ReachesAny(n uint32, any []uint32) (yes, known bool) {
	if len(any) == 0 || any[0] > n {
		return false, true // what a commit leads to has lower numbers
	}
	if x.upTo(n) != none {
		return true, true
	}
	runs := x.runsOf(n)
	if runs == nil {
		return false, false
	}
	i := 0
	readRuns(runs, [2]int{x.commits, x.contents}, func(part int, lo, hi uint32) {
		if part > 0 || yes {
			return
		}
		for i < len(any) && any[i] < lo {
			i++
		}
		yes = i < len(any) && any[i] < hi
	})
	return yes, true
}

// upTo returns the number of contents that a commit leads to if it leads to all
// commits and contents before its own; else none.
func (x *Index) upTo(n uint32) uint32 { return u32(x.records[int(n)*commitSize:], 4) }

// runsOf returns a commit's bitmap; nil if it has none.
func (x *Index) runsOf(n uint32) []byte {
	count := len(x.bitmaps) / bitmapSize
	i := sort.Search(count, func(i int) bool { return u32(x.bitmaps, 2*i) >= n })
	if i == count || u32(x.bitmaps, 2*i) != n {
		return nil
	}
	return x.runs[u32(x.bitmaps, 2*i+1):]
}
