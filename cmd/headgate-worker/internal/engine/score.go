package engine

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/headgate/headgate/exec/protocol"
)

// scoreSchema holds what scoring reads: the tables as they are, the rows of a mutant.
const scoreSchema = `memory."verifiers under test"`

// scoring mutates tables and asks verifiers what they make of it. Tables are read
// once. A mutant is a view over one of them, in which the rows that are hit stand
// aside: it costs what it changes. SQL models that read a mutant are evaluated
// again, since the gate would do so too, and only when a verifier asks for them.
type scoring struct {
	db    *database
	e     *execution
	order *protocol.Score

	tables map[string]*original // by lower-case name
	checks []*scoreCheck
	models []*scoreModel
	asked  *mutant // that the views show; nil: the tables as they are
	made   map[string]bool
	stored int // numbers tables of scoreSchema
}

// original is a table as it is.
type original struct {
	name    string
	columns []protocol.Column
	key     []string
	rows    int64
	cut     bool
	store   string // what holds its rows, qualified
	profile []columnProfile
}

type scoreCheck struct {
	name  string
	sql   string
	reads []string // lower-case names, without "base."
}

type scoreModel struct {
	name  string // lower case
	sql   string // "" if it cannot be made again
	reads []string
}

func (e *execution) score(ctx context.Context) (*protocol.Answer, error) {
	if e.order.Score == nil {
		return nil, &protocol.UserError{Kind: kindInternal, Message: "an order to score without its settings"}
	}
	s := &scoring{db: e.db, e: e, order: e.order.Score, tables: make(map[string]*original)}
	if err := s.load(ctx); err != nil {
		return nil, err
	}
	answer := &protocol.Scored{Tables: []protocol.ScoredTable{}}
	if len(s.order.Emit) == 0 {
		unsound, err := s.prepareChecks(ctx)
		if err != nil {
			return nil, err
		}
		answer.Unsound = unsound
	}
	if slices.Contains(s.order.Emit, protocol.NoMutant) {
		files, err := s.emit(ctx)
		if err != nil {
			return nil, err
		}
		answer.Tables = append(answer.Tables, protocol.ScoredTable{Mutants: []protocol.Mutant{{Name: protocol.NoMutant, Files: files}}})
	}
	for _, target := range s.order.Targets {
		t := s.tables[strings.ToLower(target.Name)]
		if t == nil {
			answer.Tables = append(answer.Tables, protocol.ScoredTable{Name: target.Name, Mutants: []protocol.Mutant{}, Missing: "it is not there, and what it is made of cannot be made here"})
			continue
		}
		t.key = target.Key
		scored, err := s.target(ctx, t)
		if err != nil {
			return nil, err
		}
		answer.Tables = append(answer.Tables, scored)
	}
	return &protocol.Answer{Score: answer}, nil
}

// load reads the tables, makes derived ones of them, and lets the base be the same.
func (s *scoring) load(ctx context.Context) error {
	if err := s.db.exec(ctx, "CREATE SCHEMA "+scoreSchema); err != nil {
		return err
	}
	if err := s.db.exec(ctx, "ATTACH IF NOT EXISTS ':memory:' AS "+identifier(baseCatalog)); err != nil {
		return err
	}
	for _, in := range s.e.order.Inputs {
		t := &original{name: in.Name, columns: in.Columns}
		limit := ""
		if s.order.MaxRows > 0 {
			limit = fmt.Sprintf(" LIMIT %d", s.order.MaxRows)
			var all int64
			if err := s.db.conn.QueryRowContext(ctx, "SELECT count(*) FROM "+viewName("memory", in.Name)).Scan(&all); err != nil {
				return err
			}
			t.cut = all > s.order.MaxRows
		}
		if err := s.adopt(ctx, t, "SELECT * FROM "+viewName("memory", in.Name)+limit); err != nil {
			return err
		}
	}
	for _, m := range s.order.Models {
		made := &scoreModel{name: strings.ToLower(m.Name), reads: lowered(m.Tables)}
		s.models = append(s.models, made)
		if m.SQL == "" {
			continue
		}
		// What cannot be made here is taken as it is; a model that fails says so when it is run.
		if st, err := s.db.parse(ctx, m.SQL); err == nil {
			if columns, err := s.db.userColumns(ctx, st); err == nil {
				if list, err := projection(columns, false); err == nil {
					t := &original{name: m.Name}
					query := "SELECT " + list + " FROM (\n" + st.sql + "\n)"
					if old := s.tables[made.name]; old != nil {
						t.cut = old.cut
					}
					if s.adopt(ctx, t, query) == nil {
						made.sql = query
					}
				}
			}
		}
	}
	return nil
}

// adopt stores the rows of a query as a table, and shows it under its name in the
// state and the base.
func (s *scoring) adopt(ctx context.Context, t *original, query string) error {
	s.stored++
	t.store = fmt.Sprintf("%s.t%d", scoreSchema, s.stored)
	if err := s.db.exec(ctx, "CREATE TABLE "+t.store+" AS "+query); err != nil {
		return err
	}
	var err error
	if t.columns, err = s.db.describeQuery(ctx, "SELECT * FROM "+t.store); err != nil {
		return err
	}
	if err := s.db.conn.QueryRowContext(ctx, "SELECT count(*) FROM "+t.store).Scan(&t.rows); err != nil {
		return err
	}
	for _, catalog := range []string{"memory", baseCatalog} {
		if err := s.show(ctx, catalog, t.name, t.store); err != nil {
			return err
		}
	}
	s.tables[strings.ToLower(t.name)] = t
	return nil
}

// show makes a table's name stand for the rows of source.
func (s *scoring) show(ctx context.Context, catalog, name, source string) error {
	view := viewName(catalog, name)
	if space, _, nested := strings.Cut(name, "."); nested {
		if err := s.db.exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+identifier(catalog)+"."+identifier(space)); err != nil {
			return err
		}
	}
	return s.db.exec(ctx, "CREATE OR REPLACE VIEW "+view+" AS SELECT * FROM "+source)
}

// viewName qualifies a table's name.
func viewName(catalog, name string) string {
	space, rest, nested := strings.Cut(name, ".")
	if !nested {
		space, rest = "main", name
	}
	return identifier(catalog) + "." + identifier(space) + "." + identifier(rest)
}

// tableSQL quotes a table's name as a verifier writes it.
func tableSQL(name string) string { return identifiers(strings.Split(name, ".")[:1]) + nestedSQL(name) }

func nestedSQL(name string) string {
	if _, rest, nested := strings.Cut(name, "."); nested {
		return "." + identifier(rest)
	}
	return ""
}

func lowered(names []string) []string {
	out := make([]string, 0, len(names))
	for _, n := range names {
		n = strings.TrimPrefix(strings.ToLower(n), baseCatalog+".")
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// prepareChecks keeps the checks that pass on the tables as they are.
func (s *scoring) prepareChecks(ctx context.Context) ([]protocol.UnsoundCheck, error) {
	var unsound []protocol.UnsoundCheck
	for _, q := range s.order.Checks {
		c := &scoreCheck{name: q.Name, reads: lowered(q.Tables)}
		st, err := s.db.parse(ctx, q.SQL)
		if err == nil {
			c.sql = st.sql
			var found bool
			if found, err = s.finds(ctx, c.sql); err == nil && found {
				err = errors.New("finds violations without any fault")
			}
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			unsound = append(unsound, protocol.UnsoundCheck{Name: q.Name, Reason: shorten(userError(err).Message, 300)})
			continue
		}
		s.checks = append(s.checks, c)
	}
	return unsound, nil
}

// finds reports whether a query has a row.
func (s *scoring) finds(ctx context.Context, query string) (bool, error) {
	var one int
	err := s.db.conn.QueryRowContext(ctx, "SELECT 1 FROM (\n"+query+"\n) LIMIT 1").Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// target makes the mutants of one table, one after another.
func (s *scoring) target(ctx context.Context, t *original) (protocol.ScoredTable, error) {
	out := protocol.ScoredTable{Name: t.name, Rows: t.rows, Cut: t.cut, Mutants: []protocol.Mutant{}}
	if err := s.profile(ctx, t); err != nil {
		return out, err
	}
	mutants, err := s.mutants(ctx, t)
	if err != nil {
		return out, err
	}
	mutants, out.LeftOut = bounded(mutants, s.order.MaxMutants)
	if len(s.order.Emit) > 0 {
		mutants = slices.DeleteFunc(mutants, func(m *mutant) bool { return !slices.Contains(s.order.Emit, m.name) })
	} else if err := s.e.note("%s: %d mutants of %d rows", t.name, len(mutants), t.rows); err != nil {
		return out, err
	}
	for _, m := range mutants {
		made, err := s.judge(ctx, m)
		if err != nil {
			return out, fmt.Errorf("mutant %s: %w", m.name, err)
		}
		out.Mutants = append(out.Mutants, made)
	}
	return out, nil
}

// bounded keeps at most n mutants, spread over all of them.
func bounded(mutants []*mutant, n int) (kept []*mutant, leftOut int) {
	if n <= 0 || len(mutants) <= n {
		return mutants, 0
	}
	for i := range n {
		kept = append(kept, mutants[i*len(mutants)/n])
	}
	return kept, len(mutants) - n
}

// judge shows one mutant to the checks, until one finds it.
func (s *scoring) judge(ctx context.Context, m *mutant) (protocol.Mutant, error) {
	out := protocol.Mutant{Name: m.name, Operator: m.operator, Column: m.column, Status: protocol.MutantEquivalent}
	changed, err := s.hit(ctx, m)
	if err != nil {
		return out, err
	}
	out.Rows, out.Fault = changed, m.words(changed)
	if changed == 0 {
		return out, s.forget(ctx)
	}
	if err := s.mutate(ctx, m); err != nil {
		return out, err
	}
	if len(s.order.Emit) > 0 {
		out.Status = protocol.MutantSurvived
		if out.Files, err = s.emit(ctx); err != nil {
			return out, err
		}
		return out, s.forget(ctx)
	}
	out.Status = protocol.MutantSurvived
	for i, c := range s.inOrder(m) {
		killed, err := s.kills(ctx, c)
		if err != nil {
			return out, err
		}
		if killed {
			out.Status, out.By = protocol.MutantKilled, c.name
			s.toFront(c, i)
			break
		}
	}
	if out.Status == protocol.MutantSurvived {
		if out.Remedy, err = s.remedy(ctx, m); err != nil {
			return out, err
		}
	}
	return out, s.forget(ctx)
}

// inOrder returns the checks that see a mutant, those that need no model first.
func (s *scoring) inOrder(m *mutant) []*scoreCheck {
	again, stale := s.downstream(m.table.name)
	var first, then []*scoreCheck
	for _, c := range s.checks {
		switch {
		case slices.ContainsFunc(c.reads, func(n string) bool { return stale[n] }):
			// A table that would be another is not here: what it says now says nothing.
		case slices.ContainsFunc(c.reads, func(n string) bool { return again[n] }):
			then = append(then, c)
		case slices.Contains(c.reads, strings.ToLower(m.table.name)):
			first = append(first, c)
		}
	}
	return append(first, then...)
}

// toFront lets a check that found a fault be asked earlier next time.
func (s *scoring) toFront(c *scoreCheck, at int) {
	if at == 0 {
		return
	}
	i := slices.Index(s.checks, c)
	s.checks = slices.Insert(slices.Delete(s.checks, i, i+1), 0, c)
}

// downstream returns the tables that a mutant of one changes, those that can be
// made again and those that cannot.
func (s *scoring) downstream(name string) (again, stale map[string]bool) {
	again, stale = make(map[string]bool), make(map[string]bool)
	name = strings.ToLower(name)
	for _, m := range s.models {
		if m.name == name {
			continue // it is the model's own fault, then
		}
		changed, lost := false, false
		for _, r := range m.reads {
			changed = changed || r == name || again[r]
			lost = lost || stale[r]
		}
		switch {
		case lost || changed && m.sql == "":
			stale[m.name] = true
		case changed:
			again[m.name] = true
		}
	}
	return again, stale
}

// kills reports whether a check refuses what the views show. One that cannot be
// evaluated refuses too.
func (s *scoring) kills(ctx context.Context, c *scoreCheck) (bool, error) {
	failed, err := s.make(ctx, c.reads)
	if err != nil || failed {
		return failed, err
	}
	found, err := s.finds(ctx, c.sql)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	return found || err != nil, nil
}

// make evaluates the models again that the named tables need. failed tells that one
// cannot be evaluated on the mutant, which a run refuses.
func (s *scoring) make(ctx context.Context, names []string) (failed bool, err error) {
	if s.asked == nil {
		return false, nil
	}
	again, _ := s.downstream(s.asked.table.name)
	need := make(map[string]bool)
	for _, n := range names {
		need[n] = again[n]
	}
	for _, m := range slices.Backward(s.models) {
		if need[m.name] {
			for _, r := range m.reads {
				need[r] = need[r] || again[r]
			}
		}
	}
	for i, m := range s.models {
		if !need[m.name] || s.made[m.name] {
			continue
		}
		store := fmt.Sprintf("%s.again%d", scoreSchema, i)
		if err := s.db.exec(ctx, "CREATE OR REPLACE TABLE "+store+" AS "+m.sql); err != nil {
			if ctx.Err() != nil {
				return false, ctx.Err()
			}
			return true, nil
		}
		if err := s.show(ctx, "memory", s.tables[m.name].name, store); err != nil {
			return false, err
		}
		s.made[m.name] = true
	}
	return false, nil
}

// forget shows the tables as they are again.
func (s *scoring) forget(ctx context.Context) error {
	if s.asked == nil {
		return nil
	}
	names := []string{strings.ToLower(s.asked.table.name)}
	for n := range s.made {
		names = append(names, n)
	}
	s.asked, s.made = nil, nil
	for _, n := range names {
		t := s.tables[n]
		if err := s.show(ctx, "memory", t.name, t.store); err != nil {
			return err
		}
	}
	return nil
}

// emit sends the tables that are wanted as the views show them. Models that cannot be
// evaluated on a mutant leave none.
func (s *scoring) emit(ctx context.Context) ([]protocol.File, error) {
	names := make([]string, len(s.order.Wanted))
	for i, w := range s.order.Wanted {
		names[i] = w.Name
	}
	if failed, err := s.make(ctx, lowered(names)); err != nil || failed {
		return nil, err
	}
	files := []protocol.File{}
	for i, w := range s.order.Wanted {
		columns := "*"
		if len(w.Select) > 0 {
			columns = identifiers(w.Select)
		}
		source := viewName("memory", w.Name)
		if plain, isBase := strings.CutPrefix(w.Name, baseCatalog+"."); isBase {
			source = viewName(baseCatalog, plain)
		}
		query := "SELECT " + columns + " FROM " + source
		if w.Filter != "" {
			query += " WHERE (" + w.Filter + "\n)"
		}
		described, err := s.db.describeQuery(ctx, query)
		if err != nil {
			return nil, err
		}
		list, err := projection(described, false)
		if err != nil {
			return nil, err
		}
		s.stored++
		name := fmt.Sprintf("m%d-%d.parquet", s.stored, i)
		path := filepath.Join(s.e.dir, name)
		if _, err := s.db.copyTo(ctx, "SELECT "+list+" FROM ("+query+")", path, "FORMAT parquet"); err != nil {
			return nil, err
		}
		if err := s.e.sendFile(name, path); err != nil {
			return nil, err
		}
		files = append(files, protocol.File{Name: name, Columns: described})
	}
	return files, nil
}
