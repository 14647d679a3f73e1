package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/headgate/headgate/exec/tablediff"
	"github.com/headgate/headgate/objects/table"
)

// comparison is two sides, and what of them differs as git says.
type comparison struct {
	old, new diffSide
	dirs     []string // of tables with a file that differs, sorted
	others   int      // files that differ and are of no table
}

// diffSide is one of the two states that are compared: a tree, the index, or the
// files on disk.
type diffSide struct {
	name string // for messages
	tree string // oid of a commit or tree
	disk bool   // if there is no tree: the files on disk, else the index
}

// tableState is a table at one side. A state without files is that there is none.
type tableState struct {
	files    map[string]place // by base name; table.json and Parquet only
	tree     string           // the table's tree object, "" if the side is not a tree
	snapshot *table.Snapshot  // nil if there is no table
	parts    []place          // of the snapshot's parts, in order
	names    []string         // of their files
	ids      []string         // see tablediff.State.Parts
}

func (t *tableState) compared() tablediff.State {
	return tablediff.State{Snapshot: t.snapshot, Parts: t.ids}
}

// compare finds out what git diff would compare for these arguments, by asking git:
// in the user's directory, where relative paths mean something.
func (c *checkout) compare(ctx context.Context, dir string, cached bool, args []string) (*comparison, error) {
	in := &checkout{root: dir}
	revisions, err := in.gitOutput(ctx, append([]string{"rev-parse", "--no-flags", "--revs-only"}, args...)...)
	if err != nil {
		return nil, err
	}
	flags := []string{"diff", "--raw", "-z", "--no-abbrev", "--no-renames", "--no-ext-diff", "--no-textconv", "--no-color"}
	if cached {
		flags = append(flags, "--cached")
	}
	raw, err := in.gitOutput(ctx, append(flags, args...)...)
	if err != nil {
		return nil, err
	}
	cmp := &comparison{}
	if err := cmp.sides(strings.Fields(revisions), cached); err != nil {
		return nil, err
	}
	if cached && cmp.old.tree == "HEAD" && c.git(ctx, nil, "rev-parse", "--verify", "--quiet", "HEAD") != nil {
		cmp.old.tree = emptyTree // before the first commit
	}
	return cmp, cmp.read(raw)
}

// emptyTree is the oid of the tree without entries, which git knows everywhere.
const emptyTree = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"

// sides interprets what git rev-parse makes of the revisions: "^x" for what a range
// excludes.
func (cmp *comparison) sides(revisions []string, cached bool) error {
	var with, without []string
	for _, r := range revisions {
		if oid, ok := strings.CutPrefix(r, "^"); ok {
			without = append(without, oid)
		} else {
			with = append(with, r)
		}
	}
	tree := func(oid string) diffSide { return diffSide{name: oid[:min(len(oid), 10)], tree: oid} }
	index, disk := diffSide{name: "the index"}, diffSide{name: "the files on disk", disk: true}
	switch {
	case len(with) == 0 && len(without) == 0 && cached:
		cmp.old, cmp.new = diffSide{name: "HEAD", tree: "HEAD"}, index
	case len(with) == 0 && len(without) == 0:
		cmp.old, cmp.new = index, disk
	case len(with) == 1 && len(without) == 0 && cached:
		cmp.old, cmp.new = tree(with[0]), index
	case len(with) == 1 && len(without) == 0:
		cmp.old, cmp.new = tree(with[0]), disk
	case cached:
		return usagef("--cached compares the index with one revision")
	case len(with) == 2 && len(without) == 0: // A B
		cmp.old, cmp.new = tree(with[0]), tree(with[1])
	case len(with) == 1 && len(without) == 1: // A..B
		cmp.old, cmp.new = tree(without[0]), tree(with[0])
	case len(with) == 2 && len(without) > 0: // A...B: rev-parse names B first
		cmp.old, cmp.new = tree(without[0]), tree(with[0])
	default:
		return usagef("want at most two revisions: A..B, A...B, A B, or A to compare with the files on disk")
	}
	return nil
}

// read takes the paths out of git's raw output: ":<modes> <oids> <status>" and a path, with
// NUL after each.
func (cmp *comparison) read(raw string) error {
	fields := strings.Split(strings.TrimSuffix(raw, "\x00"), "\x00")
	dirs := make(map[string]bool)
	for i := 0; i+1 < len(fields); i += 2 {
		if !strings.HasPrefix(fields[i], ":") {
			return fmt.Errorf("git diff answered %q", fields[i])
		}
		path := fields[i+1]
		base := path[strings.LastIndexByte(path, '/')+1:]
		if _, ok := table.NameOf(path); ok && isTableFile(base) {
			dirs[path[:len(path)-len(base)-1]] = true
		} else {
			cmp.others++
		}
	}
	cmp.dirs = sortedKeys(dirs)
	return nil
}

func isTableFile(base string) bool {
	return base == table.FileName || strings.HasSuffix(base, ".parquet")
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// list lists the files of a table's directory at a side.
func (s diffSide) list(ctx context.Context, c *checkout, dir string) (*tableState, error) {
	switch {
	case s.tree != "":
		return s.listTree(ctx, c, dir)
	case s.disk:
		return s.listDisk(ctx, c, dir)
	}
	files, err := c.index(ctx, dir)
	return &tableState{files: files}, err
}

func (s diffSide) listTree(ctx context.Context, c *checkout, dir string) (*tableState, error) {
	t := &tableState{files: make(map[string]place)}
	b, err := c.lookups(ctx)
	if err != nil {
		return nil, err
	}
	oid, kind, _, err := b.find(s.tree + ":" + dir)
	b.close()
	if errors.Is(err, errNoObject) || err == nil && kind != "tree" {
		return t, nil
	}
	if err != nil {
		return nil, err
	}
	t.tree = oid
	out, err := c.gitOutput(ctx, "ls-tree", "-z", "--full-tree", oid)
	if err != nil {
		return nil, err
	}
	for entry := range strings.SplitSeq(out, "\x00") {
		meta, name, ok := strings.Cut(entry, "\t")
		fields := strings.Fields(meta) // mode, type, oid
		if ok && len(fields) == 3 && fields[1] == "blob" && isTableFile(name) {
			t.files[name] = place{oid: fields[2]}
		}
	}
	return t, nil
}

// index lists the files of a table's directory in the index.
func (c *checkout) index(ctx context.Context, dir string) (map[string]place, error) {
	out, err := c.gitOutput(ctx, "--literal-pathspecs", "ls-files", "-s", "-z", "--", dir+"/")
	if err != nil {
		return nil, err
	}
	files := make(map[string]place)
	for entry := range strings.SplitSeq(out, "\x00") {
		meta, path, ok := strings.Cut(entry, "\t")
		fields := strings.Fields(meta) // mode, oid, stage
		name, below := strings.CutPrefix(path, dir+"/")
		if !ok || !below || len(fields) != 3 || !isTableFile(name) {
			continue
		}
		if fields[2] != "0" {
			return nil, errors.New("is not merged yet: resolve the conflict, then git add it")
		}
		files[name] = place{oid: fields[1]}
	}
	return files, nil
}

// listDisk lists the files on disk. Where git knows that a file is what the index has,
// its oid is known too, and it need not be read.
func (s diffSide) listDisk(ctx context.Context, c *checkout, dir string) (*tableState, error) {
	t := &tableState{files: make(map[string]place)}
	entries, err := os.ReadDir(filepath.Join(c.root, filepath.FromSlash(dir)))
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Type().IsRegular() && isTableFile(e.Name()) {
			t.files[e.Name()] = place{path: filepath.Join(c.root, filepath.FromSlash(dir), e.Name())}
		}
	}
	tracked, err := c.index(ctx, dir)
	if err != nil {
		return nil, err
	}
	changed, err := c.gitOutput(ctx, "--literal-pathspecs", "diff-files", "-z", "--name-only", "--", dir+"/")
	if err != nil {
		return nil, err
	}
	for path := range strings.SplitSeq(changed, "\x00") {
		delete(tracked, strings.TrimPrefix(path, dir+"/"))
	}
	for name, at := range tracked {
		if here, ok := t.files[name]; ok {
			here.oid = at.oid
			t.files[name] = here
		}
	}
	return t, nil
}

// identify gives the parts of two states their identities: oids, as far as they are
// known. A file on disk that git does not know is read only if the other side has one
// of that name: names follow from content, but nothing holds a file on disk to that.
func identify(was, is *tableState) error {
	for _, s := range [][2]*tableState{{was, is}, {is, was}} {
		mine, other := s[0], s[1]
		for i, at := range mine.parts {
			id := at.oid
			if id == "" && slices.Contains(other.names, mine.names[i]) {
				oid, _, err := blobOID(at.path)
				if err != nil {
					return err
				}
				id = oid.String()
			}
			if id == "" {
				id = "file " + at.path
			}
			mine.ids = append(mine.ids, id)
		}
	}
	return nil
}

// colors are those of git diff in this repository.
func (c *checkout) colors(ctx context.Context, when string, terminal bool) tablediff.Colors {
	ask := func(args ...string) string {
		out, err := c.gitOutput(ctx, append([]string{"config"}, args...)...)
		if err != nil {
			return ""
		}
		return out
	}
	switch when {
	case "never":
		return tablediff.Colors{}
	case "auto":
		if os.Getenv("NO_COLOR") != "" {
			return tablediff.Colors{}
		}
		if strings.TrimSpace(ask("--get-colorbool", "color.diff", fmt.Sprint(terminal))) != "true" {
			return tablediff.Colors{}
		}
	}
	colors := tablediff.GitColors
	for name, to := range map[string]*string{"meta": &colors.Meta, "frag": &colors.Frag, "old": &colors.Old, "new": &colors.New} {
		if configured := ask("--get-color", "color.diff."+name, ""); configured != "" {
			*to = configured
		}
	}
	return colors
}

// errPagerLeft is what writing to a pager fails with that the user has ended.
var errPagerLeft = errors.New("the pager has ended")

// pager is git's pager, to be written to.
type pager struct {
	cmd *exec.Cmd
	in  *os.File
}

// page starts the pager that git would use for a command, diff or log; nil if there is none.
func (c *checkout) page(ctx context.Context, std streams, of string) (*pager, error) {
	command, err := c.pagerOf(ctx, of)
	if err != nil || command == "" || command == "cat" {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p := &pager{cmd: exec.Command("sh", "-c", command), in: w}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = r, std.out, std.err
	p.cmd.Env = append(os.Environ(), "GIT_PAGER_IN_USE=1")
	for name, value := range map[string]string{"LESS": "FRX", "LV": "-c"} { // as git sets them
		if os.Getenv(name) == "" {
			p.cmd.Env = append(p.cmd.Env, name+"="+value)
		}
	}
	err = p.cmd.Start()
	r.Close()
	if err != nil {
		w.Close()
		return nil, nil // as git does: without one
	}
	return p, nil
}

// pagerOf asks git: pager.diff may turn it off or name another one, for diff.
func (c *checkout) pagerOf(ctx context.Context, of string) (string, error) {
	if own, err := c.gitOutput(ctx, "config", "--get", "pager."+of); err == nil && os.Getenv("GIT_PAGER") == "" {
		switch own = strings.TrimSpace(own); own {
		case "false", "no", "off", "0":
			return "", nil
		case "true", "yes", "on", "1", "":
		default:
			return own, nil
		}
	}
	out, err := c.gitOutput(ctx, "var", "GIT_PAGER")
	return strings.TrimSpace(out), err
}

func (p *pager) Write(b []byte) (int, error) {
	n, err := p.in.Write(b)
	if err != nil {
		return n, errPagerLeft
	}
	return n, nil
}

// close waits until the user has read enough.
func (p *pager) close() error {
	return errors.Join(p.in.Close(), p.cmd.Wait())
}
