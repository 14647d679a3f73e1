package table

import (
	"context"
	"errors"
	"fmt"
	"path"
	"sort"
	"strings"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
)

// Root is the directory of a commit's tree that holds the tables.
const Root = "tables"

// maxTree bounds one directory, in bytes of its tree object: some 100,000 parts.
const maxTree = 16 << 20

// maxTables bounds the tables of one commit.
const maxTables = 100_000

// maxSegment bounds each of a table name's segments.
const maxSegment = 100

// reserved are first segments that SQL gives another meaning: the table at the
// old tip, and DuckDB's own catalogs and schemas.
var reserved = map[string]bool{
	"base": true, "main": true, "memory": true, "temp": true, "system": true,
	"pg_catalog": true, "information_schema": true,
}

// Error says which table, or which path below Root, cannot be one and why.
type Error struct {
	Path   string // "tables/x", or "" where only a tree was given
	Reason string
	Err    error // the cause, nil if Reason says it all
}

func (e *Error) Error() string {
	if e.Path == "" {
		return e.Reason
	}
	return e.Path + ": " + e.Reason
}

func (e *Error) Unwrap() error { return e.Err }

// ValidName reports whether name can be a table's: "name" or "namespace.name",
// each of 1 to 100 ASCII letters, digits, '_' and '-', not starting with '-', the
// first not one that SQL reserves ("base", "main", ...).
func ValidName(name string) error {
	segments := strings.Split(name, ".")
	if len(segments) > 2 {
		return fmt.Errorf("table name %q has %d segments, want one or two", name, len(segments))
	}
	for _, s := range segments {
		if s == "" || len(s) > maxSegment {
			return fmt.Errorf("table name %q: a segment has 1 to %d characters", name, maxSegment)
		}
		if s[0] == '-' {
			return fmt.Errorf("table name %q: a segment starts with '-'", name)
		}
		for _, c := range s {
			if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-' {
				return fmt.Errorf("table name %q: %q is not a letter a-z, a digit, '_' or '-'", name, c)
			}
		}
	}
	if reserved[strings.ToLower(segments[0])] {
		return fmt.Errorf("table name %q: %q is reserved", name, segments[0])
	}
	return nil
}

// Dir returns the directory of the table: "tables/x", "tables/ns/x".
func Dir(name string) (string, error) {
	if err := ValidName(name); err != nil {
		return "", err
	}
	return Root + "/" + strings.ReplaceAll(name, ".", "/"), nil
}

// NameOf returns the table that the file at filePath belongs to; it is the
// inverse of Dir for files directly in a table's directory.
func NameOf(filePath string) (string, bool) {
	at := strings.LastIndexByte(filePath, '/')
	rest, ok := strings.CutPrefix(filePath[:max(at, 0)], Root+"/")
	if !ok || strings.Contains(rest, ".") {
		return "", false
	}
	name := strings.ReplaceAll(rest, "/", ".")
	return name, ValidName(name) == nil
}

// Table is one table of a commit, as its directory says.
type Table struct {
	Name     string
	OID      objects.OID    // of the directory: the snapshot id
	Snapshot *Snapshot      // nil if there is no table.json
	Parquet  []gitobj.Entry // the *.parquet files, by name
	Unsound  *Error         // why the directory is no sound table; only DiscoverAll returns such
}

// Load reads the table whose directory is tree; Name is left empty. The error
// is an *Error if the directory is no sound table.
func Load(ctx context.Context, r objects.Reader, tree objects.OID) (*Table, error) {
	entries, err := list(ctx, r, tree)
	if err != nil {
		return nil, err
	}
	return load(ctx, r, tree, entries)
}

func load(ctx context.Context, r objects.Reader, tree objects.OID, entries []gitobj.Entry) (*Table, error) {
	t := &Table{OID: tree}
	for _, e := range entries {
		isMeta, isPart := e.Name == FileName, strings.HasSuffix(e.Name, partSuffix)
		if !isMeta && !isPart {
			continue
		}
		if e.Mode != gitobj.ModeFile && e.Mode != gitobj.ModeExec {
			return nil, &Error{Reason: fmt.Sprintf("%q is not a regular file", e.Name)}
		}
		if isPart {
			t.Parquet = append(t.Parquet, e)
			continue
		}
		data, err := objects.ReadAll(ctx, r, e.OID, objects.Blob, MaxBytes)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", FileName, err)
		}
		if t.Snapshot, err = Parse(data); err != nil {
			return nil, &Error{Reason: err.Error(), Err: err}
		}
	}
	sort.Slice(t.Parquet, func(i, j int) bool { return t.Parquet[i].Name < t.Parquet[j].Name })
	return t, nil
}

// Discover returns all tables of a commit's tree, by name: each directory one or
// two levels below Root that holds files. Names that start with a dot are skipped
// (".gitkeep"), so are files directly in Root (a README). A commit without Root
// has no tables. The error is an *Error if some path is no sound table: nothing
// that looks like data is passed over.
func Discover(ctx context.Context, r objects.Reader, root objects.OID) ([]Table, error) {
	tables, err := DiscoverAll(ctx, r, root)
	if err != nil {
		return nil, err
	}
	for _, t := range tables {
		if t.Unsound != nil {
			return nil, t.Unsound
		}
	}
	return tables, nil
}

// DiscoverAll is Discover for who can do without some tables, those that are made
// anew: where a directory's name is a table's and its files are no sound one, as
// after a merge of git's, the table is returned with the reason in Unsound.
func DiscoverAll(ctx context.Context, r objects.Reader, root objects.OID) ([]Table, error) {
	if root.IsZero() {
		return nil, nil
	}
	entries, err := list(ctx, r, root)
	if err != nil {
		return nil, err
	}
	d := &discovery{r: r, folded: make(map[string]string)}
	for _, e := range entries {
		if e.Name != Root {
			continue
		}
		if e.Mode != gitobj.ModeTree {
			return nil, &Error{Path: Root, Reason: "is not a directory"}
		}
		if err := d.walk(ctx, e.OID, nil); err != nil {
			return nil, err
		}
	}
	sort.Slice(d.tables, func(i, j int) bool { return d.tables[i].Name < d.tables[j].Name })
	return d.tables, nil
}

type discovery struct {
	r      objects.Reader
	tables []Table
	folded map[string]string // lower-case name -> name as written
}

// walk takes the directory at the path segments below Root.
func (d *discovery) walk(ctx context.Context, dir objects.OID, segments []string) error {
	entries, err := list(ctx, d.r, dir)
	if err != nil {
		return err
	}
	at := path.Join(append([]string{Root}, segments...)...)
	files := false
	for _, e := range entries {
		switch {
		case strings.HasPrefix(e.Name, "."):
		case e.Mode != gitobj.ModeTree:
			files = true
		case len(segments) == 2:
			return &Error{Path: at + "/" + e.Name, Reason: "too deep: a table is tables/<name> or tables/<namespace>/<name>"}
		default:
			if err := d.walk(ctx, e.OID, append(segments[:len(segments):len(segments)], e.Name)); err != nil {
				return err
			}
		}
	}
	if !files || len(segments) == 0 {
		return nil
	}
	name := strings.Join(segments, ".")
	for _, s := range segments {
		if strings.Contains(s, ".") {
			return &Error{Path: at, Reason: fmt.Sprintf("directory %q: a table's name has no dot", s)}
		}
	}
	if err := ValidName(name); err != nil {
		return &Error{Path: at, Reason: err.Error(), Err: err}
	}
	if other, ok := d.folded[strings.ToLower(name)]; ok {
		return &Error{Path: at, Reason: fmt.Sprintf("SQL cannot tell it from table %q: the names differ in case only", other)}
	}
	d.folded[strings.ToLower(name)] = name
	if len(d.tables) == maxTables {
		return &Error{Path: Root, Reason: fmt.Sprintf("more than %d tables", maxTables)}
	}
	t, err := load(ctx, d.r, dir, entries)
	var bad *Error
	if errors.As(err, &bad) {
		t = &Table{OID: dir, Unsound: &Error{Path: at, Reason: bad.Reason, Err: bad}}
	} else if err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	t.Name = name
	d.tables = append(d.tables, *t)
	return nil
}

func list(ctx context.Context, r objects.Reader, tree objects.OID) ([]gitobj.Entry, error) {
	data, err := objects.ReadAll(ctx, r, tree, objects.Tree, maxTree)
	if err != nil {
		return nil, err
	}
	return gitobj.ParseTree(data)
}
