package reach

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/headgate/headgate/objects/gitobj"
)

// Source is where objects are read that no older index knows.
type Source interface {
	Stat(ctx context.Context, oid OID) (gitobj.Info, error)
	Open(ctx context.Context, oid OID) (gitobj.Info, io.ReadCloser, error)
}

const (
	// maxBitmaps bounds the written bitmaps; commits of a history without side
	// lines need none. Spacing is how many commits lie between two at least.
	maxBitmaps = 1024
	maxTips    = 256 // of these, for tips
	minSpacing = 128
	maxRuns    = 64 << 20 // bytes of all bitmaps

	// maxDepth of directories is git's own limit (core.maxTreeDepth).
	maxDepth = 4096
	// maxTagChain bounds tags of tags.
	maxTagChain = 32
)

// Build returns an index of all that the tips lead to and all that is in prev,
// which may be nil. The first tips get bitmaps first. Tips that lead to no
// commit are left out. Everything that the tips lead to must be in src.
func Build(ctx context.Context, src Source, prev *Index, tips []OID) (*Index, error) {
	b := newBuilder(ctx, src, prev)
	var heads []uint32
	for _, tip := range tips {
		n, ok, err := b.addTip(tip)
		if err != nil {
			return nil, err
		}
		if ok {
			heads = append(heads, n)
		}
	}
	if err := b.number(); err != nil {
		return nil, err
	}
	if err := b.mark(b.selection(heads)); err != nil {
		return nil, err
	}
	return Parse(b.encode())
}

// Verify compares an index with the objects: it builds it again in the order of
// its commits. The error says what is not as the index has it.
func Verify(ctx context.Context, src Source, x *Index) error {
	b := newBuilder(ctx, src, nil)
	for n := range x.commits {
		at, err := b.addCommit(x.OID(uint32(n)))
		if err != nil {
			return err
		}
		if int(at) != n {
			return errFormat("commit %s does not come after its parents", x.OID(uint32(n)))
		}
	}
	for i := range x.tags {
		if _, ok, err := b.addTip(x.OID(uint32(x.commits + i))); err != nil {
			return err
		} else if !ok || len(b.tags.oids) <= i {
			return errFormat("tag %s leads to no commit", x.OID(uint32(x.commits+i)))
		}
	}
	if err := b.number(); err != nil {
		return err
	}
	var marked []uint32
	for i := range len(x.bitmaps) / bitmapSize {
		marked = append(marked, u32(x.bitmaps, 2*i))
	}
	if err := b.mark(marked); err != nil {
		return err
	}
	got := b.encode()
	if !bytes.Equal(got, x.data) {
		return errFormat("it is not what the objects say")
	}
	return nil
}

// builder gathers an index. Numbers count commits, tags and contents each from zero.
type builder struct {
	ctx  context.Context
	src  Source
	prev *Index

	commits  list
	tags     list
	contents list
	records  []record
	sizes    []uint32
	targets  []uint32 // as they are stored

	marked   []uint32          // commits with a bitmap of their own, ascending
	explicit map[uint32][]byte // their bitmaps
	runs     int
	ofCommit *Set
	ofObject *Set
	buf      bytes.Buffer
}

// list is objects in the order of their numbers; those of prev come first, and
// are looked up there.
type list struct {
	oids  []OID
	added map[OID]uint32
}

func (l *list) add(oid OID) uint32 {
	n := uint32(len(l.oids))
	l.oids = append(l.oids, oid)
	l.added[oid] = n
	return n
}

type record struct {
	tree       uint32
	treeOID    OID // until it has a number
	parents    []uint32
	generation uint32
	upTo       uint32
	date       int64
}

func newBuilder(ctx context.Context, src Source, prev *Index) *builder {
	b := &builder{ctx: ctx, src: src, prev: prev, explicit: make(map[uint32][]byte)}
	for _, l := range []*list{&b.commits, &b.tags, &b.contents} {
		l.added = make(map[OID]uint32)
	}
	if prev == nil {
		return b
	}
	at := uint32(0)
	for _, l := range []struct {
		list *list
		n    int
	}{{&b.commits, prev.commits}, {&b.tags, prev.tags}, {&b.contents, prev.contents}} {
		l.list.oids = make([]OID, l.n, l.n+l.n/8)
		for i := range l.list.oids {
			l.list.oids[i] = prev.OID(at)
			at++
		}
	}
	b.records = make([]record, prev.commits)
	for k := range b.records {
		c := prev.Commit(uint32(k))
		b.records[k] = record{
			tree: c.Tree - uint32(prev.commits+prev.tags), parents: c.Parents,
			generation: c.Generation, date: c.Date, upTo: u32(prev.records[k*commitSize:], 4),
		}
	}
	b.sizes = make([]uint32, prev.contents)
	for i := range b.sizes {
		b.sizes[i] = u32(prev.sizes, i)
	}
	b.targets = make([]uint32, prev.tags)
	for i := range b.targets {
		b.targets[i] = u32(prev.targets, i)
	}
	for i := range len(prev.bitmaps) / bitmapSize {
		k := u32(prev.bitmaps, 2*i)
		ofCommits, ofContents := newSet(prev.commits), newSet(prev.contents)
		readRuns(prev.runs[u32(prev.bitmaps, 2*i+1):], [2]int{prev.commits, prev.contents}, func(part int, lo, hi uint32) {
			[2]*Set{ofCommits, ofContents}[part].AddRange(lo, hi)
		})
		b.explicit[k] = ofContents.appendRuns(ofCommits.appendRuns(nil))
	}
	return b
}

// find returns an object's number in one of the lists.
func (b *builder) find(l *list, oid OID) (uint32, bool) {
	if n, ok := l.added[oid]; ok {
		return n, true
	}
	if b.prev == nil {
		return 0, false
	}
	pos, ok := b.prev.Find(oid)
	if !ok {
		return 0, false
	}
	first, n := 0, b.prev.commits
	switch l {
	case &b.tags:
		first, n = b.prev.commits, b.prev.tags
	case &b.contents:
		first, n = b.prev.commits+b.prev.tags, b.prev.contents
	}
	i := int(pos) - first
	return uint32(i), i >= 0 && i < n
}

// read returns the content of a commit, tree or tag, valid until the next call.
func (b *builder) read(oid OID, want gitobj.Type) ([]byte, error) {
	if err := b.ctx.Err(); err != nil {
		return nil, err
	}
	info, rc, err := b.src.Open(b.ctx, oid)
	if err != nil {
		return nil, err
	}
	if info.Type != want || info.Size > gitobj.MaxBytes {
		return nil, errors.Join(fmt.Errorf("object %s is a %s of %d bytes, want a %s", oid, info.Type, info.Size, want), rc.Close())
	}
	b.buf.Reset()
	_, err = b.buf.ReadFrom(rc)
	return b.buf.Bytes(), errors.Join(err, rc.Close())
}

// addTip adds what a tip leads to: the commit, whose number it returns, and the
// tags in front of it. It returns false for a tip that leads to none.
func (b *builder) addTip(tip OID) (uint32, bool, error) {
	var chain []OID
	oid := tip
	for range maxTagChain {
		if n, ok := b.find(&b.commits, oid); ok {
			return n, true, b.addTags(chain, n)
		}
		if n, ok := b.find(&b.tags, oid); ok {
			return b.targets[n] &^ isNested, true, b.addTags(chain, b.targets[n]|isNested)
		}
		info, err := b.src.Stat(b.ctx, oid)
		if err != nil {
			return 0, false, err
		}
		if info.Type == plumbing.CommitObject {
			n, err := b.addCommit(oid)
			if err != nil {
				return 0, false, err
			}
			return n, true, b.addTags(chain, n)
		}
		if info.Type != plumbing.TagObject {
			return 0, false, nil
		}
		data, err := b.read(oid, plumbing.TagObject)
		if err != nil {
			return 0, false, err
		}
		tag, err := gitobj.ParseTag(data)
		if err != nil {
			return 0, false, fmt.Errorf("tag %s: %w", oid, err)
		}
		chain = append(chain, oid)
		oid = tag.Object
	}
	return 0, false, nil
}

// addTags adds tags that lead to a commit, the innermost first.
func (b *builder) addTags(chain []OID, target uint32) error {
	for _, oid := range slices.Backward(chain) {
		b.tags.add(oid)
		b.targets = append(b.targets, target)
		target |= isNested
	}
	return nil
}

// addCommit numbers a commit after all that it leads to, first parents first.
func (b *builder) addCommit(tip OID) (uint32, error) {
	if n, ok := b.find(&b.commits, tip); ok {
		return n, nil
	}
	type frame struct {
		oid     OID
		tree    OID
		parents []OID
		date    int64
		next    int
	}
	var stack []frame
	push := func(oid OID) error {
		data, err := b.read(oid, plumbing.CommitObject)
		if err != nil {
			return err
		}
		c, err := gitobj.ParseCommit(data)
		if err != nil {
			return fmt.Errorf("commit %s: %w", oid, err)
		}
		stack = append(stack, frame{oid: oid, tree: c.Tree, parents: c.Parents, date: c.Committer.When.Unix()})
		return nil
	}
	if err := push(tip); err != nil {
		return 0, err
	}
	for {
		top := &stack[len(stack)-1]
		if top.next < len(top.parents) {
			p := top.parents[top.next]
			top.next++
			if _, ok := b.find(&b.commits, p); !ok {
				if err := push(p); err != nil {
					return 0, err
				}
			}
			continue
		}
		r := record{treeOID: top.tree, generation: 1, date: top.date, upTo: none}
		for _, p := range top.parents {
			n, _ := b.find(&b.commits, p)
			r.parents = append(r.parents, n)
			r.generation = max(r.generation, b.records[n].generation+1)
		}
		n := b.commits.add(top.oid)
		b.records = append(b.records, r)
		if stack = stack[:len(stack)-1]; len(stack) == 0 {
			return n, nil
		}
	}
}

// number gives numbers to the contents of new commits. A commit that leads to
// all commits before it leads to all contents so far as well, which is most of
// the bitmaps.
func (b *builder) number() error {
	known := 0
	if b.prev != nil {
		known = b.prev.commits
	}
	heads := make(map[uint32]struct{})
	for k := range b.records {
		r := &b.records[k]
		for _, p := range r.parents {
			delete(heads, p)
		}
		whole := len(heads) == 0
		heads[uint32(k)] = struct{}{}
		if k < known {
			continue
		}
		var err error
		if r.tree, err = b.addTree(r.treeOID, 0); err != nil {
			return fmt.Errorf("commit %s: %w", b.commits.oids[k], err)
		}
		if whole {
			r.upTo = uint32(len(b.contents.oids))
		}
	}
	if len(b.commits.oids)+len(b.tags.oids)+len(b.contents.oids) > maxObjects {
		return errFormat("more than %d objects", maxObjects)
	}
	return nil
}

func (b *builder) addTree(oid OID, depth int) (uint32, error) {
	if n, ok := b.find(&b.contents, oid); ok {
		return n, nil
	}
	if depth > maxDepth {
		return 0, fmt.Errorf("tree %s lies more than %d directories deep", oid, maxDepth)
	}
	n := b.contents.add(oid)
	b.sizes = append(b.sizes, isTree)
	data, err := b.read(oid, plumbing.TreeObject)
	if err != nil {
		return 0, err
	}
	var below []OID
	err = gitobj.TreeLinks(data, func(mode gitobj.Mode, oid OID) error {
		if mode == gitobj.ModeGitlink {
			return nil
		}
		if _, ok := b.find(&b.contents, oid); ok {
			return nil
		}
		if mode == gitobj.ModeTree {
			below = append(below, oid)
			return nil
		}
		info, err := b.src.Stat(b.ctx, oid)
		if err != nil {
			return err
		}
		if info.Type != plumbing.BlobObject {
			return fmt.Errorf("object %s is a %s, want a blob", oid, info.Type)
		}
		b.contents.add(oid)
		b.sizes = append(b.sizes, uint32(min(info.Size, sizeMask)))
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("tree %s: %w", oid, err)
	}
	for _, oid := range below {
		if _, err := b.addTree(oid, depth+1); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// selection chooses the commits that get bitmaps of their own: tips, and some on
// the way to them.
func (b *builder) selection(tips []uint32) []uint32 {
	chosen := make(map[uint32]bool)
	for _, n := range tips {
		if len(chosen) < maxTips && b.records[n].upTo == none {
			chosen[n] = true
		}
	}
	var without []uint32
	for k, r := range b.records {
		if r.upTo == none {
			without = append(without, uint32(k))
		}
	}
	spacing := max(minSpacing, len(without)/(maxBitmaps-maxTips)+1)
	for i := spacing - 1; i < len(without); i += spacing {
		chosen[without[i]] = true
	}
	// Those that are there already cost nothing: keep as many as there is room for.
	old := make([]uint32, 0, len(b.explicit))
	for k := range b.explicit {
		old = append(old, k)
	}
	slices.Sort(old)
	for _, k := range slices.Backward(old) {
		if len(chosen) < maxBitmaps {
			chosen[k] = true
		}
	}
	var out []uint32
	for k := range chosen {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// mark makes the bitmaps of the given commits, in ascending order.
func (b *builder) mark(selected []uint32) error {
	b.ofCommit, b.ofObject = newSet(len(b.commits.oids)), newSet(len(b.contents.oids))
	for _, k := range selected {
		runs, ok := b.explicit[k]
		if !ok {
			if err := b.closure(k); err != nil {
				return fmt.Errorf("commit %s: %w", b.commits.oids[k], err)
			}
			runs = b.ofObject.appendRuns(b.ofCommit.appendRuns(nil))
			b.explicit[k] = runs
		}
		if b.runs+len(runs) > maxRuns {
			break
		}
		b.runs += len(runs)
		b.marked = append(b.marked, k)
	}
	return nil
}

// closure gathers what a commit leads to.
func (b *builder) closure(k uint32) error {
	clear(b.ofCommit.words)
	clear(b.ofObject.words)
	var open []uint32
	for stack := []uint32{k}; len(stack) > 0; {
		c := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if b.ofCommit.Has(c) {
			continue
		}
		if upTo := b.records[c].upTo; upTo != none {
			b.ofCommit.AddRange(0, c+1)
			b.ofObject.AddRange(0, upTo)
			continue
		}
		if runs, ok := b.explicit[c]; ok {
			readRuns(runs, [2]int{len(b.commits.oids), len(b.contents.oids)}, func(part int, lo, hi uint32) {
				[2]*Set{b.ofCommit, b.ofObject}[part].AddRange(lo, hi)
			})
			continue
		}
		b.ofCommit.Add(c)
		open = append(open, c)
		stack = append(stack, b.records[c].parents...)
	}
	for _, c := range open {
		if err := b.fill(b.records[c].tree); err != nil {
			return err
		}
	}
	return nil
}

// fill adds a tree or blob and all below it. A tree in the set has all that is
// below it there too, or will have.
func (b *builder) fill(n uint32) error {
	if b.ofObject.Has(n) {
		return nil
	}
	b.ofObject.Add(n)
	if b.sizes[n]&isTree == 0 {
		return nil
	}
	data, err := b.read(b.contents.oids[n], plumbing.TreeObject)
	if err != nil {
		return err
	}
	var below []uint32
	err = gitobj.TreeLinks(data, func(mode gitobj.Mode, oid OID) error {
		if mode == gitobj.ModeGitlink {
			return nil
		}
		n, ok := b.find(&b.contents, oid)
		if !ok {
			return fmt.Errorf("object %s has no number", oid)
		}
		if mode == gitobj.ModeTree {
			below = append(below, n)
		} else {
			b.ofObject.Add(n)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, n := range below {
		if err := b.fill(n); err != nil {
			return err
		}
	}
	return nil
}
