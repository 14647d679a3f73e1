// Package treemerge merges directory trees three-way, as git merge does without
// renames: file by file, and texts line by line. It needs no work tree and no git.
// It knows nothing of commits or tables: directories that its caller calls units
// are told of and not merged.
package treemerge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/tree"
)

// Conflict is a path that both sides changed, each in its own way.
type Conflict struct {
	Path   string
	Reason string
}

// Unit is a directory that both sides changed and that is merged as a whole, by
// somebody else. The oid of a version that does not have it is zero.
type Unit struct {
	Path               string
	Base, Ours, Theirs objects.OID
}

// Units tells which directories are units, and which of their entries are theirs:
// all others are merged like other files.
type Units interface {
	// IsUnit reports whether a directory at path with entries of these names, in
	// any version, is a unit.
	IsUnit(path string, names []string) bool
	// IsOwn reports whether an entry of a unit is merged with the unit.
	IsOwn(name string) bool
}

// Result is what came of a merge. Where there is a conflict, and for what is a
// unit's own, Tree holds what ours does.
type Result struct {
	Tree      objects.OID
	Conflicts []Conflict // by path
	Units     []Unit     // by path
	Merged    []string   // files of which lines of both sides were taken, by path
}

// Bounds of what is merged by lines; a larger file that both sides changed is a conflict.
const (
	maxText  = 8 << 20
	maxDepth = 1024
)

// Merge merges ours and theirs, which came of base; the zero oid is the empty tree.
// A path that one side changed is that side's; what both did alike is no conflict. It
// writes new objects to rw.
func Merge(ctx context.Context, rw objects.ReadWriter, base, ours, theirs objects.OID, units Units) (*Result, error) {
	m := &merger{rw: rw, units: units, res: &Result{}}
	dir := func(oid objects.OID) *gitobj.Entry {
		if oid.IsZero() {
			return nil
		}
		return &gitobj.Entry{Mode: gitobj.ModeTree, OID: oid}
	}
	top, err := m.entry(ctx, "", dir(base), dir(ours), dir(theirs), 0)
	if err != nil {
		return nil, err
	}
	if top == nil { // nothing is left
		if m.res.Tree, err = m.put(ctx, nil); err != nil {
			return nil, err
		}
		return m.res, nil
	}
	m.res.Tree = top.OID
	return m.res, nil
}

type merger struct {
	rw    objects.ReadWriter
	units Units
	res   *Result
}

func (m *merger) conflict(path, format string, args ...any) {
	m.res.Conflicts = append(m.res.Conflicts, Conflict{path, fmt.Sprintf(format, args...)})
}

func same(a, b *gitobj.Entry) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Mode == b.Mode && a.OID == b.OID
}

func isDir(e *gitobj.Entry) bool { return e != nil && e.Mode == gitobj.ModeTree }

func isFile(e *gitobj.Entry) bool {
	return e != nil && (e.Mode == gitobj.ModeFile || e.Mode == gitobj.ModeExec)
}

// entry merges one path, of which any version may be nil, and returns what becomes of it.
func (m *merger) entry(ctx context.Context, path string, b, o, t *gitobj.Entry, depth int) (*gitobj.Entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	switch {
	case same(o, t), same(b, t):
		return o, nil
	case same(b, o):
		return t, nil
	case depth > maxDepth:
		return nil, fmt.Errorf("tree is more than %d directories deep", maxDepth)
	case isDir(o) && (isDir(t) || t == nil), isDir(t) && (isDir(o) || o == nil):
		return m.dir(ctx, path, b, o, t, depth)
	case isFile(o) && isFile(t):
		return m.file(ctx, path, b, o, t)
	case o == nil:
		m.conflict(path, "deleted on our side, changed on the other")
	case t == nil:
		m.conflict(path, "changed on our side, deleted on the other")
	case isDir(o) != isDir(t):
		m.conflict(path, "a directory on one side, a file on the other")
	default:
		m.conflict(path, "changed on both sides, and no file")
	}
	return o, nil
}

// dir merges directories; a version that is none has no entries.
func (m *merger) dir(ctx context.Context, path string, b, o, t *gitobj.Entry, depth int) (*gitobj.Entry, error) {
	var versions [3]map[string]gitobj.Entry
	var oids [3]objects.OID
	var names []string
	for i, e := range [3]*gitobj.Entry{b, o, t} {
		if !isDir(e) {
			continue
		}
		oids[i] = e.OID
		entries, err := tree.List(ctx, m.rw, e.OID)
		if err != nil {
			return nil, fmt.Errorf("directory %q: %w", path, err)
		}
		versions[i] = make(map[string]gitobj.Entry, len(entries))
		for _, e := range entries {
			versions[i][e.Name] = e
			names = append(names, e.Name)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	unit := path != "" && m.units.IsUnit(path, names)
	if unit {
		m.res.Units = append(m.res.Units, Unit{path, oids[0], oids[1], oids[2]})
	}
	var out []gitobj.Entry
	for _, name := range names {
		var at [3]*gitobj.Entry
		for i, v := range versions {
			if e, ok := v[name]; ok {
				at[i] = &e
			}
		}
		merged := at[1]
		if !unit || !m.units.IsOwn(name) {
			below := name
			if path != "" {
				below = path + "/" + name
			}
			var err error
			if merged, err = m.entry(ctx, below, at[0], at[1], at[2], depth+1); err != nil {
				return nil, err
			}
		}
		if merged != nil {
			out = append(out, gitobj.Entry{Name: name, Mode: merged.Mode, OID: merged.OID})
		}
	}
	if len(out) == 0 {
		return nil, nil
	}
	oid, err := m.put(ctx, out)
	if err != nil {
		return nil, fmt.Errorf("directory %q: %w", path, err)
	}
	return &gitobj.Entry{Mode: gitobj.ModeTree, OID: oid}, nil
}

func (m *merger) put(ctx context.Context, entries []gitobj.Entry) (objects.OID, error) {
	data, err := gitobj.EncodeTree(entries)
	if err != nil {
		return objects.OID{}, err
	}
	return m.rw.Put(ctx, objects.Tree, int64(len(data)), bytes.NewReader(data))
}

// file merges two files that differ.
func (m *merger) file(ctx context.Context, path string, b, o, t *gitobj.Entry) (*gitobj.Entry, error) {
	merged := *o
	if isFile(b) && o.Mode == b.Mode {
		merged.Mode = t.Mode
	} else if o.Mode != t.Mode && !(isFile(b) && t.Mode == b.Mode) {
		m.conflict(path, "new on both sides, a program on one of them")
		return o, nil
	}
	switch {
	case o.OID == t.OID, isFile(b) && t.OID == b.OID:
		return &merged, nil
	case isFile(b) && o.OID == b.OID:
		merged.OID = t.OID
		return &merged, nil
	}
	var texts [3][]byte // of the base, none if it has no such file
	for i, e := range [3]*gitobj.Entry{b, o, t} {
		if !isFile(e) {
			continue
		}
		data, err := m.text(ctx, e.OID)
		var no *notText
		if errors.As(err, &no) {
			m.conflict(path, "changed on both sides, and %s", no.why)
			return o, nil
		}
		if err != nil {
			return nil, fmt.Errorf("file %q: %w", path, err)
		}
		texts[i] = data
	}
	text, ok := Text(texts[0], texts[1], texts[2])
	if !ok {
		if !isFile(b) {
			m.conflict(path, "new on both sides, and not alike")
			return o, nil
		}
		m.conflict(path, "both sides changed the same lines")
		return o, nil
	}
	oid, err := m.rw.Put(ctx, objects.Blob, int64(len(text)), bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	merged.OID = oid
	m.res.Merged = append(m.res.Merged, path)
	return &merged, nil
}

type notText struct{ why string }

func (e *notText) Error() string { return e.why }

// binaryProbe is how many bytes git looks at to tell whether a file is a text.
const binaryProbe = 8000

func (m *merger) text(ctx context.Context, oid objects.OID) ([]byte, error) {
	info, err := m.rw.Stat(ctx, oid)
	if err != nil {
		return nil, err
	}
	if info.Size > maxText {
		return nil, &notText{fmt.Sprintf("larger than the %d MiB that are merged by lines", maxText>>20)}
	}
	data, err := objects.ReadAll(ctx, m.rw, oid, objects.Blob, maxText)
	if err != nil {
		return nil, err
	}
	if bytes.IndexByte(data[:min(len(data), binaryProbe)], 0) >= 0 {
		return nil, &notText{"no text"}
	}
	return data, nil
}
