package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/objects/table"
)

type exportCmd struct {
	Table   string   `arg:"" name:"table" help:"Which table: flights, ns.flights, or flights@HEAD~3 for that of a revision."`
	Output  string   `short:"o" required:"" help:"Where to. A file that is there is replaced; - is the standard output; a name with a / at its end is a new directory, which gets the table's parts as they are." placeholder:"FILE"`
	Format  string   `help:"What to write, if the file's name does not say: ${enum}. arrow is Arrow's IPC file, arrows its stream." enum:"auto,parquet,csv,jsonl,arrow,arrows" default:"auto"`
	Columns []string `help:"Only these columns, in this order." placeholder:"A,B"`
	Where   string   `help:"Only rows for which this SQL expression is true." placeholder:"EXPR"`
	JSON    bool     `help:"Print one JSON object about what was written." name:"json"`
	Lake    string   `help:"The checkout's directory." default:"." type:"existingdir" placeholder:"DIR"`
	workerFlag
}

// Help is shown below the command's flags.
func (exportCmd) Help() string {
	return `Examples:
  headgate export flights -o flights.parquet
  headgate export flights@HEAD~3 -o old.csv --columns day,origin,delay --where 'delay > 60'
  headgate export flights -o - --format arrows | python3 read.py
  headgate export flights -o parts/

Rows are written in the table's order, as they are read: neither the table nor the
file is held in memory. The file appears whole, or not at all. Parquet and Arrow
keep every value; CSV and JSON lines have no types, and texts of what they lack.`
}

// exported is what --json prints.
type exported struct {
	Table  string `json:"table"`
	Output string `json:"output"`
	Format string `json:"format"`
	Rows   int64  `json:"rows"`
	Bytes  int64  `json:"bytes"`
}

// exportFormats are formats by the endings of files' names.
var exportFormats = map[string]string{
	".parquet": "parquet", ".parq": "parquet", ".pq": "parquet",
	".csv": "csv", ".json": "jsonl", ".jsonl": "jsonl", ".ndjson": "jsonl",
	".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow", ".arrows": "arrows",
}

const toParts = "parts" // the format of a directory

// Run writes the file.
func (c *exportCmd) Run(ctx context.Context, std streams) error {
	format, err := c.format()
	if err != nil {
		return err
	}
	if c.Output == "-" {
		switch {
		case c.JSON:
			return usagef("--json and -o - both print to the standard output: name a file")
		case format != "csv" && format != "jsonl" && isTerminal(std.out):
			return usagef("%s is not for a terminal: name a file, or add > FILE", format)
		}
	}
	lake, err := findCheckout(c.Lake)
	if err != nil {
		return err
	}
	t, err := lake.tableAt(ctx, c.Table)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "headgate-export-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	in, err := lake.input(ctx, c.workerFlag, t, tmp)
	if err != nil {
		return err
	}
	in.Select, in.Filter = c.Columns, c.Where
	done := exported{Table: c.Table, Output: c.Output, Format: format}
	switch {
	case format == toParts:
		snap, err := lake.snapshot(ctx, t)
		if err != nil {
			return err
		}
		err = c.parts(ctx, in, snap, &done)
		if err != nil {
			return err
		}
	case c.Output == "-":
		if err := c.rows(ctx, in, std.out, nil, &done); err != nil {
			return err
		}
		return nil
	default:
		bar := newProgress(std, c.JSON)
		err := writeWhole(c.Output, func(w io.Writer) error { return c.rows(ctx, in, w, bar, &done) })
		bar.end()
		if err != nil {
			return err
		}
	}
	if c.JSON {
		return printJSON(std.out, done)
	}
	_, err = fmt.Fprintf(std.out, "%s: %s, %s\n", c.Output, plural(done.Rows, "row"), byteSize(done.Bytes))
	return err
}

// format tells what to write.
func (c *exportCmd) format() (string, error) {
	if strings.HasSuffix(c.Output, "/") {
		if c.Format != "auto" && c.Format != "parquet" || c.Columns != nil || c.Where != "" {
			return "", usagef("a directory gets the table's parts as they are: no --format, --columns or --where")
		}
		return toParts, nil
	}
	if info, err := os.Stat(c.Output); err == nil && info.IsDir() {
		return "", usagef("%s is a directory: name a file in it, or a new directory with a / at its end", c.Output)
	}
	if c.Format != "auto" {
		return c.Format, nil
	}
	if f, ok := exportFormats[strings.ToLower(filepath.Ext(c.Output))]; ok {
		return f, nil
	}
	return "", usagef("what is %q to be? say --format parquet, csv, jsonl, arrow or arrows", c.Output)
}

// rows writes the table's rows to w. A nil bar shows nothing.
func (c *exportCmd) rows(ctx context.Context, in protocol.Table, w io.Writer, bar *progress, done *exported) error {
	format := done.Format
	if format == "jsonl" {
		format = "json" // to DuckDB
	}
	order := &protocol.Order{Op: protocol.OpExport, Inputs: []protocol.Table{in}, Format: format, Progress: bar != nil}
	answer, err := c.runWorker(ctx, order, func(_ string, _ int64, r io.Reader) error {
		n, err := io.Copy(w, r)
		done.Bytes += n
		bar.bytes(done.Bytes)
		return err
	}, bar.note)
	if err != nil {
		return err
	}
	done.Rows = answer.Rows
	return nil
}

// parts copies the table's parts into a new directory. Their names are in their order.
func (c *exportCmd) parts(ctx context.Context, in protocol.Table, snap *table.Snapshot, done *exported) error {
	dir := filepath.Clean(c.Output)
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is there already: name a new directory", dir)
	}
	if snap == nil {
		return fmt.Errorf("table %s has no %s yet: its parts are plain files, in %s", c.Table, table.FileName, table.Root)
	}
	stage := beside(dir)
	if err := os.MkdirAll(stage, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(stage)
	for i, from := range in.Files {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := copyFile(filepath.Join(stage, fmt.Sprintf("part-%06d.parquet", i)), from)
		if err != nil {
			return err
		}
		done.Bytes += n
	}
	done.Rows = snap.Rows()
	if err := os.Rename(stage, dir); err != nil {
		return err
	}
	return syncFiles([]string{filepath.Dir(dir)})
}

// copyFile copies a file durably, and returns its size.
func copyFile(to, from string) (n int64, err error) {
	r, err := os.Open(from)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, err
	}
	n, err = io.Copy(w, r)
	return n, errors.Join(err, w.Sync(), w.Close())
}

// beside returns a hidden name in the directory of path that nobody has.
func beside(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".headgate-"+rand.Text()[:10])
}

// writeWhole makes the file at path of what write writes: it appears whole and
// durable, in place of one that is there, or nothing is changed. What is no regular
// file, such as a pipe, is written to as it is.
func writeWhole(path string, write func(io.Writer) error) (err error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(write(f), f.Close())
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // the link stays
	}
	next := beside(path)
	f, err := os.OpenFile(next, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(next)
		}
	}()
	if err := errors.Join(write(f), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(next, path); err != nil {
		return err
	}
	return syncFiles([]string{filepath.Dir(path)})
}
