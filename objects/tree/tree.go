// Package tree looks up, walks and edits directory trees of git objects. It
// knows nothing of commits, refs or tables.
package tree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
)

// ErrSkipDir is what a Walk function returns to leave a directory out.
var ErrSkipDir = errors.New("skip this directory")

// maxDepth bounds recursion into foreign trees; git's own bound is 2048.
const maxDepth = 1024

// List returns the entries of the tree dir, in git's order. The zero oid is the
// empty tree.
func List(ctx context.Context, r objects.Reader, dir objects.OID) ([]gitobj.Entry, error) {
	if dir.IsZero() {
		return nil, nil
	}
	data, err := objects.ReadAll(ctx, r, dir, objects.Tree, gitobj.MaxBytes)
	if err != nil {
		return nil, err
	}
	entries, err := gitobj.ParseTree(data)
	if err != nil {
		return nil, fmt.Errorf("tree %s: %w", dir, err)
	}
	return entries, nil
}

// Lookup returns the entry at a slash-separated path below root; the empty path
// is root itself. If there is none, the error wraps objects.ErrNotFound.
func Lookup(ctx context.Context, r objects.Reader, root objects.OID, path string) (gitobj.Entry, error) {
	at := gitobj.Entry{Mode: gitobj.ModeTree, OID: root}
	if path == "" {
		return at, nil
	}
	for name := range strings.SplitSeq(path, "/") {
		if at.Mode != gitobj.ModeTree {
			return gitobj.Entry{}, fmt.Errorf("path %q: %w", path, objects.ErrNotFound)
		}
		entries, err := List(ctx, r, at.OID)
		if err != nil {
			return gitobj.Entry{}, fmt.Errorf("path %q: %w", path, err)
		}
		found := false
		for _, e := range entries {
			if e.Name == name {
				at, found = e, true
				break
			}
		}
		if !found {
			return gitobj.Entry{}, fmt.Errorf("path %q: %w", path, objects.ErrNotFound)
		}
	}
	return at, nil
}

// Walk calls fn for everything below root, depth first, a directory before what
// is in it, in git's order. If fn returns ErrSkipDir for a directory it is left
// out; any other error ends the walk and is returned.
func Walk(ctx context.Context, r objects.Reader, root objects.OID, fn func(path string, e gitobj.Entry) error) error {
	return walk(ctx, r, root, "", 0, fn)
}

func walk(ctx context.Context, r objects.Reader, dir objects.OID, prefix string, depth int, fn func(string, gitobj.Entry) error) error {
	if depth > maxDepth {
		return fmt.Errorf("tree is more than %d directories deep", maxDepth)
	}
	entries, err := List(ctx, r, dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := prefix + e.Name
		err := fn(path, e)
		if e.Mode == gitobj.ModeTree && err == nil {
			err = walk(ctx, r, e.OID, path+"/", depth+1, fn)
		} else if e.Mode == gitobj.ModeTree && errors.Is(err, ErrSkipDir) {
			err = nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Edit is what becomes of one path: a new entry, or none.
type Edit struct {
	Mode   gitobj.Mode
	OID    objects.OID
	Remove bool // of a file or a whole directory; it is no error if there is none
}

// Apply returns the tree that root becomes by edits of slash-separated paths.
// Missing parent directories are made, directories that become empty are
// dropped. A file in the place of a parent directory, or a directory in the
// place of an edited path, is replaced. The zero oid stands for the empty root;
// the result is never zero. Two edits, one below the other, are an error.
func Apply(ctx context.Context, rw objects.ReadWriter, root objects.OID, edits map[string]Edit) (objects.OID, error) {
	top := &node{}
	for path, e := range edits {
		if err := top.add(path, e); err != nil {
			return objects.OID{}, err
		}
	}
	entries, err := top.apply(ctx, rw, root)
	if err != nil {
		return objects.OID{}, err
	}
	return put(ctx, rw, entries)
}

// node is a directory that has edits somewhere below.
type node struct {
	edits map[string]Edit
	dirs  map[string]*node
}

func (n *node) add(path string, e Edit) error {
	segments := strings.Split(path, "/")
	if len(segments) > maxDepth {
		return fmt.Errorf("edit %q: more than %d directories deep", path, maxDepth)
	}
	for i, name := range segments {
		if name == "" {
			return fmt.Errorf("edit %q: empty name in a path", path)
		}
		if _, clash := n.edits[name]; clash {
			return fmt.Errorf("edit %q: %q is edited too", path, strings.Join(segments[:i+1], "/"))
		}
		if i == len(segments)-1 {
			if n.dirs[name] != nil {
				return fmt.Errorf("edit %q: something below it is edited too", path)
			}
			if n.edits == nil {
				n.edits = make(map[string]Edit)
			}
			n.edits[name] = e
			return nil
		}
		child := n.dirs[name]
		if child == nil {
			if n.dirs == nil {
				n.dirs = make(map[string]*node)
			}
			child = &node{}
			n.dirs[name] = child
		}
		n = child
	}
	return nil
}

// apply returns the new entries of the directory.
func (n *node) apply(ctx context.Context, rw objects.ReadWriter, dir objects.OID) ([]gitobj.Entry, error) {
	old, err := List(ctx, rw, dir)
	if err != nil {
		return nil, err
	}
	var entries []gitobj.Entry
	below := make(map[string]objects.OID)
	for _, e := range old {
		if _, edited := n.edits[e.Name]; edited {
			continue
		}
		if n.dirs[e.Name] == nil {
			entries = append(entries, e)
			continue
		}
		if e.Mode == gitobj.ModeTree {
			below[e.Name] = e.OID
		} else if !n.dirs[e.Name].adds() {
			entries = append(entries, e) // nothing is put below, so the file stays
		}
	}
	for name, e := range n.edits {
		if !e.Remove {
			entries = append(entries, gitobj.Entry{Name: name, Mode: e.Mode, OID: e.OID})
		}
	}
	for name, child := range n.dirs {
		sub, err := child.apply(ctx, rw, below[name])
		if err != nil {
			return nil, err
		}
		if len(sub) == 0 {
			continue
		}
		oid, err := put(ctx, rw, sub)
		if err != nil {
			return nil, fmt.Errorf("directory %q: %w", name, err)
		}
		entries = append(entries, gitobj.Entry{Name: name, Mode: gitobj.ModeTree, OID: oid})
	}
	return entries, nil
}

// adds tells whether some edit below puts an entry.
func (n *node) adds() bool {
	for _, e := range n.edits {
		if !e.Remove {
			return true
		}
	}
	for _, child := range n.dirs {
		if child.adds() {
			return true
		}
	}
	return false
}

func put(ctx context.Context, w objects.Writer, entries []gitobj.Entry) (objects.OID, error) {
	data, err := gitobj.EncodeTree(entries)
	if err != nil {
		return objects.OID{}, err
	}
	return w.Put(ctx, objects.Tree, int64(len(data)), bytes.NewReader(data))
}
