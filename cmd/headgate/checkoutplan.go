package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/hooks"
	"github.com/headgate/headgate/hooks/policy"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/table"
)

// maxLocalCode bounds what is read of a file that a plan needs, table.json included, in bytes.
const maxLocalCode = 64 << 20

// localPlan is the plan of a checkout, or of a revision of it, with what it is of.
type localPlan struct {
	*plan.Plan
	state  *state
	policy *policy.Policy
	files  map[string][]byte   // those that hold code, by path
	keys   map[string][]string // of tables, by name in the plan
}

// planAt plans a revision as the gate would; "" is the files on disk. No code is run:
// python reads declarations, and is asked only if there are Python files.
func (c *checkout) planAt(ctx context.Context, rev string, w workerFlag, python string) (*localPlan, error) {
	p := &localPlan{files: make(map[string][]byte), policy: policy.Default()}
	var err error
	if p.state, err = c.stateAt(ctx, rev); err != nil {
		return nil, err
	}
	store := memoryTree{}
	if p.state.commit == "" {
		err = c.readCode(p.files)
	} else {
		err = c.readCodeAt(ctx, p.state.commit, p.files)
	}
	if err != nil {
		return nil, err
	}
	paths := make(map[string]objects.OID, len(p.files))
	for name, text := range p.files {
		paths[name] = store.put(objects.Blob, text)
	}
	for _, t := range p.state.tables {
		dir, err := table.Dir(t.name)
		if err != nil {
			return nil, err
		}
		for base := range t.files {
			name := dir + "/" + base
			if base != table.FileName {
				paths[name] = plumbing.ComputeHash(objects.Blob, []byte(name)) // a plan reads no rows
			}
		}
	}
	root, err := store.tree(paths)
	if err != nil {
		return nil, err
	}
	if text, ok := p.files[hooks.PolicyFile]; ok {
		if p.policy, err = policy.Parse(hooks.PolicyFile, text); err != nil {
			return nil, err
		}
	}
	p.Plan, err = plan.Build(ctx, store, root, p.policy.PlanSettings(), &localDeclarer{worker: w, python: python})
	if err != nil {
		return nil, err
	}
	return p, p.findKeys(ctx, c)
}

// findKeys gathers the keys that models, the policy and snapshots give to tables.
func (p *localPlan) findKeys(ctx context.Context, c *checkout) error {
	p.keys = make(map[string][]string)
	for i := range p.Models {
		p.keys[p.Models[i].Name] = p.Models[i].Key
	}
	for _, name := range p.Sources {
		if key := p.policy.Tables[name].Key; len(key) > 0 {
			p.keys[name] = key
		} else if t := p.state.tables[strings.ToLower(name)]; t != nil {
			snap, err := c.snapshot(ctx, t)
			if err != nil {
				return err
			}
			if snap != nil {
				p.keys[name] = snap.Key
			}
		}
	}
	return nil
}

// inputs are the tables of the state for the worker: sources, and derived tables that are there.
func (p *localPlan) inputs(ctx context.Context, c *checkout, w workerFlag, dir string) ([]protocol.Table, error) {
	names := slices.Clone(p.Sources)
	for i := range p.Models {
		if p.state.tables[strings.ToLower(p.Models[i].Name)] != nil {
			names = append(names, p.Models[i].Name)
		}
	}
	var in []protocol.Table
	for _, name := range names {
		t, err := p.state.table(name)
		if err != nil {
			return nil, err
		}
		table, err := c.input(ctx, w, t, dir)
		if err != nil {
			return nil, err
		}
		table.Name = name
		in = append(in, table)
	}
	return in, nil
}

// isCode reports whether a plan reads a file: names with a dot in front are none.
func isCode(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(part, ".") {
			return false
		}
	}
	base := name[strings.LastIndexByte(name, '/')+1:]
	switch {
	case name == hooks.PolicyFile:
		return true
	case strings.HasPrefix(name, table.Root+"/"):
		return base == table.FileName
	}
	ext := filepath.Ext(base)
	return ext == ".py" || ext == ".sql" || slices.Contains(plan.ProjectFiles, base)
}

// readCode reads the code of the work tree.
func (c *checkout) readCode(files map[string][]byte) error {
	return filepath.WalkDir(c.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == c.root {
			return err
		}
		rel, err := filepath.Rel(c.root, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		switch {
		case d.IsDir() && strings.HasPrefix(d.Name(), "."):
			return fs.SkipDir
		case !d.Type().IsRegular() || !isCode(rel):
			return nil
		}
		info, err := d.Info()
		if err != nil || info.Size() > maxLocalCode {
			return err
		}
		files[rel], err = os.ReadFile(path)
		return err
	})
}

// readCodeAt reads the code of a commit.
func (c *checkout) readCodeAt(ctx context.Context, commit string, files map[string][]byte) error {
	list, err := c.gitOutput(ctx, "ls-tree", "-r", "-z", "--full-tree", commit)
	if err != nil {
		return err
	}
	batch, err := c.contents(ctx)
	if err != nil {
		return err
	}
	defer batch.close()
	for entry := range strings.SplitSeq(list, "\x00") {
		meta, name, ok := strings.Cut(entry, "\t")
		fields := strings.Fields(meta) // mode, type, oid
		if !ok || len(fields) != 3 || fields[1] != "blob" || !strings.HasPrefix(fields[0], "100") || !isCode(name) {
			continue
		}
		var text bytes.Buffer
		if err := batch.copy(&text, fields[2]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		files[name] = text.Bytes()
	}
	return nil
}

// memoryTree is a tree in memory, as a plan reads it.
type memoryTree map[objects.OID]memoryObject

type memoryObject struct {
	kind objects.Type
	data []byte
}

func (m memoryTree) put(kind objects.Type, data []byte) objects.OID {
	oid := plumbing.ComputeHash(kind, data)
	m[oid] = memoryObject{kind, data}
	return oid
}

// Stat implements objects.Reader.
func (m memoryTree) Stat(_ context.Context, oid objects.OID) (objects.Info, error) {
	o, ok := m[oid]
	if !ok {
		return objects.Info{}, objects.ErrNotFound
	}
	return objects.Info{Type: o.kind, Size: int64(len(o.data))}, nil
}

// Open implements objects.Reader.
func (m memoryTree) Open(ctx context.Context, oid objects.OID) (objects.Info, io.ReadCloser, error) {
	info, err := m.Stat(ctx, oid)
	return info, io.NopCloser(bytes.NewReader(m[oid].data)), err
}

// tree stores files by path as trees and returns the root.
func (m memoryTree) tree(paths map[string]objects.OID) (objects.OID, error) {
	var entries []gitobj.Entry
	below := make(map[string]map[string]objects.OID)
	for name, oid := range paths {
		dir, rest, nested := strings.Cut(name, "/")
		if !nested {
			entries = append(entries, gitobj.Entry{Name: name, Mode: gitobj.ModeFile, OID: oid})
			continue
		}
		if below[dir] == nil {
			below[dir] = make(map[string]objects.OID)
		}
		below[dir][rest] = oid
	}
	for dir, paths := range below {
		oid, err := m.tree(paths)
		if err != nil {
			return oid, err
		}
		entries = append(entries, gitobj.Entry{Name: dir, Mode: gitobj.ModeTree, OID: oid})
	}
	data, err := gitobj.EncodeTree(entries)
	if err != nil {
		return objects.OID{}, err
	}
	return m.put(objects.Tree, data), nil
}

// localDeclarer reads queries with the worker and Python files with an
// interpreter, both the user's own processes.
type localDeclarer struct {
	worker workerFlag
	python string
}

// Tables implements plan.Declarer.
func (d *localDeclarer) Tables(ctx context.Context, queries []protocol.Query) ([]protocol.QueryTables, error) {
	answer, err := d.worker.runWorker(ctx, &protocol.Order{Op: protocol.OpTables, Queries: queries}, nil, nil)
	if err != nil {
		return nil, err
	}
	return answer.Tables, nil
}

// Declare implements plan.Declarer.
func (d *localDeclarer) Declare(ctx context.Context, sources []protocol.Source) ([]protocol.Declaration, error) {
	if d.python == "" {
		return nil, errors.New("the lake has Python files, and there is no interpreter to read their declarations; name one with --python PATH")
	}
	return (&localPython{d.python}).Declare(ctx, sources)
}
