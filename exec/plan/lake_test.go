package plan_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
)

// memory is a store in a map.
type memory map[objects.OID]stored

type stored struct {
	kind objects.Type
	data []byte
}

func (m memory) Stat(_ context.Context, oid objects.OID) (objects.Info, error) {
	o, ok := m[oid]
	if !ok {
		return objects.Info{}, objects.ErrNotFound
	}
	return objects.Info{Type: o.kind, Size: int64(len(o.data))}, nil
}

func (m memory) Open(ctx context.Context, oid objects.OID) (objects.Info, io.ReadCloser, error) {
	info, err := m.Stat(ctx, oid)
	return info, io.NopCloser(bytes.NewReader(m[oid].data)), err
}

func (m memory) put(kind objects.Type, data []byte) objects.OID {
	oid := plumbing.ComputeHash(kind, data)
	m[oid] = stored{kind, data}
	return oid
}

// linkTo is the content of a file that the lake has as a symbolic link.
const linkTo = "-> "

// lake stores files as a commit's tree.
func (m memory) lake(t testing.TB, files map[string]string) objects.OID {
	t.Helper()
	var entries []gitobj.Entry
	below := make(map[string]map[string]string)
	for name, text := range files {
		dir, rest, nested := strings.Cut(name, "/")
		if nested {
			if below[dir] == nil {
				below[dir] = make(map[string]string)
			}
			below[dir][rest] = text
			continue
		}
		mode := gitobj.ModeFile
		if strings.HasPrefix(text, linkTo) {
			mode = gitobj.ModeSymlink
		}
		entries = append(entries, gitobj.Entry{Name: name, Mode: mode, OID: m.put(objects.Blob, []byte(text))})
	}
	for dir, files := range below {
		entries = append(entries, gitobj.Entry{Name: dir, Mode: gitobj.ModeTree, OID: m.lake(t, files)})
	}
	data, err := gitobj.EncodeTree(entries)
	if err != nil {
		t.Fatal(err)
	}
	return m.put(objects.Tree, data)
}

// declarer reads queries with a regular expression, and has the declarations
// of Python files ready.
type declarer struct {
	declared []protocol.Declaration
	asked    []string // "tables 3", "declare 2"
	sources  []string
	err      error
}

var (
	fromTable   = regexp.MustCompile(`(?i)(?:from|join)\s+([A-Za-z0-9_.-]+)`)
	getVariable = regexp.MustCompile(`getvariable\('(\w+)'\)`)
)

func (d *declarer) Tables(_ context.Context, queries []protocol.Query) ([]protocol.QueryTables, error) {
	d.asked = append(d.asked, "tables")
	out := make([]protocol.QueryTables, len(queries))
	for i, q := range queries {
		out[i].Name = q.Name
		if strings.Contains(q.SQL, "syntax error") {
			out[i].Error = &protocol.UserError{Kind: "sql", Message: `syntax error at or near "error"`, Line: 2}
		}
		for _, m := range fromTable.FindAllStringSubmatch(q.SQL, -1) {
			out[i].Tables = append(out[i].Tables, m[1])
		}
		for _, m := range getVariable.FindAllStringSubmatch(q.SQL, -1) {
			out[i].Variables = append(out[i].Variables, m[1])
		}
	}
	return out, d.err
}

func (d *declarer) Declare(_ context.Context, sources []protocol.Source) ([]protocol.Declaration, error) {
	d.asked = append(d.asked, "declare")
	for _, s := range sources {
		d.sources = append(d.sources, s.Path)
	}
	return d.declared, d.err
}

// build plans a commit of files.
func build(t testing.TB, files map[string]string, settings *plan.Settings, declared ...protocol.Declaration) (*plan.Plan, error) {
	t.Helper()
	m := make(memory)
	return plan.Build(context.Background(), m, m.lake(t, files), settings, &declarer{declared: declared})
}

func mustBuild(t testing.TB, files map[string]string, settings *plan.Settings, declared ...protocol.Declaration) *plan.Plan {
	t.Helper()
	p, err := build(t, files, settings, declared...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// refused returns the problems of a commit that makes no plan.
func refused(t testing.TB, files map[string]string, settings *plan.Settings, declared ...protocol.Declaration) string {
	t.Helper()
	p, err := build(t, files, settings, declared...)
	var bad *plan.Error
	if !errors.As(err, &bad) {
		t.Fatalf("error is %v, want an *Error", err)
	}
	if p != nil {
		t.Error("a plan came with an error")
	}
	return err.Error()
}

// with returns files and more files together.
func with(files map[string]string, more map[string]string) map[string]string {
	all := maps.Clone(files)
	maps.Copy(all, more)
	return all
}

func modelNames(p *plan.Plan) []string {
	var names []string
	for _, m := range p.Models {
		names = append(names, m.Name)
	}
	return names
}

func verifierNames(p *plan.Plan) []string {
	var names []string
	for _, v := range p.Verifiers {
		names = append(names, v.Name)
	}
	return names
}

func tables(inputs []plan.Input) []string {
	var names []string
	for _, in := range inputs {
		names = append(names, in.Table)
	}
	return names
}

func equal[T comparable](t *testing.T, what string, have, want []T) {
	t.Helper()
	if !slices.Equal(have, want) {
		t.Errorf("%s: have %v, want %v", what, have, want)
	}
}
