package uploadarchive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
)

// walk visits the tree in git's order. Without out it only looks whether all
// can be written.
type walk struct {
	*archive
	matched  []bool // which pathspecs have selected something
	attrs    []attrFile
	attrSize int64 // bytes of attrs
	macros   macros
	pending  []item // directories that are written as soon as something in them is
	depth    int

	out      writer
	progress io.Writer
}

func (w *walk) root(ctx context.Context) error { return w.tree(ctx, w.archive.tree, "", false) }

// tree visits a directory, whose name ends in a slash but for the root's.
// selected tells that a pathspec has selected all of it.
func (w *walk) tree(ctx context.Context, oid objects.OID, dir string, selected bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if w.depth++; w.depth > maxTreeDepth {
		return requestErrorf("the tree is more than %d directories deep", maxTreeDepth)
	}
	defer func() { w.depth-- }()
	entries, err := w.entries(ctx, oid)
	if err != nil {
		return err
	}
	leave, err := w.enter(ctx, dir, entries)
	if err != nil {
		return err
	}
	defer leave()
	for _, e := range entries {
		if err := w.entry(ctx, e, dir, selected); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) entry(ctx context.Context, e gitobj.Entry, dir string, selected bool) error {
	path := dir + e.Name
	isDir := e.Mode == gitobj.ModeTree
	self, below := w.selects(path, isDir)
	selected = below || selected
	if isDir && !selected && !w.mayHold(path) || !isDir && !selected && !self {
		return nil
	}
	got := resolve(w.attrs, w.macros, path, isDir || e.Mode == gitobj.ModeGitlink)
	if a, ok := got[attrIgnore]; ok && a.state == attrSet {
		return nil
	}
	it := item{path: w.req.prefix + path, mode: e.Mode, oid: e.OID}
	switch e.Mode {
	case gitobj.ModeTree:
		it.path += "/"
		w.pending = append(w.pending, it)
		n := len(w.pending)
		err := w.tree(ctx, e.OID, path+"/", selected)
		if len(w.pending) == n { // nothing was in it
			w.pending = w.pending[:n-1]
		}
		return err
	case gitobj.ModeGitlink:
		it.path += "/"
		return w.emit(it)
	case gitobj.ModeSymlink:
		return w.symlink(ctx, it)
	}
	if how := converts(got); how != "" {
		return requestErrorf("file %s has the attribute %s, by which git archive would change its content; the server does not: clone and run git archive there", quote(path), how)
	}
	return w.file(ctx, it)
}

// selects tells whether a pathspec selects the path, and all below it; without
// any, all is selected.
func (w *walk) selects(path string, dir bool) (self, below bool) {
	if len(w.req.paths) == 0 {
		return true, true
	}
	for i := range w.req.paths {
		s, b := w.req.paths[i].match(path, dir)
		w.matched[i] = w.matched[i] || s
		self, below = self || s, below || b
	}
	return self, below
}

func (w *walk) mayHold(dir string) bool {
	for i := range w.req.paths {
		if w.req.paths[i].mayHold(dir) {
			return true
		}
	}
	return false
}

// enter reads a directory's .gitattributes. leave forgets it.
func (w *walk) enter(ctx context.Context, dir string, entries []gitobj.Entry) (leave func(), err error) {
	leave = func() {}
	for _, e := range entries {
		if e.Name != ".gitattributes" || e.Mode != gitobj.ModeFile && e.Mode != gitobj.ModeExec {
			continue
		}
		info, err := w.Objects.Stat(ctx, e.OID)
		if err != nil {
			return leave, err
		}
		if w.attrSize+info.Size > maxAttributes {
			return leave, requestErrorf("%s.gitattributes is too large; the server reads %d bytes", printablePath(dir), maxAttributes)
		}
		text, err := objects.ReadAll(ctx, w.Objects, e.OID, objects.Blob, maxAttributes)
		if err != nil {
			return leave, err
		}
		var m macros
		if dir == "" {
			m = w.macros
		}
		n, size := len(w.attrs), w.attrSize
		w.attrs = append(w.attrs, parseAttributes(dir, string(text), m))
		w.attrSize += info.Size
		return func() { w.attrs, w.attrSize = w.attrs[:n], size }, nil
	}
	return leave, nil
}

func printablePath(dir string) string { return strings.Trim(quote(dir), `"`) }

func (w *walk) symlink(ctx context.Context, it item) error {
	if info, err := w.Objects.Stat(ctx, it.oid); err != nil {
		return err
	} else if info.Size > maxLink {
		return requestErrorf("symbolic link %s has a target of %d bytes; the server reads %d", quote(it.path), info.Size, maxLink)
	}
	target, err := objects.ReadAll(ctx, w.Objects, it.oid, objects.Blob, maxLink)
	if err != nil {
		return fmt.Errorf("read symbolic link: %w", err)
	}
	it.link, it.size = string(target), int64(len(target))
	return w.emit(it)
}

func (w *walk) file(ctx context.Context, it item) error {
	if w.out == nil {
		return nil
	}
	info, rc, err := w.Objects.Open(ctx, it.oid)
	if err != nil {
		return err
	}
	it.size = info.Size
	if info.Size > 0 {
		it.data = rc
	}
	return errors.Join(w.emit(it), rc.Close())
}

// emit writes an entry, and the directories on the way to it.
func (w *walk) emit(it item) error {
	if w.out == nil {
		return nil
	}
	pending := w.pending
	w.pending = nil
	for _, dir := range pending {
		if err := w.put(dir); err != nil {
			return err
		}
	}
	return w.put(it)
}

func (w *walk) put(it item) error {
	if _, err := fmt.Fprintln(w.progress, it.path); err != nil {
		return err
	}
	return w.out.add(it)
}
