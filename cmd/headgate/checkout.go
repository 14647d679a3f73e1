package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/table"
)

// checkout is a lake on the user's disk.
type checkout struct {
	root string
	bare bool // a repository without a work tree
}

// findCheckout looks for the lake that dir is in: the nearest directory upwards
// with a headgate.yaml or a .git, or that is a bare repository.
func findCheckout(dir string) (*checkout, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	for at := abs; ; at = filepath.Dir(at) {
		for _, mark := range []string{"headgate.yaml", ".git"} {
			if _, err := os.Stat(filepath.Join(at, mark)); err == nil {
				return &checkout{root: at}, nil
			}
		}
		if isBare(at) {
			return &checkout{root: at, bare: true}, nil
		}
		if at == filepath.Dir(at) {
			return nil, fmt.Errorf("%s is in no lake: no headgate.yaml and no .git here or above; make one with: headgate init DIR", abs)
		}
	}
}

// isBare reports whether dir is a git directory, as git itself tells one.
func isBare(dir string) bool {
	for name, isDir := range map[string]bool{"HEAD": false, "objects": true, "refs": true} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.IsDir() != isDir {
			return false
		}
	}
	return true
}

// git runs the user's git in the checkout: it knows about work trees, alternates
// and objects that a partial clone has to fetch.
func (c *checkout) git(ctx context.Context, out io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-C", c.root}, args...)...)
	var stderr tail
	cmd.Stdout, cmd.Stderr = out, &stderr
	if err := cmd.Run(); err != nil {
		if text := strings.TrimSpace(string(stderr.b)); text != "" {
			return errors.New(strings.TrimPrefix(text, "fatal: "))
		}
		return fmt.Errorf("git %s: %w", args[0], err)
	}
	return nil
}

func (c *checkout) gitOutput(ctx context.Context, args ...string) (string, error) {
	var out bytes.Buffer
	err := c.git(ctx, &out, args...)
	return out.String(), err
}

// localTable is a table whose parts the worker can read, or can be made to.
type localTable struct {
	name  string
	tree  string           // the snapshot id; "" of the files on disk
	files map[string]place // base name -> where its bytes are
}

// place is a file on disk, or a blob of the repository.
type place struct {
	path string
	oid  string
}

// tablesOnDisk lists the tables of the work tree by lower-case name.
func (c *checkout) tablesOnDisk() (map[string]*localTable, error) {
	found := make(map[string]*localTable)
	root := filepath.Join(c.root, table.Root)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) && path == root {
				return fs.SkipAll
			}
			return err
		}
		if d.Type().IsRegular() {
			rel, err := filepath.Rel(c.root, path)
			if err != nil {
				return err
			}
			addFile(found, filepath.ToSlash(rel), place{path: path})
		}
		return nil
	})
	return found, err
}

// tablesAt lists the tables of a commit. It fetches nothing but trees.
func (c *checkout) tablesAt(ctx context.Context, commit string) (map[string]*localTable, error) {
	list, err := c.gitOutput(ctx, "ls-tree", "-r", "-t", "-z", "--full-tree", commit, "--", table.Root+"/")
	if err != nil {
		return nil, err
	}
	found := make(map[string]*localTable)
	trees := make(map[string]string) // directory -> oid
	for entry := range strings.SplitSeq(list, "\x00") {
		meta, path, ok := strings.Cut(entry, "\t")
		fields := strings.Fields(meta) // mode, type, oid
		switch {
		case !ok || len(fields) != 3:
		case fields[1] == "tree":
			trees[path] = fields[2]
		case fields[1] == "blob":
			addFile(found, path, place{oid: fields[2]})
		}
	}
	for _, t := range found {
		dir, err := table.Dir(t.name)
		if err != nil {
			return nil, err
		}
		t.tree = trees[dir]
	}
	return found, nil
}

func addFile(found map[string]*localTable, path string, at place) {
	name, ok := table.NameOf(path)
	base := path[strings.LastIndexByte(path, '/')+1:]
	if !ok || (base != table.FileName && !strings.HasSuffix(base, ".parquet")) {
		return
	}
	t := found[strings.ToLower(name)]
	if t == nil {
		t = &localTable{name: name, files: make(map[string]place)}
		found[strings.ToLower(name)] = t
	}
	t.files[base] = at
}

// names returns the names of tables, sorted.
func names(tables map[string]*localTable) []string {
	out := make([]string, 0, len(tables))
	for _, t := range tables {
		out = append(out, t.name)
	}
	sort.Strings(out)
	return out
}

// bring writes parts of a table to files, by oid.
func (c *checkout) bring(ctx context.Context, t *localTable, paths map[string]string) error {
	if len(paths) > 0 && t.tree != "" {
		if err := c.prefetch(ctx, []string{t.tree}, slices.Collect(maps.Keys(paths))); err != nil {
			return err
		}
	}
	return c.blobs(ctx, paths)
}

// blobs writes blobs of the repository to files that are not there yet, by oid.
func (c *checkout) blobs(ctx context.Context, paths map[string]string) error {
	var b *gitBatch
	for oid, path := range paths {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if errors.Is(err, fs.ErrExist) {
			continue // of another table or revision
		}
		if err != nil {
			return err
		}
		if b == nil {
			if b, err = c.contents(ctx); err != nil {
				return errors.Join(err, f.Close())
			}
			defer b.close()
		}
		if err := errors.Join(b.copy(f, oid), f.Close()); err != nil {
			return errors.Join(err, os.Remove(path))
		}
	}
	return nil
}

// snapshot reads the table's table.json; nil if it has none.
func (c *checkout) snapshot(ctx context.Context, t *localTable) (*table.Snapshot, error) {
	at, ok := t.files[table.FileName]
	if !ok {
		return nil, nil
	}
	var data []byte
	var err error
	if at.path != "" {
		data, err = os.ReadFile(at.path)
	} else {
		var text string
		text, err = c.gitOutput(ctx, "cat-file", "blob", at.oid)
		data = []byte(text)
	}
	if err != nil {
		return nil, err
	}
	snap, err := table.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("table %s: %w", t.name, err)
	}
	return snap, nil
}

// input brings the table's parts to disk, below dir where they are not there yet,
// and describes it for the worker.
func (c *checkout) input(ctx context.Context, w workerFlag, t *localTable, dir string) (protocol.Table, error) {
	in := protocol.Table{Name: t.name}
	snap, err := c.snapshot(ctx, t)
	if err != nil {
		return in, err
	}
	var order []string
	if snap != nil {
		for _, p := range snap.Parts {
			order = append(order, p.File)
		}
		for _, col := range snap.Columns {
			in.Columns = append(in.Columns, protocol.Column{Name: col.Name, Type: col.Type, Nullable: col.Nullable})
		}
	} else {
		for base := range t.files {
			order = append(order, base)
		}
		sort.Strings(order)
	}
	want := make(map[string]string)
	for _, base := range order {
		at, ok := t.files[base]
		if !ok {
			return in, fmt.Errorf("table %s: %s names the part %q, which is not there", t.name, table.FileName, base)
		}
		path := at.path
		if path == "" {
			path = filepath.Join(dir, at.oid+".parquet")
			want[at.oid] = path
		}
		in.Files = append(in.Files, path)
	}
	if err := c.bring(ctx, t, want); err != nil {
		return in, fmt.Errorf("table %s: %w", t.name, err)
	}
	if snap == nil {
		answer, err := w.runWorker(ctx, &protocol.Order{Op: protocol.OpDescribe, Inputs: []protocol.Table{in}}, nil, nil)
		if err != nil {
			return in, fmt.Errorf("table %s: %w", t.name, err)
		}
		if answer.Snapshot == nil {
			return in, fmt.Errorf("table %s: the worker did not describe it", t.name)
		}
		in.Columns = answer.Snapshot.Columns
	}
	return in, nil
}

// blobOID returns the oid that git gives to a file of this content.
func blobOID(path string) (objects.OID, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return objects.OID{}, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return objects.OID{}, 0, err
	}
	h := plumbing.NewHasher(plumbing.BlobObject, info.Size())
	if n, err := io.Copy(h, f); err != nil || n != info.Size() {
		return objects.OID{}, 0, fmt.Errorf("%s changed while it was read: %w", path, err)
	}
	return h.Sum(), info.Size(), nil
}
