package engine

import (
	"context"
	"database/sql"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"github.com/headgate/headgate/exec/protocol"
)

// The share of a table's rows that a fault hits: one in a hundred, at least one row.
const hitShare = 100

// Bounds of what is mutated and profiled of one table.
const (
	scoreColumns    = 60 // columns, the first ones
	fewestRepeats   = 5  // rows for each value of a category, on average
	mostCategories  = 50
	fewestDistances = 3 // days of a column of which one is taken away
)

// columnProfile is what mutants and remedies need to know of a column.
type columnProfile struct {
	protocol.Column
	kind     columnKind
	nulls    int64
	distinct int64
	least    sql.NullString // as text
	most     sql.NullString
	spread   sql.NullFloat64 // standard deviation, of numbers
}

type columnKind int

const (
	otherColumn columnKind = iota
	integerColumn
	fractionColumn // floats and decimals
	textColumn
	timeColumn // dates and timestamps
)

func columnKindOf(t string) columnKind {
	switch {
	case isInteger(t):
		return integerColumn
	case t == "FLOAT", t == "DOUBLE", strings.HasPrefix(t, "DECIMAL("):
		return fractionColumn
	case t == "VARCHAR":
		return textColumn
	case t == "DATE", strings.HasPrefix(t, "TIMESTAMP"):
		return timeColumn
	}
	return otherColumn
}

func isInteger(t string) bool {
	switch t {
	case "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT":
		return true
	}
	return false
}

// profile looks at each column once.
func (s *scoring) profile(ctx context.Context, t *original) error {
	for _, c := range t.columns[:min(len(t.columns), scoreColumns)] {
		p := columnProfile{Column: c, kind: columnKindOf(c.Type)}
		id := identifier(c.Name)
		terms := []string{"count(*) - count(" + id + ")", "count(DISTINCT " + id + ")", "NULL", "NULL", "NULL"}
		if p.kind != otherColumn {
			terms[2], terms[3] = "CAST(min("+id+") AS VARCHAR)", "CAST(max("+id+") AS VARCHAR)"
		}
		if p.kind == integerColumn || p.kind == fractionColumn {
			finite := "CAST(" + id + " AS DOUBLE)"
			terms[4] = "stddev_pop(" + finite + ") FILTER (WHERE isfinite(" + finite + "))"
		}
		row := s.db.conn.QueryRowContext(ctx, "SELECT "+strings.Join(terms, ", ")+" FROM "+t.store)
		if err := row.Scan(&p.nulls, &p.distinct, &p.least, &p.most, &p.spread); err != nil {
			return fmt.Errorf("table %s, column %q: %w", t.name, c.Name, err)
		}
		t.profile = append(t.profile, p)
	}
	return nil
}

// mutant is a fault in a table: rows that are hit, and what becomes of them.
type mutant struct {
	table    *original
	name     string
	operator string
	column   string
	columns  []string // that it changes; nil: it changes which rows there are
	victims  string   // the condition of the rows that are hit, on columns and rowid
	// became is the SELECT list of what becomes of a row that is hit, by column;
	// others stay. nil rows are gone.
	became map[string]string
	gone   bool
	twice  bool   // they are there twice
	fault  string // what happened, with %s for "109 of 10,923 rows"

	relation *protocol.ScoreRelation
}

func (m *mutant) words(rows int64) string {
	return fmt.Sprintf(m.fault, fmt.Sprintf("%s of %s", count(rows, "row"), count(m.table.rows, "row")))
}

// chance gives a number that the seed and the mutant decide.
func (s *scoring) chance(name string, below int64) int64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %s", s.order.Seed, name)
	x := h.Sum64()
	x ^= x >> 29 // FNV's low bits alone are weak
	return int64(x % uint64(max(below, 1)))
}

// scattered is a condition that one row in a hundred meets.
func (s *scoring) scattered(t *original, name string) string {
	stride := min(int64(hitShare), t.rows)
	return fmt.Sprintf("rowid %% %d = %d", stride, s.chance(name, stride))
}

// block is a condition that a hundredth of the rows meet, side by side; least is
// how many they are at least.
func (s *scoring) block(t *original, name string, least int64) string {
	n := min(max(t.rows/hitShare, least), t.rows)
	from := s.chance(name, t.rows-n+1)
	return fmt.Sprintf("rowid BETWEEN %d AND %d", from, from+n-1)
}

// mutants lists the faults of a table, in a fixed order: those of rows, then those of each column.
func (s *scoring) mutants(ctx context.Context, t *original) ([]*mutant, error) {
	if t.rows == 0 {
		return nil, nil
	}
	var all []*mutant
	add := func(operator, column string, m mutant) {
		m.table, m.operator, m.column = t, operator, column
		m.name = t.name
		if column != "" {
			m.name += "." + column
		}
		m.name += ":" + operator
		all = append(all, &m)
	}
	name := func(operator, column string) string { return t.name + "." + column + ":" + operator }
	add("drop", "", mutant{victims: s.scattered(t, name("drop", "")), gone: true, fault: "%s are gone"})
	add("duplicate", "", mutant{victims: s.scattered(t, name("duplicate", "")), twice: true, fault: "%s are there twice"})
	for i := range t.profile {
		p := &t.profile[i]
		if p.nulls == t.rows {
			continue // nothing is there that could be wrong
		}
		id := identifier(p.Name)
		change := func(operator, victims, became, fault string) {
			add(operator, p.Name, mutant{columns: []string{p.Name}, victims: victims, became: map[string]string{p.Name: became}, fault: fault})
		}
		change("null", s.scattered(t, name("null", p.Name)), "NULL", "NULL in %s")
		if p.distinct > 1 && !(len(t.key) == 1 && strings.EqualFold(t.key[0], p.Name)) {
			// A sort or a join that went wrong: values stand in rows beside their own.
			// What follows is asked of the rows that are hit only.
			change("shuffle", s.block(t, name("shuffle", p.Name), 10),
				fmt.Sprintf("coalesce(lead(%s) OVER (ORDER BY rowid), first_value(%s) OVER (ORDER BY rowid))", id, id), "the values of %s, side by side, moved by a row")
		}
		switch p.kind {
		case integerColumn, fractionColumn:
			by := max(p.spread.Float64, 1)
			change("shift", s.scattered(t, name("shift", p.Name)), numberTerm(p, fmt.Sprintf("CAST(%s AS DOUBLE) + %g", id, by)),
				fmt.Sprintf("a standard deviation (%.4g) more in %%s", by))
			change("scale", s.block(t, name("scale", p.Name), 1), numberTerm(p, "CAST("+id+" AS DOUBLE) * 100"), "a hundredfold in %s, side by side")
		case timeColumn:
			if err := s.timeMutants(ctx, t, p, add); err != nil {
				return nil, err
			}
		case textColumn:
			if p.distinct > 1 && p.distinct <= mostCategories && t.rows >= fewestRepeats*p.distinct {
				change("widen", s.scattered(t, name("widen", p.Name)), id+" || ' '", "a blank behind the category in %s")
			}
		}
		for _, r := range s.order.Relations {
			if strings.EqualFold(r.Table, t.name) && strings.EqualFold(r.Column, p.Name) {
				if err := s.orphan(ctx, t, p, r, add); err != nil {
					return nil, err
				}
				break
			}
		}
		if other := partner(t, i); other != nil {
			add("swap", p.Name, mutant{columns: []string{p.Name, other.Name}, victims: s.scattered(t, name("swap", p.Name)),
				became: map[string]string{p.Name: identifier(other.Name), other.Name: id}, fault: "exchanged with " + strings.ReplaceAll(other.Name, "%", "%%") + " in %s"})
		}
	}
	return all, nil
}

// numberTerm brings a number back into its column's type; what does not fit is divided instead.
func numberTerm(p *columnProfile, value string) string {
	id := identifier(p.Name)
	if p.kind == integerColumn {
		value = "round(" + value + ")"
	}
	return fmt.Sprintf("coalesce(TRY_CAST(%s AS %s), TRY_CAST(CAST(%s AS DOUBLE) / 100 AS %s), %s)", value, p.Type, id, p.Type, id)
}

// partner is the next column of the same type, with which one may be mistaken.
func partner(t *original, i int) *columnProfile {
	p := &t.profile[i]
	for j := i + 1; j < len(t.profile); j++ {
		if o := &t.profile[j]; o.Type == p.Type && o.nulls < t.rows {
			return o
		}
	}
	return nil
}

// timeMutants are the faults of a column of dates or timestamps.
func (s *scoring) timeMutants(ctx context.Context, t *original, p *columnProfile, add func(string, string, mutant)) error {
	id := identifier(p.Name)
	day := "CAST(" + id + " AS DATE)"
	var days int64
	if err := s.db.conn.QueryRowContext(ctx, "SELECT count(DISTINCT "+day+") FROM "+t.store+" WHERE isfinite("+id+")").Scan(&days); err != nil {
		return err
	}
	if days >= fewestDistances {
		// Neither the first nor the last, which are not missed by who looks for gaps.
		nth := 1 + s.chance(t.name+"."+p.Name+":truncate", days-2)
		var which string
		query := fmt.Sprintf("SELECT DISTINCT CAST(%s AS VARCHAR) FROM %s WHERE isfinite(%s) ORDER BY 1 LIMIT 1 OFFSET %d", day, t.store, id, nth)
		if err := s.db.conn.QueryRowContext(ctx, query).Scan(&which); err != nil {
			return err
		}
		add("truncate", p.Name, mutant{victims: fmt.Sprintf("%s = DATE %s", day, literal(which)), gone: true, fault: "%s are gone, all of " + which})
	}
	newest := fmt.Sprintf("(SELECT max(%s) FROM %s WHERE isfinite(%s))", day, t.store, id)
	add("stale", p.Name, mutant{columns: []string{p.Name}, victims: day + " = " + newest,
		became: map[string]string{p.Name: fmt.Sprintf("CAST(%s - INTERVAL 1 DAY AS %s)", id, p.Type)}, fault: "the newest day is the day before it, in %s"})
	return nil
}

// orphan breaks a relation to another table.
func (s *scoring) orphan(ctx context.Context, t *original, p *columnProfile, r protocol.ScoreRelation, add func(string, string, mutant)) error {
	to := s.tables[strings.ToLower(r.To)]
	if to == nil || !slices.ContainsFunc(to.columns, func(c protocol.Column) bool { return strings.EqualFold(c.Name, r.Field) }) {
		return nil
	}
	var became string
	switch p.kind {
	case textColumn:
		became = identifier(p.Name) + " || '?'"
	case integerColumn:
		var most sql.NullString
		query := fmt.Sprintf("SELECT CAST(TRY_CAST(max(%s)::HUGEINT + 1 AS %s) AS VARCHAR) FROM %s", identifier(r.Field), p.Type, to.store)
		if err := s.db.conn.QueryRowContext(ctx, query).Scan(&most); err != nil || !most.Valid {
			return nil // not a number there, or no room above the last
		}
		became = "CAST(" + most.String + " AS " + p.Type + ")"
	default:
		return nil
	}
	add("orphan", p.Name, mutant{columns: []string{p.Name}, victims: s.scattered(t, t.name+"."+p.Name+":orphan"), relation: &r,
		became: map[string]string{p.Name: became}, fault: "a value that " + strings.ReplaceAll(to.name+"."+r.Field, "%", "%%") + " does not have in %s"})
	return nil
}

// aside holds the rows that a mutant has hit, as they became.
const aside = scoreSchema + `.aside`

// hit sets the rows aside that a mutant hits, and returns how many it changes: 0 if it is no
// fault at all, since the same rows are there afterwards.
func (s *scoring) hit(ctx context.Context, m *mutant) (int64, error) {
	list := make([]string, len(m.table.columns))
	for i, c := range m.table.columns {
		list[i] = identifier(c.Name)
		if became, ok := m.became[c.Name]; ok {
			list[i] = became + " AS " + identifier(c.Name)
		}
	}
	hit := fmt.Sprintf("FROM %s WHERE (%s) IS TRUE", m.table.store, m.victims)
	query := "SELECT " + strings.Join(list, ", ") + " " + hit
	switch {
	case m.gone:
		query += " AND false"
	case m.twice:
		query += " UNION ALL SELECT " + identifiers(columnNames(m.table.columns)) + " " + hit
	}
	if err := s.db.exec(ctx, "CREATE OR REPLACE TABLE "+aside+" AS "+query); err != nil {
		return 0, err
	}
	// Rows of equal numbers on both sides are the same if none is on one side only.
	// Nulls that became nulls, and values that were moved onto their equals, go here.
	changed := fmt.Sprintf("SELECT count(*) FROM (SELECT * FROM %s EXCEPT ALL SELECT %s %s)", aside, identifiers(columnNames(m.table.columns)), hit)
	if m.gone {
		changed = "SELECT count(*) " + hit
	}
	var n int64
	err := s.db.conn.QueryRowContext(ctx, changed).Scan(&n)
	return n, err
}

// mutate shows the mutant instead of its table.
func (s *scoring) mutate(ctx context.Context, m *mutant) error {
	s.asked, s.made = m, make(map[string]bool)
	columns := identifiers(columnNames(m.table.columns))
	source := fmt.Sprintf("(SELECT %s FROM %s WHERE (%s) IS NOT TRUE UNION ALL SELECT %s FROM %s)", columns, m.table.store, m.victims, columns, aside)
	return s.show(ctx, "memory", m.table.name, source)
}
