package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/headgate/headgate/exec/protocol"
)

// checkRule refuses a rule that cannot be carried out.
func (k *keyedMerge) checkRule(ctx context.Context, r *protocol.MergeRule) error {
	if r.Column != "" && !slices.ContainsFunc(k.columns, func(c mergeColumn) bool { return c.Name == r.Column }) {
		return dataError("there is no column %q to resolve", r.Column)
	}
	if (r.Take == "") == (r.SQL == "") || !slices.Contains([]string{"", sideBase, sideOurs, sideTheirs}, r.Take) {
		return dataError("a rule takes base, ours, theirs or the value of an expression")
	}
	for _, text := range []string{r.Where, r.SQL} {
		if text == "" {
			continue
		}
		// One expression, before it is put between parentheses.
		if _, err := k.db.parse(ctx, "SELECT 1 WHERE "+text); err != nil {
			return ruleError(err)
		}
	}
	for i, c := range k.columns {
		if r.SQL == "" || c.key || c.dropped() || r.Column != "" && r.Column != c.Name {
			continue
		}
		if r.Column == "" && !k.clashing[i] {
			continue // an expression for all is one for all that are in conflict
		}
		cell := fmt.Sprintf("SELECT %[1]s, CAST(NULL AS %[2]s) AS base, CAST(NULL AS %[2]s) AS ours, CAST(NULL AS %[2]s) AS theirs", k.noKey(), c.Type)
		if _, err := k.db.describeQuery(ctx, "SELECT ("+r.SQL+"\n) FROM ("+cell+") AS cell"); err != nil {
			u := ruleError(err)
			u.Message = fmt.Sprintf("column %q: %s", c.Name, u.Message)
			return u
		}
	}
	return nil
}

// findClashes tells which columns have cells in conflict.
func (k *keyedMerge) findClashes(ctx context.Context) error {
	k.clashing = make([]bool, len(k.columns))
	for i := range k.columns {
		cell := k.cell(i)
		if cell == "" {
			continue
		}
		if err := k.db.conn.QueryRowContext(ctx, "SELECT count(*) > 0 FROM "+conflictedTable+" WHERE in_o AND in_t AND "+cell).Scan(&k.clashing[i]); err != nil {
			return err
		}
	}
	return nil
}

// noKey selects NULLs that are called and typed as the key's columns.
func (k *keyedMerge) noKey() string {
	var terms []string
	for _, c := range k.columns {
		if c.key {
			terms = append(terms, "CAST(NULL AS "+c.Type+") AS "+identifier(c.Name))
		}
	}
	return strings.Join(terms, ", ")
}

// ruleError is an error in a rule: positions are of our statement.
func ruleError(err error) *protocol.UserError {
	u := userError(err)
	u.Line, u.Column = 0, 0
	return u
}

// keyNames selects the key's columns by their names.
func (k *keyedMerge) keyNames(row string) string {
	var terms []string
	for i, c := range k.columns {
		if c.key {
			terms = append(terms, fmt.Sprintf("coalesce(%so%d, %st%d) AS %s", row, i, row, i, identifier(c.Name)))
		}
	}
	return strings.Join(terms, ", ")
}

// fits is the condition that rule n is for a row.
func (k *keyedMerge) fits(n int, row string) string {
	where := k.order.Merge.Rules[n].Where
	if where == "" {
		return "true"
	}
	return fmt.Sprintf("coalesce((SELECT (%s\n) FROM (SELECT %s) AS k), false)", where, k.keyNames(row))
}

// decides is the condition that some rule decides a conflict: of a cell of column
// i, or with i < 0 of a row that one side deleted. takes are the sides that may be
// taken; "" stands for an expression.
func (k *keyedMerge) decides(i int, takes ...string) string {
	var terms []string
	for n, r := range k.order.Merge.Rules {
		if (r.Column == "" || i >= 0 && r.Column == k.columns[i].Name) && slices.Contains(takes, r.Take) {
			terms = append(terms, k.fits(n, "j."))
		}
	}
	return anyOf(terms)
}

// staysResolved is the condition that a row in conflict is in the merged table.
func (k *keyedMerge) staysResolved() string {
	var which strings.Builder
	for n, r := range k.order.Merge.Rules {
		if r.Column != "" {
			continue
		}
		switch r.Take {
		case sideOurs:
			fmt.Fprintf(&which, " WHEN %s THEN in_o", k.fits(n, "j."))
		case sideTheirs:
			fmt.Fprintf(&which, " WHEN %s THEN in_t", k.fits(n, "j."))
		}
	}
	if which.Len() == 0 {
		return "in_o AND in_t"
	}
	return "in_o AND in_t OR (CASE" + which.String() + " ELSE false END)"
}

// listConflicts fills conflictsTable with what no rule decides.
func (k *keyedMerge) listConflicts(ctx context.Context) (*protocol.Merged, error) {
	var key []protocol.Column
	for _, c := range k.columns {
		if c.key {
			key = append(key, c.Column)
		}
	}
	if err := k.createConflicts(ctx, key); err != nil {
		return nil, err
	}
	merged := &protocol.Merged{}
	var rows int64
	if err := k.db.conn.QueryRowContext(ctx, "SELECT count(*) FROM "+conflictedTable).Scan(&rows); err != nil {
		return nil, err
	}
	if rows == 0 {
		return merged, nil
	}
	add := func(i int, kind, when, decided string) error {
		text := func(side, in string) string {
			return fmt.Sprintf("CASE WHEN %s THEN TRY(CAST(%s%d AS VARCHAR)) END", in, side, i)
		}
		source := " FROM " + conflictedTable + " AS j WHERE " + when
		var all, done int64
		if err := k.db.conn.QueryRowContext(ctx, "SELECT count(*), count(*) FILTER (WHERE "+decided+")"+source).Scan(&all, &done); err != nil {
			return ruleError(err)
		}
		merged.Conflicts, merged.Resolved = merged.Conflicts+all-done, merged.Resolved+done
		if all == done {
			return nil
		}
		return k.db.exec(ctx, fmt.Sprintf("INSERT INTO %s SELECT %s, %s, %s, %s, %s, %s%s AND NOT %s", conflictsTable, k.keyNames("j."), literal(k.columns[i].Name), kind,
			text("b", "in_b"), text("o", "in_o"), text("t", "in_t"), source, decided))
	}
	deleted := k.decides(-1, sideOurs, sideTheirs)
	for i, c := range k.columns {
		cell := k.cell(i)
		var err error
		switch {
		case cell == "":
		case c.dropped() && c.ours:
			err = add(i, literal(protocol.ConflictDropped), "in_o AND in_t AND "+cell, k.decides(i, sideTheirs))
		case c.dropped():
			err = add(i, literal(protocol.ConflictDropped), "in_o AND in_t AND "+cell, k.decides(i, sideOurs))
		default:
			kind := fmt.Sprintf("CASE WHEN in_b THEN %s ELSE %s END", literal(protocol.ConflictCell), literal(protocol.ConflictInserted))
			err = add(i, kind, "in_o AND in_t AND "+cell, k.decides(i, sideBase, sideOurs, sideTheirs, ""))
		}
		if err != nil {
			return nil, err
		}
		for side, when := range map[string]string{"o": "in_o AND NOT in_t", "t": "in_t AND NOT in_o"} {
			if edited := k.edited(i, side); edited != "" {
				if err := add(i, literal(protocol.ConflictDeleted), "in_b AND "+when+" AND "+edited, deleted); err != nil {
					return nil, err
				}
			}
		}
	}
	return merged, k.sortConflicts(ctx, key)
}

// sortConflicts puts conflicts into the key's order, those of one row side by side.
func (k *keyedMerge) sortConflicts(ctx context.Context, key []protocol.Column) error {
	const sorted = `memory.main."conflicts in order"`
	columns, err := k.db.describeQuery(ctx, "SELECT * FROM "+conflictsTable)
	if err != nil {
		return err
	}
	for _, s := range []string{
		"CREATE TABLE " + sorted + " AS SELECT * FROM " + conflictsTable + " ORDER BY " + canonicalOrder(append(inKeyOrder(k.key, key), columns[len(key):]...)),
		"DROP TABLE " + conflictsTable,
		"ALTER TABLE " + sorted + ` RENAME TO "conflicts"`,
	} {
		if err := k.db.exec(ctx, s); err != nil {
			return err
		}
	}
	return nil
}
