package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strings"

	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/table"
)

// changedTable is what a commit did to a table, against its first parent. Bytes and
// parts are counted once, however often table.json lists a part.
type changedTable struct {
	Name        string `json:"name"`
	Status      string `json:"status"`             // "added", "changed", "removed"
	Snapshot    string `json:"snapshot,omitempty"` // absent: removed
	Before      string `json:"before,omitempty"`   // the snapshot at the first parent; absent: added
	Rows        int64  `json:"rows"`
	RowsBefore  int64  `json:"rows_before"`
	PartsNew    int64  `json:"parts_new"`
	BytesNew    int64  `json:"bytes_new"`
	PartsReused int64  `json:"parts_reused"` // that the first parent's table has too
	BytesReused int64  `json:"bytes_reused"`
	Problem     string `json:"problem,omitempty"` // why rows and bytes are not told

	now, was string // oids of table.json; "" if there is none
	files    bool   // of its own were changed
}

// logReader reads what "git log --raw" says of commits and the tables in them. Git
// itself leaves out the commits that did not change a path, by the oids of trees
// and its commit-graph; a table.json is opened only where it changed.
type logReader struct {
	cmd    *exec.Cmd
	out    *bufio.Reader
	stderr tail
	next   string // the commit that was read already
	ended  bool
}

// logFormat begins each commit with a byte that no other token begins with.
const logFormat = "%x01%H%n%cI%n%an%n%B"

func (c *checkout) openLog(ctx context.Context, args ...string) (*logReader, error) {
	all := append([]string{"-C", c.root, "-c", "log.follow=false", "-c", "log.showSignature=false", "-c", "log.showRoot=true", "log", "-z", "--first-parent", "-m", "--raw", "-t", "--no-abbrev", "--no-renames", "--no-color", "--format=" + logFormat}, args...)
	r := &logReader{cmd: exec.CommandContext(ctx, "git", all...)}
	r.cmd.Stderr = &r.stderr
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	r.out = bufio.NewReaderSize(out, 1<<16)
	return r, r.cmd.Start()
}

// token returns what stands before the next NUL; io.EOF at the end.
func (r *logReader) token() (string, error) {
	if r.ended {
		return "", io.EOF
	}
	text, err := r.out.ReadString(0)
	if err == nil {
		return strings.TrimSuffix(text, "\x00"), nil
	}
	if !errors.Is(err, io.EOF) {
		return "", err
	}
	if text != "" {
		return text, nil
	}
	r.ended = true
	if err := r.cmd.Wait(); err != nil {
		if len(r.stderr.b) > 0 {
			return "", errors.New(firstLine(r.stderr.text()))
		}
		return "", fmt.Errorf("git log: %w", err)
	}
	return "", io.EOF
}

// read returns the next commit, and the tables that it changed; io.EOF at the end.
func (r *logReader) read() (*published, error) {
	text := r.next
	r.next = ""
	for text == "" || text[0] != 1 {
		var err error
		if text, err = r.token(); err != nil {
			return nil, err
		}
	}
	p := readCommit(text[1:])
	tables := make(map[string]*changedTable)
	for {
		meta, err := r.token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		meta = strings.TrimPrefix(meta, "\n")
		if strings.HasPrefix(meta, "\x01") {
			r.next = meta
			break
		}
		if !strings.HasPrefix(meta, ":") {
			continue
		}
		path, err := r.token()
		if err != nil {
			return nil, fmt.Errorf("git log ended within a commit: %w", err)
		}
		noteChange(tables, meta, path)
	}
	for _, name := range slices.Sorted(maps.Keys(tables)) {
		t := tables[name]
		switch {
		case !t.files: // a namespace: its tree alone is no table
			continue
		case t.Before == "":
			t.Status = "added"
		case t.Snapshot == "":
			t.Status = "removed"
		default:
			t.Status = "changed"
		}
		p.Tables = append(p.Tables, t)
	}
	return &p, nil
}

// noteChange takes one line of --raw: ":<mode> <mode> <oid> <oid> <status>".
func noteChange(tables map[string]*changedTable, meta, path string) {
	f := strings.Fields(strings.TrimPrefix(meta, ":"))
	if len(f) != 5 {
		return
	}
	const tree = "040000"
	isTree := f[0] == tree || f[1] == tree
	name, ok := table.NameOf(path)
	if isTree {
		name, ok = table.NameOf(path + "/" + table.FileName)
	}
	if !ok {
		return
	}
	t := tables[name]
	if t == nil {
		t = &changedTable{Name: name}
		tables[name] = t
	}
	oid := func(mode, oid string) string {
		if strings.Trim(mode, "0") == "" {
			return ""
		}
		return oid
	}
	was, now := oid(f[0], f[2]), oid(f[1], f[3])
	base := path[strings.LastIndexByte(path, '/')+1:]
	switch {
	case isTree:
		if f[0] == tree {
			t.Before = was
		}
		if f[1] == tree {
			t.Snapshot = now
		}
	case base == table.FileName:
		t.was, t.now, t.files = was, now, true
	case strings.HasSuffix(base, ".parquet"):
		t.files = true
	}
}

// close ends git; the rest of the history is not wanted.
func (r *logReader) close() {
	if !r.ended {
		r.ended = true
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
	}
}

// outlines reads table.json blobs, and keeps those that a next commit may need again.
type outlines struct {
	lake *checkout
	git  *gitBatch
	seen map[string]outline
}

type outline struct {
	rows  int64
	parts map[string]int64 // bytes by file
	err   error
}

// keptOutlines bounds what is remembered.
const keptOutlines = 1000

// measure fills in the rows and bytes of some commits' tables.
func (o *outlines) measure(ctx context.Context, commits []*published) error {
	var trees, blobs []string
	for _, p := range commits {
		for _, t := range p.Tables {
			for _, pair := range [][2]string{{t.Snapshot, t.now}, {t.Before, t.was}} {
				if _, ok := o.seen[pair[1]]; pair[0] != "" && pair[1] != "" && !ok {
					trees, blobs = append(trees, pair[0]), append(blobs, pair[1])
				}
			}
		}
	}
	if err := o.lake.prefetch(ctx, trees, blobs); err != nil {
		return err
	}
	for _, p := range commits {
		for _, t := range p.Tables {
			if err := o.table(ctx, t); err != nil {
				return err
			}
		}
	}
	return nil
}

func (o *outlines) table(ctx context.Context, t *changedTable) error {
	if t.Snapshot != "" && t.now == "" && t.was == "" {
		// Only parts changed: table.json is as it was, if there is one at all.
		if t.now = o.metaOf(t.Snapshot); t.now == "" {
			t.Problem = "has no " + table.FileName + " yet: the gate writes it"
			return nil
		}
		t.was = t.now
	}
	now, err := o.read(ctx, t.now)
	if err != nil {
		return err
	}
	was, err := o.read(ctx, t.was)
	if err != nil {
		return err
	}
	t.Rows, t.RowsBefore = now.rows, was.rows
	for file, size := range now.parts {
		if _, ok := was.parts[file]; ok {
			t.PartsReused++
			t.BytesReused += size
		} else {
			t.PartsNew++
			t.BytesNew += size
		}
	}
	if now.err != nil {
		t.Problem = now.err.Error()
	}
	return nil
}

// metaOf returns the oid of a snapshot's table.json; "" if it has none, or cannot be read.
func (o *outlines) metaOf(tree string) string {
	data, err := o.git.read(tree, gitobj.MaxBytes)
	if err != nil {
		return ""
	}
	entries, err := gitobj.ParseTree(data)
	if err != nil {
		return ""
	}
	for _, e := range entries {
		if e.Name == table.FileName {
			return e.OID.String()
		}
	}
	return ""
}

func (o *outlines) read(ctx context.Context, oid string) (outline, error) {
	if oid == "" {
		return outline{}, nil
	}
	if known, ok := o.seen[oid]; ok {
		return known, nil
	}
	data, err := o.git.read(oid, table.MaxBytes)
	if err != nil {
		if ctx.Err() != nil {
			return outline{}, ctx.Err()
		}
		return outline{}, fmt.Errorf("%s: %w", table.FileName, err)
	}
	found := outline{parts: make(map[string]int64)}
	// What was never at a gate may hold anything: that is told of that one commit.
	if snap, err := table.ParseOutline(data); err != nil {
		found.err = err
	} else {
		found.rows = snap.Rows()
		for _, p := range snap.Parts {
			found.parts[p.File] = p.Bytes
		}
	}
	if len(o.seen) >= keptOutlines {
		clear(o.seen)
	}
	o.seen[oid] = found
	return found, nil
}
