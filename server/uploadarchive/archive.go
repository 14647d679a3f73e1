package uploadarchive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/refs"
)

// Bounds of what an archive may make the server hold in memory.
const (
	maxTagDepth   = 64      // tags that name tags
	maxTreeDepth  = 4096    // git's own default of core.maxTreeDepth
	maxLink       = 1 << 20 // bytes of a symbolic link's target
	maxAttributes = 4 << 20 // bytes of all .gitattributes on the way to one file
)

// archive is what is to be written.
type archive struct {
	*Server
	req    *request
	tree   objects.OID
	commit objects.OID // zero if the tree is not that of a commit
	when   int64       // seconds; of every entry
}

// prepare resolves the tree, and sees that all of it can be written.
func (s *Server) prepare(ctx context.Context, req *request) (*archive, error) {
	a := &archive{Server: s, req: req, when: time.Now().Unix()}
	name, below, sub := strings.Cut(req.treeish, ":")
	oid, err := s.lookUp(ctx, name)
	if err != nil {
		return nil, err
	}
	if oid, err = a.peel(ctx, oid); err != nil {
		return nil, err
	}
	if sub {
		// As in git: the part of a commit's tree is not the commit.
		a.commit, a.when = objects.OID{}, time.Now().Unix()
		if oid, err = a.descend(ctx, oid, below); err != nil {
			return nil, err
		}
	}
	a.tree = oid
	if !req.mtime.IsZero() {
		a.when = req.mtime.Unix()
	}
	w := &walk{archive: a, matched: make([]bool, len(req.paths)), macros: builtinMacros()}
	if err := w.root(ctx); err != nil {
		return nil, err
	}
	for i, ok := range w.matched {
		if !ok && req.paths[i].text != "" {
			return nil, requestErrorf("pathspec %s did not match any files", quote(req.paths[i].text))
		}
	}
	return a, nil
}

// lookUp resolves a ref by git's rules for short names, and nothing else: like
// git without uploadArchive.allowUnreachable, only what a ref names is served.
func (s *Server) lookUp(ctx context.Context, text string) (objects.OID, error) {
	for _, prefix := range []string{"", "refs/", "refs/tags/", "refs/heads/", "refs/remotes/"} {
		name, err := refs.Parse(prefix + text)
		if prefix+text == "HEAD" {
			name, err = s.Head, nil
		}
		if err != nil {
			continue
		}
		oid, err := s.Refs.Get(ctx, name)
		if err == nil {
			return oid, nil
		}
		if !errors.Is(err, refs.ErrNotFound) {
			return objects.OID{}, err
		}
	}
	return objects.OID{}, requestErrorf("no such ref: %s; git archive --remote takes a ref or ref:directory, not an object's name", quote(text))
}

// peel follows tags and a commit to the tree, and remembers the commit.
func (a *archive) peel(ctx context.Context, oid objects.OID) (objects.OID, error) {
	for range maxTagDepth {
		info, err := a.Objects.Stat(ctx, oid)
		if err != nil {
			return oid, err
		}
		switch info.Type {
		case objects.Tree:
			return oid, nil
		case objects.Blob:
			return oid, requestErrorf("not a tree object: %s", oid)
		}
		data, err := objects.ReadAll(ctx, a.Objects, oid, info.Type, gitobj.MaxBytes)
		if err != nil {
			return oid, err
		}
		if info.Type == objects.Commit {
			c, err := gitobj.ParseCommit(data)
			if err != nil {
				return oid, fmt.Errorf("parse commit %s: %w", oid, err)
			}
			a.commit, a.when = oid, c.Committer.When.Unix()
			return c.Tree, nil
		}
		tag, err := gitobj.ParseTag(data)
		if err != nil {
			return oid, fmt.Errorf("parse tag %s: %w", oid, err)
		}
		oid = tag.Object
	}
	return oid, requestErrorf("more than %d tags that name tags", maxTagDepth)
}

// descend returns the tree at a path below a tree.
func (a *archive) descend(ctx context.Context, tree objects.OID, path string) (objects.OID, error) {
next:
	for name := range strings.SplitSeq(strings.TrimSuffix(path, "/"), "/") {
		if path == "" {
			break
		}
		entries, err := a.entries(ctx, tree)
		if err != nil {
			return tree, err
		}
		for _, e := range entries {
			if e.Name == name && e.Mode == gitobj.ModeTree {
				tree = e.OID
				continue next
			}
		}
		return tree, requestErrorf("there is no directory %s in the ref's tree", quote(path))
	}
	return tree, nil
}

func (a *archive) entries(ctx context.Context, tree objects.OID) ([]gitobj.Entry, error) {
	data, err := objects.ReadAll(ctx, a.Objects, tree, objects.Tree, gitobj.MaxBytes)
	if err != nil {
		return nil, err
	}
	entries, err := gitobj.ParseTree(data)
	if err != nil {
		return nil, fmt.Errorf("parse tree %s: %w", tree, err)
	}
	return entries, nil
}

// write sends the archive, and with --verbose the names of its entries.
func (a *archive) write(ctx context.Context, data, progress io.Writer) (err error) {
	var out writer
	switch a.req.format {
	case "zip":
		out, err = newZipWriter(data, a.commit, a.when, a.req.level)
	case "tar":
		out, err = newTarWriter(data, a.commit, a.when)
	default:
		var gz *gzip.Writer
		if gz, err = gzip.NewWriterLevel(data, a.req.level); err != nil {
			return err
		}
		defer func() {
			if err == nil {
				err = gz.Close()
			}
		}()
		out, err = newTarWriter(gz, a.commit, a.when)
	}
	if err != nil {
		return err
	}
	if !a.req.verbose {
		progress = io.Discard
	}
	w := &walk{archive: a, matched: make([]bool, len(a.req.paths)), macros: builtinMacros(), out: out, progress: progress}
	if p := a.req.prefix; strings.HasSuffix(p, "/") {
		if err := w.emit(item{path: strings.TrimRight(p, "/") + "/", mode: gitobj.ModeTree, oid: a.tree}); err != nil {
			return err
		}
	}
	if err := w.root(ctx); err != nil {
		return err
	}
	return out.Close()
}
