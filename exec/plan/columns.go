package plan

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/headgate/headgate/exec/spelling"
	"github.com/headgate/headgate/objects/table"
)

// applyRules gives models their keys by policy and compiles the column tests and
// change rules.
func (b *builder) applyRules(ctx context.Context, tables []table.Table) error {
	snapshots := make(map[string]*table.Snapshot)
	for _, t := range tables {
		if _, made := b.names.made[strings.ToLower(t.Name)]; !made {
			// A derived table's pushed state says nothing of what its model will give.
			snapshots[t.Name] = t.Snapshot
		}
	}
	keys := make(map[string][]string) // of source tables
	for name, s := range snapshots {
		if s != nil && len(s.Key) > 0 {
			keys[name] = s.Key
		}
	}
	for _, written := range slices.Sorted(maps.Keys(b.settings.Tables)) {
		rules := b.settings.Tables[written]
		name, ok := b.names.find(written)
		if !ok {
			b.problem(b.settings.File, rules.Line, "tables.%s: the commit has no such table%s", written, spelling.DidYouMean(written, b.names.known()))
			continue
		}
		b.applyKey(name, &rules, snapshots[name], keys)
		for _, column := range slices.Sorted(maps.Keys(rules.Columns)) {
			for _, t := range rules.Columns[column] {
				b.columnTest(name, column, t, snapshots)
			}
		}
	}
	b.notNull()
	// A key that is claimed must be one: merges and diffs go by it. Derived tables
	// have theirs checked while they are cut.
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		path, line := b.settings.File, b.settings.Tables[name].KeyLine
		if line == 0 {
			path = table.FileName // the policy has no key, so the snapshot claims it
		}
		b.verify = append(b.verify, Verifier{
			Name: name + ":key", Path: path, Line: line, Kind: KindColumn,
			Table: name, Inputs: []Input{{Table: name}}, SQL: keySQL(name, keys[name]),
		})
	}
	return b.changeRules(ctx, snapshots, keys)
}

// notNull makes a test of each column that a model's schema requires, unless the
// policy has that test already.
func (b *builder) notNull() {
	known := make(map[string]bool, len(b.verify))
	for _, v := range b.verify {
		known[strings.ToLower(v.Name)] = true
	}
	for i := range b.models {
		m := &b.models[i]
		if len(m.NotNull) > maxColumns {
			b.problem(m.Path, m.Line, "requires %d columns, the limit is %d", len(m.NotNull), maxColumns)
			continue
		}
		for _, column := range m.NotNull {
			name := fmt.Sprintf("%s.%s:%s", m.Name, column, NotNull)
			if low := strings.ToLower(name); known[low] {
				continue
			} else {
				known[low] = true
			}
			sql, err := columnSQL(m.Name, column, Test{Kind: NotNull})
			if err != nil {
				b.problem(m.Path, m.Line, "%v", err)
				continue
			}
			b.verify = append(b.verify, Verifier{
				Name: name, Path: m.Path, Line: m.Line, Kind: KindColumn, Table: m.Name, Column: column,
				Inputs: []Input{{Table: m.Name}}, SQL: sql,
			})
		}
	}
}

// keySQL returns the query of the rows whose key is NULL or not their own.
func keySQL(name string, key []string) string {
	from := quoteTable(name)
	columns, null := make([]string, len(key)), make([]string, len(key))
	for i, k := range key {
		columns[i] = quote(k)
		null[i] = quote(k) + " IS NULL"
	}
	list := strings.Join(columns, ", ")
	// A NULL joins nothing, so no row is in both halves.
	return fmt.Sprintf("SELECT t.* FROM %[1]s AS t SEMI JOIN (SELECT %[2]s FROM %[1]s GROUP BY %[2]s HAVING count(*) > 1) USING (%[2]s)"+
		" UNION ALL SELECT * FROM %[1]s WHERE %[3]s ORDER BY %[2]s", from, list, strings.Join(null, " OR "))
}

func (b *builder) applyKey(name string, rules *Rules, snapshot *table.Snapshot, keys map[string][]string) {
	for _, column := range rules.Key {
		b.checkColumn(rules.KeyLine, name, column, snapshot)
	}
	i, made := b.names.made[strings.ToLower(name)]
	if len(rules.Key) == 0 {
		return
	}
	if !made {
		if have := keys[name]; len(have) > 0 && !slices.EqualFunc(have, rules.Key, strings.EqualFold) {
			b.problem(b.settings.File, rules.KeyLine, "table %s was imported with the key [%s], not [%s]; import it again with --key, or change the policy",
				name, strings.Join(have, ", "), strings.Join(rules.Key, ", "))
		}
		keys[name] = rules.Key
		return
	}
	m := &b.models[i]
	if len(m.Key) == 0 {
		m.Key = rules.Key
	} else if !slices.EqualFunc(m.Key, rules.Key, strings.EqualFold) {
		b.problem(m.Path, m.Line, "key is [%s], but the policy says [%s] (%s:%d)",
			strings.Join(m.Key, ", "), strings.Join(rules.Key, ", "), b.settings.File, rules.KeyLine)
	}
}

func (b *builder) checkColumn(line int, name, column string, snapshot *table.Snapshot) bool {
	if snapshot == nil {
		return true // known when the model has run
	}
	columns := make([]string, len(snapshot.Columns))
	for i, c := range snapshot.Columns {
		if strings.EqualFold(c.Name, column) {
			return true
		}
		columns[i] = c.Name
	}
	b.problem(b.settings.File, line, "table %s has no column %q%s", name, clip(column), spelling.DidYouMean(column, columns))
	return false
}

func (b *builder) columnTest(name, column string, t Test, snapshots map[string]*table.Snapshot) {
	if !b.checkColumn(t.Line, name, column, snapshots[name]) {
		return
	}
	v := Verifier{
		Name: fmt.Sprintf("%s.%s:%s", name, column, t.Kind), Path: b.settings.File, Line: t.Line,
		Kind: KindColumn, Table: name, Column: column, Inputs: []Input{{Table: name}}, Severity: t.Severity,
	}
	if t.Kind == Relationships {
		to, ok := b.names.find(t.To)
		if !ok {
			b.problem(b.settings.File, t.Line, "relationships: there is no table %q%s", clip(t.To), spelling.DidYouMean(t.To, b.names.known()))
			return
		}
		if !b.checkColumn(t.Line, to, t.Field, snapshots[to]) {
			return
		}
		if to != name {
			v.Inputs = append(v.Inputs, Input{Table: to})
		}
		t.To = to
		// A column may refer to more than one table; its first test keeps the plain name.
		if slices.ContainsFunc(b.verify, func(o Verifier) bool { return o.Name == v.Name }) {
			v.Name += ":" + to
		}
	}
	sql, err := columnSQL(name, column, t)
	if err != nil {
		b.problem(b.settings.File, t.Line, "%v", err)
		return
	}
	v.SQL, v.Test = sql, &t
	b.verify = append(b.verify, v)
}

// Compile returns the query of the rows of a table that violate a test of a column.
func (t Test) Compile(table, column string) (string, error) { return columnSQL(table, column, t) }

// KeySQL returns the query of the rows whose key is NULL or not their own.
func KeySQL(table string, key []string) string { return keySQL(table, key) }

// columnSQL returns the query of a test's violating rows, with all columns of the table.
func columnSQL(name, column string, t Test) (string, error) {
	from, c := quoteTable(name), quote(column)
	switch t.Kind {
	case NotNull:
		return fmt.Sprintf("SELECT * FROM %s WHERE %s IS NULL", from, c), nil
	case Unique:
		// The group finds the values cheaply; only a failure pays for its rows.
		return fmt.Sprintf("SELECT * FROM %[1]s WHERE %[2]s IN (SELECT %[2]s FROM %[1]s WHERE %[2]s IS NOT NULL GROUP BY %[2]s HAVING count(*) > 1) ORDER BY %[2]s", from, c), nil
	case AcceptedValues:
		literals := make([]string, len(t.Values))
		for i, v := range t.Values {
			literal, err := sqlLiteral(v)
			if err != nil {
				return "", err
			}
			literals[i] = literal
		}
		if len(literals) == 0 {
			return "", fmt.Errorf("accepted_values has no values")
		}
		return fmt.Sprintf("SELECT * FROM %s WHERE %s NOT IN (%s)", from, c, strings.Join(literals, ", ")), nil
	case Relationships:
		return fmt.Sprintf("SELECT child.* FROM %s AS child ANTI JOIN %s AS parent ON child.%s = parent.%s WHERE child.%s IS NOT NULL",
			from, quoteTable(t.To), c, quote(t.Field), c), nil
	}
	return "", fmt.Errorf("unknown column test %q", string(t.Kind))
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// quoteTable quotes each part of a table's name.
func quoteTable(name string) string {
	space, rest, ok := strings.Cut(name, ".")
	if !ok {
		return quote(name)
	}
	return quote(space) + "." + quote(rest)
}

func sqlLiteral(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return "'" + strings.ReplaceAll(v, "'", "''") + "'", nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case uint64:
		return strconv.FormatUint(v, 10), nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return "", fmt.Errorf("accepted_values: %v is not a finite number", v)
		}
		return strconv.FormatFloat(v, 'g', -1, 64), nil
	case bool:
		return strings.ToUpper(strconv.FormatBool(v)), nil
	}
	return "", fmt.Errorf("accepted_values: %v is not a text, a number or a boolean", v)
}
