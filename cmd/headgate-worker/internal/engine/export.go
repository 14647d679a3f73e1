package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/duckdb/duckdb-go/v2/mapping"

	"github.com/headgate/headgate/cmd/headgate-worker/internal/arrowfile"
	"github.com/headgate/headgate/cmd/headgate-worker/internal/rowhash"
	"github.com/headgate/headgate/exec/protocol"
)

// pieceBytes is the size of the frames in which a long file leaves.
const pieceBytes = 1 << 20

// export sends the rows of its one input, in their order, as one file in pieces:
// nothing of it is kept, neither in memory nor on disk.
func (e *execution) export(ctx context.Context) (*protocol.Answer, error) {
	if len(e.order.Inputs) != 1 {
		return nil, dataError("want one table")
	}
	in := e.order.Inputs[0]
	source, err := e.db.inputQuery(ctx, in)
	if err != nil {
		return nil, err
	}
	columns, err := e.db.describeQuery(ctx, source)
	if err != nil {
		return nil, fileError(err)
	}
	if err := checkNames(columns); err != nil {
		return nil, err
	}
	out := &pieces{e: e}
	stop, err := e.watch(ctx, "writing")
	if err != nil {
		return nil, err
	}
	defer stop()
	var rows int64
	switch e.order.Format {
	case "csv":
		rows, err = e.exportCopy(ctx, source, "FORMAT csv, HEADER true", out)
	case "json":
		rows, err = e.exportCopy(ctx, source, "FORMAT json", out)
	case "parquet":
		options := "FORMAT parquet, COMPRESSION zstd"
		if has, err := e.db.hasNegativeZero(ctx, source, columns); err != nil {
			return nil, fileError(err)
		} else if has {
			options += ", DICTIONARY_SIZE_LIMIT 0" // see plainOptions
		}
		rows, err = e.exportCopy(ctx, source, options, out)
	case "arrow", "arrows":
		rows, err = e.exportArrow(ctx, source, out)
	default:
		return nil, dataError("format %q: want parquet, csv, json, arrow or arrows", e.order.Format)
	}
	if err != nil {
		return nil, fileError(err)
	}
	stop()
	if err := out.flush(); err != nil {
		return nil, err
	}
	return &protocol.Answer{Rows: rows, Columns: columns}, nil
}

// pieces is a file that is sent in frames while it is written.
type pieces struct {
	e *execution
	b bytes.Buffer
}

func (p *pieces) Write(b []byte) (int, error) {
	p.b.Write(b)
	if p.b.Len() < pieceBytes {
		return len(b), nil
	}
	return len(b), p.flush()
}

func (p *pieces) flush() error {
	if p.b.Len() == 0 {
		return nil
	}
	return p.e.sendBytes(resultFile, int64(p.b.Len()), &p.b)
}

// exportCopy has DuckDB write into a pipe, from which out gets it.
func (e *execution) exportCopy(ctx context.Context, source, options string, out *pieces) (int64, error) {
	path := filepath.Join(e.dir, "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		return 0, fmt.Errorf("make a pipe: %w", err)
	}
	// Neither waits for the other end, and with our own writer open the reader finds
	// no end before DuckDB has begun.
	reader, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	defer reader.Close()
	writer, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return 0, err
	}
	defer writer.Close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	read := make(chan error, 1)
	go func() {
		_, err := io.Copy(out, reader)
		if err != nil {
			stop()         // nobody listens
			reader.Close() // and DuckDB must not wait for us
		}
		read <- err
	}()
	rows, err := e.db.copyTo(ctx, source, path, options)
	closed := writer.Close()
	if failed := <-read; failed != nil {
		return 0, failed
	}
	return rows, errors.Join(err, closed)
}

// hasNegativeZero reports whether some row of a query holds a -0.0.
func (db *database) hasNegativeZero(ctx context.Context, source string, columns []protocol.Column) (bool, error) {
	list := identifiers(floatColumns(columns))
	if list == "" {
		return false, nil
	}
	var has bool
	err := db.conn.QueryRowContext(ctx, fmt.Sprintf("SELECT EXISTS (SELECT 1 FROM (%s) WHERE %s(%s) <> %s(%s))", source, rowhash.Hash, list, rowhash.Exact, list)).Scan(&has)
	return has, err
}

// floatColumns returns the names of columns that may hold a float.
func floatColumns(columns []protocol.Column) []string {
	var floats []string
	for _, c := range columns {
		if isFloat(c.Type) {
			floats = append(floats, c.Name)
		}
	}
	return floats
}

// exportArrow sends Arrow's IPC format.
func (e *execution) exportArrow(ctx context.Context, source string, out io.Writer) (rows int64, err error) {
	err = e.db.withHandle(func(conn mapping.Connection) error {
		rows, err = arrowfile.Write(ctx, conn, source, out, e.order.Format == "arrows")
		return err
	})
	return rows, err
}

// withHandle lends the C connection to f, which must not keep it.
func (db *database) withHandle(f func(mapping.Connection) error) error {
	return db.conn.Raw(func(driver any) error {
		handle, err := rowhash.Handle(driver)
		if err != nil {
			return err
		}
		return f(handle)
	})
}

// arrowViews makes a view of each Arrow file, and returns the query of all their rows
// in order. explain gives a failure of that query its cause, and close ends it.
func (e *execution) arrowViews(ctx context.Context, paths []string) (query string, explain func(error) error, end func(), err error) {
	var readers []*arrowfile.Reader
	var ends []func()
	closeAll := func() {
		for _, f := range ends {
			f()
		}
	}
	explain = func(err error) error {
		for i, r := range readers {
			if cause := r.Err(); err != nil && cause != nil {
				return dataError("%s: %v", paths[i], cause)
			}
		}
		return err
	}
	defer func() {
		if err != nil {
			closeAll()
		}
	}()
	same := make(columnTypes)
	var selects []string
	for i, path := range paths {
		r, err := arrowfile.Open(path)
		if err != nil {
			return "", nil, nil, dataError("%s: %v", path, err)
		}
		readers = append(readers, r)
		ends = append(ends, func() { _ = r.Close() })
		name := fmt.Sprintf("arrow file %d", i)
		err = e.db.withHandle(func(conn mapping.Connection) error {
			release, err := r.View(conn, name)
			if err == nil {
				ends = append([]func(){release}, ends...)
			}
			return err
		})
		if err != nil {
			return "", nil, nil, dataError("%s: %v", path, err)
		}
		view := "SELECT * FROM " + identifier(name)
		columns, err := e.db.describeQuery(ctx, view)
		if err != nil {
			return "", nil, nil, inFile(fileError(err), path)
		}
		if err := same.add(columns, path); err != nil {
			return "", nil, nil, err
		}
		selects = append(selects, view)
	}
	return strings.Join(selects, "\nUNION ALL BY NAME\n"), explain, closeAll, nil
}
