package exec

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sort"
	"sync"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/sandbox"
)

// Session is one run's use of the runtime: a store to read from and write to, a
// cache, and limits. Results become cache entries only by Commit, which must be
// called after the store's objects are durable: an entry never names an object
// that a crash could take away. It is safe for concurrent use.
type Session struct {
	rt    *Runtime
	store Store
	cache *Cache
	opt   Options

	mu          sync.Mutex
	pending     map[Key]any
	prepared    map[string]place // by the group of what functions declare
	held        []func()         // release the environments of prepared
	projections projections
}

// Session starts a session on a store; Close ends it. cache may be nil. What functions are given
// that ask for nothing is at most the whole budget; one that asks for more is refused.
func (rt *Runtime) Session(store Store, cache *Cache, opt Options) *Session {
	opt.Limits.CPUs = min(opt.Limits.CPUs, rt.budget.CPUs)
	opt.Limits.Memory = min(opt.Limits.Memory, rt.budget.Memory)
	return &Session{
		rt: rt, store: store, cache: cache, opt: opt, pending: make(map[Key]any), prepared: make(map[string]place),
		projections: projections{made: make(map[Key]*projection)},
	}
}

// Commit stores the session's results in the cache.
func (s *Session) Commit() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cache == nil {
		return nil
	}
	if err := s.cache.putAll(s.pending); err != nil {
		return fmt.Errorf("action cache: %w", err)
	}
	clear(s.pending)
	return nil
}

// cached looks k up, unless the session was told not to. A cache that fails is a
// miss: it is there to save work, never to stop it.
func (s *Session) cached(k Key, v any) bool {
	if s.cache == nil || s.opt.NoCache {
		return false
	}
	ok, err := s.cache.get(k, v)
	if err != nil {
		s.rt.log.Warn("action cache entry unusable", "key", k.String(), "err", err)
	}
	return ok && err == nil
}

func (s *Session) remember(k Key, v any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending[k] = v
}

func (s *Session) forget(k Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pending, k)
}

// opReads is the operation of cache entries about what a query reads: its tables,
// its variables and the clock. Those of the operations "tables" and "reads"
// before it lack the one or the other.
const opReads = "tables, variables, clock"

// Tables implements plan.Declarer: which tables each query reads, by DuckDB's
// own parser in a sandbox, cached per query.
func (s *Session) Tables(ctx context.Context, queries []protocol.Query) ([]protocol.QueryTables, error) {
	out := make([]protocol.QueryTables, len(queries))
	keys := make([]Key, len(queries))
	var ask []protocol.Query
	var asked []int
	for i, q := range queries {
		keys[i] = action{Op: opReads, Code: q.SQL, Env: s.rt.env.Worker.String()}.key()
		if s.cached(keys[i], &out[i]) {
			out[i].Name = q.Name
			continue
		}
		ask, asked = append(ask, q), append(asked, i)
	}
	if len(ask) == 0 {
		return out, nil
	}
	answer, err := s.ask(ctx, sandbox.KindWorker, "", &protocol.Order{Op: protocol.OpTables, Queries: ask})
	if err != nil {
		return nil, fmt.Errorf("read the tables of %d queries: %w", len(ask), err)
	}
	if len(answer.Tables) != len(ask) {
		return nil, fmt.Errorf("asked for the tables of %d queries, worker answered %d", len(ask), len(answer.Tables))
	}
	for j, i := range asked {
		out[i] = answer.Tables[j]
		if out[i].Error == nil { // an error may be of the moment: memory, a fault of the worker
			s.remember(keys[i], out[i])
		}
	}
	return out, nil
}

// Declare implements plan.Declarer: the decorated functions of Python files,
// read in a sandbox without executing them, cached by the content of all files
// (a declaration depends on which other files can be imported).
func (s *Session) Declare(ctx context.Context, sources []protocol.Source) ([]protocol.Declaration, error) {
	py, err := s.rt.env.python("")
	if err != nil {
		return nil, &Failure{Kind: "error", Text: err.Error()}
	}
	all, err := json.Marshal(sources)
	if err != nil {
		return nil, err
	}
	key := action{Op: string(protocol.OpDeclare), Code: string(all), Env: py.Own.String()}.key()
	var out []protocol.Declaration
	if s.cached(key, &out) {
		return out, nil
	}
	answer, err := s.ask(ctx, sandbox.KindPython, "", &protocol.Order{Op: protocol.OpDeclare, Sources: sources})
	if err != nil {
		return nil, fmt.Errorf("read the declarations of %d Python files: %w", len(sources), err)
	}
	s.remember(key, answer.Declared)
	return answer.Declared, nil
}

// ask runs an order without inputs or files.
func (s *Session) ask(ctx context.Context, kind sandbox.Kind, python string, order *protocol.Order) (*protocol.Answer, error) {
	var u Usage
	return s.run(ctx, s.job(kind, python, s.opt.Limits, order), &u)
}

func noFiles(name string, size int64, _ io.Reader) error {
	return &protocol.FormatError{Reason: fmt.Sprintf("file %q of %d bytes where none belongs", name, size)}
}

// duckdbShare of a sandbox's memory is DuckDB's own; the rest is for the
// process around it, for Parquet buffers, and for /tmp.
const duckdbShare = 0.6

// job is a job without inputs, which takes no files and drops its log.
func (s *Session) job(kind sandbox.Kind, python string, lim sandbox.Limits, order *protocol.Order) sandbox.Job {
	order.MemoryLimit = int64(float64(lim.Memory) * duckdbShare)
	return sandbox.Job{Kind: kind, Python: python, Order: order, Limits: lim, Files: noFiles, Log: io.Discard}
}

// inputRoot is where a sandbox sees its inputs.
const inputRoot = "/in/"

// stage gives the order the tables and the job the files behind them. Part files
// are linked, never copied (objects.Linker).
func (s *Session) stage(ctx context.Context, job *sandbox.Job, bound []Bound) {
	for i, b := range bound {
		t := protocol.Table{Name: b.Input.Table, Param: b.Param, Columns: columnsOf(b.Table), Select: b.Columns, Filter: b.Filter}
		for j, oid := range b.Table.Parts {
			path := fmt.Sprintf("%d/%06d.parquet", i, j)
			t.Files = append(t.Files, inputRoot+path)
			job.Inputs = append(job.Inputs, sandbox.Input{Path: path, Link: func(host string) error {
				return s.store.Link(ctx, oid, host)
			}})
		}
		job.Order.Inputs = append(job.Order.Inputs, t)
	}
}

func columnsOf(t *Table) []protocol.Column {
	cols := make([]protocol.Column, len(t.Meta.Columns))
	for i, c := range t.Meta.Columns {
		cols[i] = protocol.Column{Name: c.Name, Type: c.Type, Nullable: c.Nullable}
	}
	return cols
}

// actionInputs lists the inputs of an action in an order that does not depend on
// how the code names them.
func actionInputs(bound []Bound) []actionInput {
	in := make([]actionInput, len(bound))
	for i, b := range bound {
		in[i] = actionInput{Name: b.Input.Table, Tree: b.Table.Tree.String(), Columns: b.Columns, Filter: b.Filter}
		if b.Table.Tree.IsZero() { // a table that is not there, but has columns: see hooks
			in[i].Empty = columnsOf(b.Table)
		}
	}
	sort.SliceStable(in, func(i, j int) bool { return in[i].Name < in[j].Name })
	return in
}

// spool keeps a function's output file on disk for the next sandbox: it is
// foreign bytes, so it goes into another sandbox unread.
func (s *Session) spool(path string) protocol.FileSink {
	used := false
	return func(name string, n int64, r io.Reader) error {
		if used {
			return &protocol.FormatError{Reason: fmt.Sprintf("a second file, %q", name)}
		}
		used = true
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
		if err != nil {
			return err
		}
		if _, err := io.Copy(f, r); err != nil {
			return fmt.Errorf("spool output: %w", joinClose(err, f))
		}
		return f.Close()
	}
}

func joinClose(err error, c io.Closer) error {
	if cerr := c.Close(); err == nil {
		return cerr
	}
	return err
}

// tempDir makes a directory for what passes between sandboxes; done removes it.
func (s *Session) tempDir() (dir string, done func(), err error) {
	dir, err = os.MkdirTemp(s.opt.TempDir, "pass-")
	if err != nil {
		return "", nil, err
	}
	return dir, func() {
		if err := os.RemoveAll(dir); err != nil {
			s.rt.log.Warn("remove temporary directory", "dir", dir, "err", err)
		}
	}, nil
}

// threads are those that a function asks for. It is one that does not ask: sums of
// floats by several threads do not repeat, so that is a choice of the code's.
func threads(own plan.Resources) int { return max(1, int(own.CPUs)) }

// limits are a function's own where it declares them, under the ceiling.
func (s *Session) limits(own plan.Resources) sandbox.Limits {
	l := s.opt.Limits
	if own.Memory > 0 {
		l.Memory = min(own.Memory, s.opt.Ceiling.Memory)
	}
	if own.Timeout > 0 {
		l.Timeout = min(own.Timeout, s.opt.Ceiling.Timeout)
	}
	if own.CPUs > 0 {
		l.CPUs = min(own.CPUs, s.opt.Ceiling.CPUs)
	}
	if own.Pids > 0 {
		l.Pids = min(own.Pids, s.opt.Ceiling.Pids)
	}
	return l
}

// ours are the limits of a sandbox that runs our own code for a function with
// limits lim. What the function asked for is what its code needs, and a stream needs
// little; the part that is cut of it is in memory as a whole.
func (s *Session) ours(lim sandbox.Limits) sandbox.Limits {
	lim.Memory = max(lim.Memory, s.opt.Limits.Memory)
	lim.Pids = max(lim.Pids, s.opt.Limits.Pids)
	return lim
}
