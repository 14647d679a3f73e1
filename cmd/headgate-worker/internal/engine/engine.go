// Package engine carries out the worker's orders with DuckDB in memory: it reads
// Parquet parts as tables, runs SQL, and cuts results into deterministic parts.
// It trusts neither the SQL nor the files, and does not know where they are from.
package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"sync"

	"github.com/headgate/headgate/exec/protocol"
)

// Engine is a DuckDB that waits for its order. Opening it takes most of what a
// small order takes, so a worker opens it before there is one. It is never closed:
// its process ends with the order, and an answer that waited until all memory is
// given back piece by piece would wait for one to two hundred calls into gVisor.
type Engine struct{ db *database }

// Open starts DuckDB and makes it load what every order needs.
func Open(ctx context.Context) (*Engine, error) {
	db, err := connect(ctx)
	if err != nil {
		return nil, err
	}
	// The first query pays for catalogs, the binder and the executor; here
	// nobody waits for it.
	if err := db.exec(ctx, "SELECT count(*) FROM range(1)"); err != nil {
		db.close()
		return nil, fmt.Errorf("start DuckDB: %w", err)
	}
	return &Engine{db: db}, nil
}

// Run carries out one order, the only one of this engine. Files and progress go to out as frames, and last
// the answer: what is wrong with the user's SQL or data is an answer too. The
// error means that none could be given, because out is broken. Causes that a user
// should not see go to log.
func (en *Engine) Run(ctx context.Context, order *protocol.Order, out, log io.Writer) error {
	return (&execution{order: order, out: out, partRows: targetWeight, db: en.db}).run(ctx, log)
}

func (e *execution) run(ctx context.Context, log io.Writer) error {
	answer, err := e.answer(ctx, log)
	var broken *outputError
	if errors.As(err, &broken) {
		return err
	}
	if err != nil {
		answer = &protocol.Answer{Error: userError(err)}
	}
	return protocol.WriteAnswer(e.out, answer)
}

// outputError is a failure to write frames: nobody is listening.
type outputError struct{ err error }

func (e *outputError) Error() string { return "write output: " + e.err.Error() }
func (e *outputError) Unwrap() error { return e.err }

// execution is one order being carried out.
type execution struct {
	order    *protocol.Order
	out      io.Writer
	partRows int64     // what parts are cut around, see chunking
	db       *database // opened for the order if it is nil
	dir      string    // private to the order; removed at its end

	windowRows int // of a diff without a key; windowRows of the package if 0

	sending sync.Mutex // a frame is written as a whole
}

func (e *execution) answer(ctx context.Context, log io.Writer) (a *protocol.Answer, err error) {
	// A fault of ours must not end without an answer: the server would take it
	// for a crash of the user's code.
	defer func() {
		if p := recover(); p != nil {
			fmt.Fprintf(log, "panic: %v\n%s\n", p, debug.Stack())
			a, err = nil, &protocol.UserError{Kind: kindInternal, Message: fmt.Sprintf("internal error of the worker in order %q; the log has the details", e.order.Op)}
		}
	}()
	op, ok := map[protocol.Op]func(context.Context) (*protocol.Answer, error){
		protocol.OpTables:   e.tables,
		protocol.OpModel:    e.model,
		protocol.OpCut:      e.cut,
		protocol.OpDescribe: e.describe,
		protocol.OpVerify:   e.verify,
		protocol.OpScore:    e.score,
		protocol.OpSuggest:  e.suggest,
		protocol.OpQuery:    e.query,
		protocol.OpExport:   e.export,
		protocol.OpProject:  e.project,
		protocol.OpTypes:    e.types,
		protocol.OpDiff:     e.diff,
		protocol.OpMerge:    e.merge,
	}[e.order.Op]
	if !ok {
		return nil, &protocol.UserError{Kind: kindInternal, Message: fmt.Sprintf("the worker does not know the order %q", e.order.Op)}
	}
	if e.dir, err = os.MkdirTemp(e.order.TempDir, "headgate-"); err != nil {
		return nil, fmt.Errorf("make a temporary directory: %w", err)
	}
	defer os.RemoveAll(e.dir)
	if e.db == nil {
		if e.db, err = connect(ctx); err != nil {
			return nil, err
		}
		defer e.db.close()
	}
	if err := e.db.prepare(ctx, e.order, e.dir); err != nil {
		return nil, err
	}
	return op(ctx)
}

// sendFile sends the file at path as a frame and removes it.
func (e *execution) sendFile(name, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := e.sendBytes(name, info.Size(), f); err != nil {
		return err
	}
	return os.Remove(path)
}

func (e *execution) sendBytes(name string, size int64, r io.Reader) error {
	e.sending.Lock()
	defer e.sending.Unlock()
	if err := protocol.WriteFile(e.out, name, size, r); err != nil {
		return &outputError{err}
	}
	return nil
}

func (e *execution) note(format string, args ...any) error {
	e.sending.Lock()
	defer e.sending.Unlock()
	if err := protocol.WriteNote(e.out, fmt.Sprintf(format, args...)); err != nil {
		return &outputError{err}
	}
	return nil
}
