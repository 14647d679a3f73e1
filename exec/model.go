package exec

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/sandbox"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/table"
)

// Sink receives what a function says while it runs.
type Sink struct {
	Log  io.Writer    // standard error, capped by the sandbox's limit
	Note func(string) // progress lines
}

// Result is a model's output.
type Result struct {
	Table  *Table
	Env    objects.OID
	Cached bool
	Usage  Usage
	// Warnings say what is not as the model's columns declare it (see Contract).
	Warnings []string

	key Key
}

// Arguments are what a model is evaluated on.
type Arguments struct {
	Inputs []Bound
	Prior  *Table         // what the model's strategy builds on; nil if there is none
	Params map[string]any // the values of its declared parameters, by argument
	// Secrets are those that it declares and is given, by argument.
	Secrets map[string]Secret
}

// Secret is a value that goes to one function and nowhere else.
type Secret struct {
	Value  string
	Digest string // keyed: what a cache key may hold of it
}

// digests returns what cache keys hold of secrets, by argument.
func digests(secrets map[string]Secret) map[string]string {
	if len(secrets) == 0 {
		return nil
	}
	out := make(map[string]string, len(secrets))
	for argument, s := range secrets {
		out[argument] = s.Digest
	}
	return out
}

// valuesOf returns the secrets as an order holds them.
func valuesOf(secrets map[string]Secret) map[string]string {
	out := make(map[string]string, len(secrets))
	for argument, s := range secrets {
		out[argument] = s.Value
	}
	return out
}

// modelEntry is a model's cache entry.
type modelEntry struct {
	Tree string `json:"tree"`
}

// Model evaluates a model on its arguments and stores the output snapshot: the
// whole table, of which what the function gave is a part if there is a prior.
func (s *Session) Model(ctx context.Context, m *plan.Model, args Arguments, out Sink) (*Result, error) {
	at, err := s.placeOf(m.Kind, &m.Declared)
	if err != nil {
		return nil, err
	}
	res := &Result{Env: at.env}
	act := action{Op: "model", Code: m.Code.String(), Env: at.env.String(), Inputs: actionInputs(args.Inputs), Params: args.Params, Secrets: digests(args.Secrets)}
	if args.Prior != nil {
		act.Prior = args.Prior.Tree.String()
	}
	res.key = act.key()
	var entry modelEntry
	if s.cached(res.key, &entry) {
		if t, err := s.loadCached(ctx, entry.Tree); err == nil {
			res.Table, res.Cached = t, true
			res.Warnings, err = s.Contract(ctx, m, t)
			return res, err
		}
		// Its objects are gone: a miss, and the new entry will replace it.
	}
	if res.Table, err = s.compute(ctx, m, args, out, &res.Usage); err != nil {
		return res, withUsage(err, &res.Usage)
	}
	if len(res.Usage.Violations) == 0 {
		// What the gate refuses for its violations must not come back from the
		// cache as a result without any.
		s.remember(res.key, modelEntry{Tree: res.Table.Tree.String()})
	}
	if res.Warnings, err = s.Contract(ctx, m, res.Table); err != nil {
		return res, withUsage(err, &res.Usage)
	}
	return res, nil
}

func (s *Session) compute(ctx context.Context, m *plan.Model, args Arguments, out Sink, u *Usage) (*Table, error) {
	if m.Kind == plan.KindPython {
		return s.pythonModel(ctx, m, args, out, u)
	}
	return s.sqlModel(ctx, m, args, out, u)
}

// Repeat evaluates a model once more, in new sandboxes, on the arguments that
// gave first, and adds to first's usage. It returns what came out now. If that is
// another snapshot, or none, first is no function of its arguments: the session
// forgets it, since an entry of the action cache says that it is one.
func (s *Session) Repeat(ctx context.Context, m *plan.Model, args Arguments, first *Result, out Sink) (*Table, error) {
	again, err := s.compute(ctx, m, args, out, &first.Usage)
	if err != nil || again.Tree != first.Table.Tree || len(first.Usage.Violations) > 0 {
		s.forget(first.key)
	}
	return again, withUsage(err, &first.Usage)
}

func (s *Session) loadCached(ctx context.Context, tree string) (*Table, error) {
	oid, err := objects.ParseOID(tree)
	if err != nil {
		return nil, err
	}
	return LoadTable(ctx, s.store, oid)
}

// withUsage gives a failure what the function cost until it failed.
func withUsage(err error, u *Usage) error {
	if f, ok := err.(*Failure); ok {
		f.Usage = *u
	}
	return err
}

func (s *Session) sqlModel(ctx context.Context, m *plan.Model, args Arguments, out Sink, u *Usage) (*Table, error) {
	job := s.job(sandbox.KindWorker, "", s.limits(m.Resources), &protocol.Order{
		Op: protocol.OpModel, SQL: m.SQL, Key: m.Key, Params: args.Params, ParamTypes: typesOf(m.Params),
		Threads: threads(m.Resources),
	})
	job.Log, job.Note = limited(out.Log), out.Note
	s.stage(ctx, &job, args.Inputs)
	t, err := s.cut(ctx, m, job, args.Prior, u)
	return t, inFile(err, m.Path)
}

// inFile tells where a query's error is: the worker knows lines of the query,
// the plan knows the file.
func inFile(err error, path string) error {
	f, ok := err.(*Failure)
	if !ok || f.Detail == nil {
		return err
	}
	if f.Detail.File == "" {
		f.Detail.File = path
	}
	f.Text = Describe(f.Detail)
	return err
}

// pythonModel runs the function on its inputs, then cuts what it returned in a
// second sandbox: the first one ran foreign code, so nothing it says about its
// own bytes counts.
func (s *Session) pythonModel(ctx context.Context, m *plan.Model, args Arguments, out Sink, u *Usage) (*Table, error) {
	at, err := s.placeOf(m.Kind, &m.Declared)
	if err != nil {
		return nil, err
	}
	dir, done, err := s.tempDir()
	if err != nil {
		return nil, err
	}
	defer done()
	lim := s.limits(m.Resources)
	params, types := forFunction(m.Params, args.Params)
	job := s.job(sandbox.KindPython, at.python, lim, &protocol.Order{
		Op: protocol.OpPyModel, Path: codeRoot, Module: m.Path, Function: m.Function, Params: params, ParamTypes: types,
		Secrets: valuesOf(args.Secrets), Threads: int(lim.CPUs), // what it returns is put into an order of its own
	})
	job.Packages, job.Log, job.Note = at.packages, limited(out.Log), out.Note
	job.Files = s.spool(filepath.Join(dir, "output.parquet"))
	if err := s.stageProjected(ctx, &job, withVariables(args.Inputs, m.Params, args.Params), u); err != nil {
		return nil, inFile(err, m.Path)
	}
	s.stageCode(ctx, &job, m.Files)
	if _, err := s.run(ctx, job, u); err != nil {
		return nil, err
	}
	raw := filepath.Join(dir, "output.parquet")
	if _, err := os.Stat(raw); err != nil {
		return nil, &Failure{Kind: "crash", Text: fmt.Sprintf("%s: %s returned no table", m.Path, m.Function)}
	}
	cut := s.job(sandbox.KindWorker, "", s.ours(lim), &protocol.Order{Op: protocol.OpCut, FileFormat: "parquet", Files: []string{inputRoot + "output.parquet"}, Key: m.Key})
	cut.Inputs, cut.Note = []sandbox.Input{linkFile("output.parquet", raw)}, out.Note
	cut.Log = limited(out.Log)
	t, err := s.cut(ctx, m, cut, args.Prior, u)
	return t, inFile(err, m.Path)
}

// typesOf returns the declared types of parameters by argument.
func typesOf(params []plan.Param) map[string]string {
	types := make(map[string]string)
	for _, p := range params {
		if p.Type != "" {
			types[p.Param] = p.Type
		}
	}
	return types
}

// codeRoot is where a sandbox sees the lake's Python files.
const codeRoot = inputRoot + "code"

func (s *Session) stageCode(ctx context.Context, job *sandbox.Job, files []plan.File) {
	for _, f := range files {
		job.Inputs = append(job.Inputs, sandbox.Input{Path: "code/" + f.Path, Link: func(host string) error {
			return s.store.Link(ctx, f.OID, host)
		}})
	}
}

func linkFile(path, from string) sandbox.Input {
	return sandbox.Input{Path: path, Link: func(host string) error { return os.Link(from, host) }}
}

// cut runs a job that answers with the snapshot of the model's table, and stores it.
func (s *Session) cut(ctx context.Context, m *plan.Model, job sandbox.Job, prior *Table, u *Usage) (*Table, error) {
	parts := make(map[string]storedPart)
	job.Files = func(name string, n int64, r io.Reader) error {
		oid, err := s.store.Put(ctx, objects.Blob, n, r)
		if err != nil {
			return fmt.Errorf("store part: %w", err)
		}
		parts[name] = storedPart{oid: oid, bytes: n}
		return nil
	}
	var first []protocol.Part // of the prior, which the worker need not see
	if prior != nil {
		first = s.stagePrior(ctx, m, &job, prior, parts)
	}
	answer, err := s.run(ctx, job, u)
	if err != nil {
		return nil, err
	}
	if answer.Snapshot == nil {
		return nil, fmt.Errorf("worker answered %s without a snapshot", job.Order.Op)
	}
	answer.Snapshot.Parts = withoutEmpty(append(first, answer.Snapshot.Parts...), parts)
	return s.writeSnapshot(ctx, answer.Snapshot, m.Key, parts, nil)
}

// stagePrior gives a job the table that its result is combined with. Rows that
// are added at the end, with no key to hold over all of them, need only its last
// part, which they go on in: then the parts before it are returned, to be put before
// what the job sends, and the cost is that of the new rows.
func (s *Session) stagePrior(ctx context.Context, m *plan.Model, job *sandbox.Job, prior *Table, parts map[string]storedPart) []protocol.Part {
	job.Order.Strategy, job.Order.PartitionedBy = m.Strategy, m.PartitionedBy
	t := &protocol.Table{Name: m.Name, Columns: columnsOf(prior)}
	job.Order.Prior = t
	unread := 0 // parts that the job need not see
	if m.Strategy == plan.StrategyAppend && len(m.Key) == 0 {
		unread = len(prior.Parts) - 1
	}
	var first []protocol.Part
	for i, oid := range prior.Parts {
		path := fmt.Sprintf("prior/%06d.parquet", i)
		parts[inputRoot+path] = storedPart{oid: oid, bytes: prior.Meta.Parts[i].Bytes, known: &prior.Meta.Parts[i]}
		if i < unread {
			first = append(first, protocol.Part{File: inputRoot + path})
			continue
		}
		t.Files = append(t.Files, inputRoot+path)
		job.Inputs = append(job.Inputs, sandbox.Input{Path: path, Link: func(host string) error {
			return s.store.Link(ctx, oid, host)
		}})
	}
	return first
}

// withoutEmpty leaves out parts of a prior that have no row, which carried the
// schema of an empty table, once there are others.
func withoutEmpty(list []protocol.Part, stored map[string]storedPart) []protocol.Part {
	rest := slices.DeleteFunc(slices.Clone(list), func(p protocol.Part) bool {
		known := stored[p.File].known
		return known != nil && known.Rows == 0
	})
	if len(rest) == 0 {
		return list[:min(len(list), 1)]
	}
	return rest
}

type storedPart struct {
	oid   objects.OID
	bytes int64
	known *table.Part // what is known of a part of the prior; the worker says nothing of it
}

// writeSnapshot stores table.json and the table's tree. keep holds entries of
// the tree that are not parts (a README, say).
func (s *Session) writeSnapshot(ctx context.Context, snap *protocol.Snapshot, key []string, parts map[string]storedPart, keep []gitobj.Entry) (*Table, error) {
	meta, oids, entries, err := tableOf(snap, key, parts)
	if err != nil {
		return nil, err
	}
	doc := meta.Encode()
	if _, err := table.Parse(doc); err != nil {
		// What the worker says came out of a sandbox; it is held to the rules
		// of a pushed table.json.
		return nil, &Failure{Kind: "error", Text: fmt.Sprintf("the result cannot be stored as a table: %v", err)}
	}
	metaOID, err := putBytes(ctx, s.store, objects.Blob, doc)
	if err != nil {
		return nil, err
	}
	entries = append(entries, keep...)
	entries = append(entries, gitobj.Entry{Name: table.FileName, Mode: gitobj.ModeFile, OID: metaOID})
	data, err := gitobj.EncodeTree(entries)
	if err != nil {
		return nil, err
	}
	tree, err := putBytes(ctx, s.store, objects.Tree, data)
	if err != nil {
		return nil, err
	}
	return &Table{Tree: tree, Meta: meta, Parts: oids}, nil
}

// tableOf names the parts by what was really stored.
func tableOf(snap *protocol.Snapshot, key []string, parts map[string]storedPart) (*table.Snapshot, []objects.OID, []gitobj.Entry, error) {
	meta := &table.Snapshot{Format: table.Format}
	for _, c := range snap.Columns {
		meta.Columns = append(meta.Columns, table.Column{Name: c.Name, Type: c.Type, Nullable: c.Nullable})
	}
	for _, k := range key {
		// As SQL names columns, without regard to case; table.json has their own spelling.
		if i := slices.IndexFunc(meta.Columns, func(c table.Column) bool { return strings.EqualFold(c.Name, k) }); i >= 0 {
			k = meta.Columns[i].Name
		}
		meta.Key = append(meta.Key, k)
	}
	var oids []objects.OID
	var entries []gitobj.Entry
	seen := make(map[string]bool)
	for _, p := range snap.Parts {
		stored, ok := parts[p.File]
		if !ok {
			return nil, nil, nil, fmt.Errorf("worker named part %q, which it did not send", p.File)
		}
		name := table.PartName(stored.oid)
		part := table.Part{File: name, Rows: p.Rows, Bytes: stored.bytes}
		for _, st := range p.Stats {
			part.Columns = append(part.Columns, table.Stats{Nulls: st.Nulls, Min: st.Min, Max: st.Max})
		}
		if stored.known != nil {
			part = *stored.known
		}
		meta.Parts = append(meta.Parts, part)
		oids = append(oids, stored.oid)
		if !seen[name] { // equal parts are one file, listed twice
			seen[name] = true
			entries = append(entries, gitobj.Entry{Name: name, Mode: gitobj.ModeFile, OID: stored.oid})
		}
	}
	return meta, oids, entries, nil
}
