package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/objects/table"
)

type importCmd struct {
	Files   []string `arg:"" name:"file" help:"Parquet, CSV, JSON lines or Arrow IPC files; a quoted pattern (\"*.csv\") works too. Their rows go in this order."`
	Table   string   `help:"The table's name: flights, or ns.flights." required:"" placeholder:"NAME"`
	Key     []string `help:"Columns that identify a row. The rows are then stored in the key's order." placeholder:"A,B"`
	Append  bool     `help:"Add the rows to the table that is there." xor:"how"`
	Replace bool     `help:"Put the rows in place of the table that is there." xor:"how"`
	Format  string   `help:"What the files are, if their names do not say: ${enum}." enum:"auto,parquet,csv,json,arrow" default:"auto"`
	JSON    bool     `help:"Print one JSON object." name:"json"`
	csvFlags
	Lake string `help:"The checkout's directory." default:"." type:"existingdir" placeholder:"DIR"`
	workerFlag
}

// Help is shown below the command's flags.
func (importCmd) Help() string {
	return `Examples:
  headgate import airports.csv --table airports --key iata
  headgate import january.parquet february.parquet --table flights --replace
  headgate import 'logs/*.jsonl' --table events --append
  headgate import kasse.csv --table sales --csv-delimiter ';' --csv-decimal-comma --csv-encoding latin-1

Of CSV all is found out by looking at the whole file; the --csv flags say otherwise.

Writes tables/NAME/table.json and its parts into the checkout, all or nothing;
git add and git commit are yours.`
}

// imported is what --json prints.
type imported struct {
	Table   string         `json:"table"`
	Dir     string         `json:"dir"`
	Rows    int64          `json:"rows"`
	Parts   int            `json:"parts"`
	Bytes   int64          `json:"bytes"`
	Key     []string       `json:"key"`
	Columns []table.Column `json:"columns"`
}

// Run cuts the files into a snapshot and puts it into the checkout.
func (c *importCmd) Run(ctx context.Context, std streams) error {
	rel, err := table.Dir(c.Table)
	if err != nil {
		return usagef("%v", err)
	}
	files, format, err := c.sources()
	if err != nil {
		return err
	}
	lake, err := findCheckout(c.Lake)
	if err != nil {
		return err
	}
	dir := filepath.Join(lake.root, filepath.FromSlash(rel))
	old, err := c.existing(ctx, lake, rel)
	if err != nil {
		return err
	}
	// On the lake's own file system, so that parts can be renamed into place.
	stage, err := os.MkdirTemp(lake.root, ".headgate-import-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(stage)
	bar := newProgress(std, c.JSON)
	defer bar.end()
	note := bar.note
	snap, parts, err := c.cut(ctx, cutting{files: files, format: format, key: c.Key}, stage, note)
	if err != nil {
		return err
	}
	if c.Append && old != nil {
		if snap, parts, err = c.extend(ctx, lake, old, snap, parts, stage, note); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := install(dir, snap, parts); err != nil {
		return err
	}
	bar.end()
	return c.report(std, rel, snap)
}

func (c *importCmd) report(std streams, rel string, snap *table.Snapshot) error {
	var bytes int64
	for _, p := range snap.Parts {
		bytes += p.Bytes
	}
	if c.JSON {
		return printJSON(std.out, imported{c.Table, rel, snap.Rows(), len(snap.Parts), bytes, append([]string{}, snap.Key...), snap.Columns})
	}
	_, err := fmt.Fprintf(std.out, "%s: %s in %s, %s\nNext: git add %s && git commit\n",
		rel, plural(snap.Rows(), "row"), plural(int64(len(snap.Parts)), "part"), byteSize(bytes), rel)
	return err
}

// sources expands patterns and tells the one format of all files.
func (c *importCmd) sources() (files []string, format string, err error) {
	for _, arg := range c.Files {
		matches := []string{arg}
		if _, err := os.Stat(arg); errors.Is(err, fs.ErrNotExist) {
			if matches, err = filepath.Glob(arg); err != nil {
				return nil, "", usagef("pattern %q: %v", arg, err)
			}
			if len(matches) == 0 {
				return nil, "", fmt.Errorf("no such file: %q", arg)
			}
			sort.Strings(matches)
		}
		for _, m := range matches {
			abs, err := filepath.Abs(m)
			if err != nil {
				return nil, "", err
			}
			files = append(files, abs)
		}
	}
	if c.Format != "auto" {
		return files, c.Format, nil
	}
	for _, f := range files {
		got := formatOf(f)
		switch {
		case got == "":
			return nil, "", usagef("what is %q? say --format parquet, csv, json or arrow", filepath.Base(f))
		case format != "" && got != format:
			return nil, "", usagef("%s and %s files in one import; import one kind, then the other with --append", format, got)
		}
		format = got
	}
	return files, format, nil
}

// formatOf tells a file's format by its name; gzip is seen through.
func formatOf(path string) string {
	name := strings.TrimSuffix(strings.ToLower(path), ".gz")
	switch filepath.Ext(name) {
	case ".parquet", ".parq", ".pq":
		return "parquet"
	case ".csv", ".tsv", ".txt":
		return "csv"
	case ".json", ".jsonl", ".ndjson":
		return "json"
	case ".arrow", ".arrows", ".feather", ".ipc":
		return "arrow"
	}
	return ""
}

// existing returns the table that is there, nil if there is none. It is an error
// if there is one and the user did not say what is to become of it.
func (c *importCmd) existing(ctx context.Context, lake *checkout, rel string) (*localTable, error) {
	tables, err := lake.tablesOnDisk()
	if err != nil {
		return nil, err
	}
	old := tables[strings.ToLower(c.Table)]
	if old == nil {
		return nil, nil
	}
	if old.name != c.Table {
		return nil, fmt.Errorf("the table is called %q here; names that differ in case only are one name in SQL", old.name)
	}
	if !c.Append && !c.Replace {
		return nil, fmt.Errorf("%s is there already; say --append or --replace", rel)
	}
	if c.Append && c.Key == nil {
		snap, err := lake.snapshot(ctx, old)
		if err != nil {
			return nil, err
		}
		if snap != nil {
			c.Key = snap.Key
		}
	}
	return old, nil
}

// cutting is one order to the worker that cuts files into parts.
type cutting struct {
	files  []string
	format string
	key    []string
	// What the rows are added to: the parts of it that the worker must see, and
	// what is known of each by its path.
	prior *protocol.Table
	known map[string]table.Part
}

// cut has the worker write the files' rows as parts into stage. parts maps a
// part's name to its path.
func (c *importCmd) cut(ctx context.Context, w cutting, stage string, note func(string)) (*table.Snapshot, map[string]string, error) {
	dir, err := os.MkdirTemp(stage, "cut-")
	if err != nil {
		return nil, nil, err
	}
	order := &protocol.Order{
		Op: protocol.OpCut, Files: w.files, FileFormat: w.format, Key: w.key,
		Progress:  true,
		TempDir:   stage,           // what does not fit into memory: on the lake's disk, not in a /tmp that may be memory
		KeepOrder: len(w.key) == 0, // without a key the order of the rows is the user's
	}
	if w.format == "csv" {
		order.CSV = c.csvFlags.options()
	}
	if w.prior != nil {
		order.Prior, order.Strategy = w.prior, "APPEND"
	}
	answer, err := c.runWorker(ctx, order, func(name string, size int64, r io.Reader) error {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		return errors.Join(err, f.Close()) // install makes them durable, many at a time
	}, note)
	if err != nil {
		return nil, nil, err
	}
	if answer.Snapshot == nil {
		return nil, nil, errors.New("the worker gave no snapshot")
	}
	return nameParts(answer.Snapshot, w, dir)
}

// nameParts makes the table's own description of what the worker wrote into dir.
func nameParts(found *protocol.Snapshot, w cutting, dir string) (*table.Snapshot, map[string]string, error) {
	snap := &table.Snapshot{Format: table.Format, Key: w.key}
	for _, col := range found.Columns {
		snap.Columns = append(snap.Columns, table.Column{Name: col.Name, Type: col.Type, Nullable: col.Nullable})
	}
	parts := make(map[string]string, len(found.Parts))
	for _, p := range found.Parts {
		if known, ok := w.known[p.File]; ok {
			snap.Parts = append(snap.Parts, known)
			continue
		}
		path := filepath.Join(dir, filepath.Base(p.File))
		oid, size, err := blobOID(path)
		if err != nil {
			return nil, nil, err
		}
		part := table.Part{File: table.PartName(oid), Rows: p.Rows, Bytes: size}
		for _, st := range p.Stats {
			part.Columns = append(part.Columns, table.Stats{Nulls: st.Nulls, Min: st.Min, Max: st.Max})
		}
		snap.Parts = append(snap.Parts, part)
		parts[part.File] = path
	}
	return snap, parts, nil
}

// extend puts the new rows, which are cut already, into the old table: behind it,
// or where their keys belong. Parts that stay as they are cost nothing. Where
// columns differ all rows are cut again, which widens numbers and says clearly
// what does not fit.
func (c *importCmd) extend(ctx context.Context, lake *checkout, old *localTable, snap *table.Snapshot, parts map[string]string, stage string, note func(string)) (*table.Snapshot, map[string]string, error) {
	was, err := lake.snapshot(ctx, old)
	if err != nil {
		return nil, nil, err
	}
	in, err := lake.input(ctx, c.workerFlag, old, stage)
	if err != nil {
		return nil, nil, err
	}
	var added []string
	for _, p := range snap.Parts {
		added = append(added, parts[p.File])
	}
	if was == nil || !slices.Equal(was.Key, c.Key) || !slices.EqualFunc(was.Columns, snap.Columns, sameColumn) {
		return c.cut(ctx, cutting{files: append(slices.Clone(in.Files), added...), format: "parquet", key: c.Key}, stage, note)
	}
	unread := 0
	if len(c.Key) == 0 {
		unread = max(len(in.Files)-1, 0) // rows go on in the last part
	}
	w := cutting{files: added, format: "parquet", key: c.Key, known: make(map[string]table.Part, len(in.Files))}
	for i, path := range in.Files[unread:] {
		w.known[path] = was.Parts[unread+i]
	}
	in.Files = in.Files[unread:]
	w.prior = &in
	next, parts, err := c.cut(ctx, w, stage, note)
	if err != nil {
		return nil, nil, err
	}
	next.Parts = append(slices.Clone(was.Parts[:unread]), next.Parts...)
	next.Columns = slices.Clone(was.Columns)
	for i := range next.Columns {
		next.Columns[i].Nullable = was.Columns[i].Nullable || snap.Columns[i].Nullable
	}
	return next, parts, nil
}

func sameColumn(a, b table.Column) bool { return a.Name == b.Name && a.Type == b.Type }

// syncsAtOnce is how many files are made durable at a time: waiting for the disk
// overlaps well, and a table has hundreds of parts.
const syncsAtOnce = 8

func syncFiles(paths []string) error {
	var g errgroup.Group
	g.SetLimit(syncsAtOnce)
	for _, path := range paths {
		g.Go(func() error {
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			return errors.Join(f.Sync(), f.Close())
		})
	}
	return g.Wait()
}

// install puts a snapshot into the table's directory. The new table.json is what
// makes it the table: until it is renamed into place the old table stands whole,
// with files beside it that it does not name, and after a failure not even those.
func install(dir string, snap *table.Snapshot, parts map[string]string) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var added []string
	defer func() {
		if err != nil {
			for _, path := range added {
				_ = os.Remove(path)
			}
			_ = os.Remove(dir) // only if it is empty
		}
	}()
	wanted := make(map[string]bool, len(snap.Parts))
	for _, p := range snap.Parts {
		wanted[p.File] = true
		from, ok := parts[p.File]
		path := filepath.Join(dir, p.File)
		if !ok {
			continue
		}
		if _, err := os.Stat(path); err == nil {
			continue // the same content by name
		}
		if err := os.Rename(from, path); err != nil {
			return err
		}
		added = append(added, path)
	}
	if err := syncFiles(added); err != nil {
		return err
	}
	next := filepath.Join(dir, "."+table.FileName+".new")
	added = append(added, next)
	if err := os.WriteFile(next, snap.Encode(), 0o644); err != nil {
		return err
	}
	if err := syncFiles([]string{next}); err != nil {
		return err
	}
	if err := os.Rename(next, filepath.Join(dir, table.FileName)); err != nil {
		return err
	}
	added = nil
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".parquet") && !wanted[e.Name()] {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
