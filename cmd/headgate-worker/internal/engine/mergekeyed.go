package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/headgate/headgate/exec/protocol"
)

// mergeColumn is a column of the merged table, or one that a side dropped.
type mergeColumn struct {
	protocol.Column
	key                bool
	base, ours, theirs bool // which versions have it
}

func (c *mergeColumn) dropped() bool { return c.base && c.ours != c.theirs }

// keyedMerge writes the SQL of a merge of rows that a key tells apart. Column n
// of version v is v.cn, and v.gap is NULL in a row that the version does not have.
type keyedMerge struct {
	*execution
	key     []string
	columns []mergeColumn
	// clashing are the columns with cells in conflict, by number.
	clashing []bool
}

// mergeKeyed fills mergedTable with the merged rows, in the key's order within
// each segment; or conflictsTable.
func (e *execution) mergeKeyed(ctx context.Context, key []string) (*protocol.Merged, error) {
	k := &keyedMerge{execution: e, key: key}
	k.plan()
	if err := k.loadSides(ctx); err != nil {
		return nil, err
	}
	create := "CREATE TABLE " + conflictedTable + " AS SELECT * FROM (" + k.joined() + ") WHERE " + k.conflict()
	if err := e.db.exec(ctx, create); err != nil {
		return nil, fileError(err)
	}
	if len(e.order.Merge.Rules) > 0 {
		if err := k.findClashes(ctx); err != nil {
			return nil, err
		}
	}
	for i := range e.order.Merge.Rules {
		if err := k.checkRule(ctx, &e.order.Merge.Rules[i]); err != nil {
			return nil, err
		}
	}
	merged, err := k.listConflicts(ctx)
	if err != nil || merged.Conflicts > 0 {
		return merged, err
	}
	// What both sides have, or one has anew. What one side deleted is gone.
	values := "SELECT segment, " + k.values(false) + " FROM (" + k.joined() + ") AS j WHERE NOT (" + k.conflict() + ") AND (in_o AND in_t OR NOT in_b)"
	resolved := "SELECT segment, " + k.values(true) + " FROM " + conflictedTable + " AS j WHERE " + k.staysResolved()
	order := canonicalOrder(inKeyOrder(key, e.order.Merge.Columns))
	err = e.db.exec(ctx, fmt.Sprintf("INSERT INTO %s SELECT * FROM (%s UNION ALL %s) AS m(%s, %s) ORDER BY %s, %s", mergedTable, values, resolved,
		groupColumn, identifiers(columnNames(e.order.Merge.Columns)), groupColumn, order))
	if err != nil {
		return nil, ruleError(err)
	}
	return merged, nil
}

// plan numbers the columns: the merged table's first, then those that a side dropped.
func (k *keyedMerge) plan() {
	m := k.order.Merge
	add := func(c protocol.Column) {
		k.columns = append(k.columns, mergeColumn{
			Column: c, key: slices.Contains(k.key, c.Name),
			base: indexOf(m.Base, c.Name) >= 0, ours: indexOf(m.Ours, c.Name) >= 0, theirs: indexOf(m.Theirs, c.Name) >= 0,
		})
	}
	for _, c := range m.Columns {
		add(c)
	}
	for _, c := range m.Base {
		if inOurs := indexOf(m.Ours, c.Name) >= 0; inOurs != (indexOf(m.Theirs, c.Name) >= 0) && indexOf(m.Columns, c.Name) < 0 {
			add(c)
		}
	}
}

// fileColumn names the column that says which file a row is from. No table's is
// called so: see groupColumn.
var fileColumn = "file" + strings.Repeat("_", 255)

// loadSides makes a table of each version's rows.
func (k *keyedMerge) loadSides(ctx context.Context) error {
	m := k.order.Merge
	for _, side := range []string{sideBase, sideOurs, sideTheirs} {
		columns := map[string][]protocol.Column{sideBase: m.Base, sideOurs: m.Ours, sideTheirs: m.Theirs}[side]
		var files []string
		var places strings.Builder
		for i, s := range m.Segments {
			for _, f := range map[string][]string{sideBase: s.Base, sideOurs: s.Ours, sideTheirs: s.Theirs}[side] {
				if len(files) > 0 {
					places.WriteString(", ")
				}
				files = append(files, f)
				fmt.Fprintf(&places, "(%s, %d)", literal(f), i)
			}
		}
		terms := make([]string, len(k.columns))
		for i, c := range k.columns {
			terms[i] = "CAST(NULL AS " + c.Type + ")"
			if at := indexOf(columns, c.Name); at >= 0 && len(files) > 0 {
				terms[i] = "r." + identifier(c.Name)
				if columns[at].Type != c.Type {
					terms[i] = "CAST(" + terms[i] + " AS " + c.Type + ")"
				}
			}
			terms[i] += fmt.Sprintf(" AS c%d", i)
		}
		query := "SELECT CAST(0 AS INTEGER) AS gap, " + strings.Join(terms, ", ") + " LIMIT 0"
		if len(files) > 0 {
			if err := k.db.exec(ctx, "CREATE OR REPLACE TABLE "+placesTable+" AS SELECT * FROM (VALUES "+places.String()+") AS p(file, segment)"); err != nil {
				return err
			}
			query = fmt.Sprintf("SELECT p.segment AS gap, %s FROM read_parquet(%s, hive_partitioning = false, filename = %s) AS r JOIN %s AS p ON r.%s = p.file",
				strings.Join(terms, ", "), literalList(files), literal(fileColumn), placesTable, identifier(fileColumn))
		}
		if err := k.db.exec(ctx, "CREATE TABLE "+sideTable(side)+" AS "+query); err != nil {
			return inSide(fileError(err), side)
		}
		var keys []keyColumn
		for i, c := range k.columns {
			if c.key {
				keys = append(keys, keyColumn{c.Name, fmt.Sprintf("c%d", i)})
			}
		}
		if err := k.checkKeyOf(ctx, sideTable(side), keys); err != nil {
			return inSide(err, side)
		}
	}
	return nil
}

// inSide says which version of the table an error is about.
func inSide(err error, side string) error {
	u := userError(err)
	u.Message = side + ": " + u.Message
	return u
}

// joined selects the rows of all versions side by side.
func (k *keyedMerge) joined() string {
	terms := []string{"o.gap IS NOT NULL AS in_o", "t.gap IS NOT NULL AS in_t", "b.gap IS NOT NULL AS in_b", "coalesce(o.gap, t.gap, b.gap) AS segment"}
	var both, all []string
	for i, c := range k.columns {
		terms = append(terms, fmt.Sprintf("b.c%d AS b%d, o.c%d AS o%d, t.c%d AS t%d", i, i, i, i, i, i))
		if c.key {
			both = append(both, fmt.Sprintf("o.c%d = t.c%d", i, i))
			all = append(all, fmt.Sprintf("coalesce(o.c%d, t.c%d) = b.c%d", i, i, i))
		}
	}
	return fmt.Sprintf("SELECT %s FROM %s AS o FULL JOIN %s AS t ON %s FULL JOIN %s AS b ON %s", strings.Join(terms, ", "),
		sideTable(sideOurs), sideTable(sideTheirs), strings.Join(both, " AND "), sideTable(sideBase), strings.Join(all, " AND "))
}

// differs is the condition that two cells of a type are not the same: also where
// SQL calls them equal, as 0.0 and -0.0, or a month and 30 days.
func differs(x, y, t string) string {
	plain := x + " IS DISTINCT FROM " + y
	switch {
	case t == "FLOAT" || t == "DOUBLE":
		return fmt.Sprintf("(%s OR coalesce(%s = 0 AND signbit(%s) <> signbit(%s), false))", plain, x, x, y)
	case isNested(t) || strings.Contains(t, "INTERVAL") || t == "TIME WITH TIME ZONE":
		return fmt.Sprintf("(%s OR TRY(CAST(%s AS VARCHAR)) IS DISTINCT FROM TRY(CAST(%s AS VARCHAR)))", plain, x, y)
	}
	return "(" + plain + ")"
}

// cell is the condition that a cell of a row that both sides have is in conflict; "" if it cannot be.
func (k *keyedMerge) cell(i int) string {
	c := &k.columns[i]
	b, o, t := fmt.Sprintf("b%d", i), fmt.Sprintf("o%d", i), fmt.Sprintf("t%d", i)
	switch {
	case c.key:
		return ""
	case c.dropped() && c.ours:
		return "(in_b AND " + differs(o, b, c.Type) + ")"
	case c.dropped():
		return "(in_b AND " + differs(t, b, c.Type) + ")"
	case !c.ours || !c.theirs:
		return ""
	case !c.base:
		return differs(o, t, c.Type)
	}
	return fmt.Sprintf("(%s AND (NOT in_b OR %s AND %s))", differs(o, t, c.Type), differs(o, b, c.Type), differs(t, b, c.Type))
}

// edited is the condition that a side (o or t) changed cell i of a row of the base; "" if it cannot have.
func (k *keyedMerge) edited(i int, side string) string {
	c := &k.columns[i]
	if c.key || !c.base || side == "o" && !c.ours || side == "t" && !c.theirs {
		return ""
	}
	return differs(fmt.Sprintf("%s%d", side, i), fmt.Sprintf("b%d", i), c.Type)
}

// conflict is the condition that something of a row is in conflict.
func (k *keyedMerge) conflict() string {
	var cells, ours, theirs []string
	for i := range k.columns {
		for list, term := range map[*[]string]string{&cells: k.cell(i), &ours: k.edited(i, "o"), &theirs: k.edited(i, "t")} {
			if term != "" {
				*list = append(*list, term)
			}
		}
	}
	return fmt.Sprintf("CASE WHEN in_o AND in_t THEN %s WHEN in_b AND in_o THEN %s WHEN in_b AND in_t THEN %s ELSE false END", anyOf(cells), anyOf(ours), anyOf(theirs))
}

func anyOf(terms []string) string {
	if len(terms) == 0 {
		return "false"
	}
	return "(" + strings.Join(terms, " OR ") + ")"
}

// values are the cells of a merged row. With resolved, those in conflict are what the rules say.
func (k *keyedMerge) values(resolved bool) string {
	var terms []string
	for i, c := range k.columns {
		if c.dropped() {
			continue
		}
		b, o, t := fmt.Sprintf("b%d", i), fmt.Sprintf("o%d", i), fmt.Sprintf("t%d", i)
		var value string
		switch {
		case c.key:
			value = "coalesce(" + o + ", " + t + ")"
		case !c.ours:
			value = t
		case !c.theirs:
			value = o
		default:
			value = fmt.Sprintf("CASE WHEN NOT in_t THEN %s WHEN NOT in_o THEN %s WHEN %s THEN %s ELSE %s END", o, t, differs(o, b, c.Type), o, t)
		}
		if cell := k.cell(i); resolved && cell != "" && len(k.order.Merge.Rules) > 0 && k.clashing[i] {
			var decided strings.Builder
			for n, r := range k.order.Merge.Rules {
				if r.Column != "" && r.Column != c.Name {
					continue
				}
				v := map[string]string{sideBase: b, sideOurs: o, sideTheirs: t}[r.Take]
				if r.Take == "" {
					v = fmt.Sprintf("CAST((SELECT (%s\n) FROM (SELECT %s, j.%s AS base, j.%s AS ours, j.%s AS theirs) AS cell) AS %s)", r.SQL, k.keyNames("j."), b, o, t, c.Type)
				}
				fmt.Fprintf(&decided, " WHEN %s THEN %s", k.fits(n, "j."), v)
			}
			if decided.Len() > 0 {
				value = fmt.Sprintf("CASE WHEN NOT (in_o AND in_t AND %s) THEN %s%s END", cell, value, decided.String())
			}
		}
		terms = append(terms, value)
	}
	return strings.Join(terms, ", ")
}
