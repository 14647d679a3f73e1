package engine

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/protocol"
)

// remedy returns a verifier that passes on the tables as they are and finds the
// mutant that the views show: the first of those that are tried, in the order in which a
// reviewer would want them. What must hold of each row comes before what
// must hold of the whole, and that before what may not change at all.
func (s *scoring) remedy(ctx context.Context, m *mutant) (*protocol.Remedy, error) {
	candidates, err := s.candidates(ctx, m)
	if err != nil {
		return nil, err
	}
	for i := range candidates {
		c := &candidates[i]
		// On the mutant first: most fail there, and the views show it already.
		found, err := s.finds(ctx, body(c.SQL))
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil || !found {
			continue
		}
		found, err = s.findsInOriginal(ctx, m, c.SQL)
		if err != nil {
			return nil, err
		}
		if !found {
			return c, nil
		}
	}
	return nil, nil
}

// findsInOriginal asks a query of the table as it is. One that cannot be evaluated finds something.
func (s *scoring) findsInOriginal(ctx context.Context, m *mutant, query string) (bool, error) {
	if err := s.show(ctx, "memory", m.table.name, m.table.store); err != nil {
		return false, err
	}
	found, err := s.finds(ctx, body(query))
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	columns := identifiers(columnNames(m.table.columns))
	source := fmt.Sprintf("(SELECT %s FROM %s WHERE (%s) IS NOT TRUE UNION ALL SELECT %s FROM %s)", columns, m.table.store, m.victims, columns, aside)
	return found || err != nil, s.show(ctx, "memory", m.table.name, source)
}

// candidates lists verifiers that may find a mutant.
func (s *scoring) candidates(ctx context.Context, m *mutant) ([]protocol.Remedy, error) {
	t := m.table
	var all []protocol.Remedy
	add := func(r protocol.Remedy, err error) {
		if err == nil {
			all = append(all, r)
		}
	}
	switch m.operator {
	case "duplicate":
		if len(t.key) > 0 {
			add(protocol.Remedy{YAML: tableYAML(t.name, "key: "+flow(t.key...)), SQL: plan.KeySQL(t.name, t.key)}, nil)
		}
		for _, p := range t.profile {
			if p.distinct == t.rows && t.rows > 1 {
				add(columnTest(t.name, p.Name, plan.Test{Kind: plan.Unique}))
				break
			}
		}
		add(sqlFile(t.name, "rows_are_there_once", "No row is there twice.",
			fmt.Sprintf("SELECT *, count(*) AS times FROM %s GROUP BY ALL HAVING count(*) > 1", tableSQL(t.name))), nil)
	case "truncate":
		add(gapFile(t, m.column), nil)
	case "stale":
		zero := plan.Rule{Kind: plan.Freshness, Columns: []string{m.column}, Advance: new(time.Duration)}
		add(rule(t, m.column, zero, "freshness: {column: "+scalar(m.column)+", advance: 0}"))
	}
	if m.operator == "swap" {
		s.orderCandidates(m, add)
	}
	for _, name := range m.columns {
		p := &t.profile[slices.IndexFunc(t.profile, func(p columnProfile) bool { return p.Name == name })]
		if err := s.columnCandidates(ctx, m, p, add); err != nil {
			return nil, err
		}
	}
	s.changeCandidates(m, add)
	return all, nil
}

// columnCandidates are verifiers of one column.
func (s *scoring) columnCandidates(ctx context.Context, m *mutant, p *columnProfile, add func(protocol.Remedy, error)) error {
	t := m.table
	if m.operator == "null" {
		if p.nulls == 0 {
			add(columnTest(t.name, p.Name, plan.Test{Kind: plan.NotNull}))
		}
		// Half of what the mutant adds.
		bound := percent(0.5 / float64(min(int64(hitShare), t.rows)))
		add(rule(t, p.Name, plan.Rule{Kind: plan.NullRateChange, Columns: []string{p.Name}, Max: bound},
			fmt.Sprintf("null_rate_change: {columns: %s, max: %s}", flow(p.Name), bound.Text)))
		return nil
	}
	if m.relation != nil {
		to := &plan.Test{Kind: plan.Relationships, To: m.relation.To, Field: m.relation.Field}
		add(columnTest(t.name, p.Name, *to))
	}
	if p.kind == textColumn && p.distinct > 0 && p.distinct <= mostCategories && t.rows >= fewestRepeats*p.distinct {
		values, err := s.values(ctx, t, p)
		if err != nil {
			return err
		}
		add(columnTest(t.name, p.Name, plan.Test{Kind: plan.AcceptedValues, Values: values}))
	}
	if p.distinct == t.rows && t.rows > 1 {
		add(columnTest(t.name, p.Name, plan.Test{Kind: plan.Unique}))
	}
	if (p.kind == integerColumn || p.kind == fractionColumn) && p.least.Valid {
		for _, room := range []float64{0.1, 0} {
			if r, ok := rangeFile(t, p, room); ok {
				add(r, nil)
			}
		}
		bound := plan.Rule{Kind: plan.DistributionChange, Columns: []string{p.Name}, PSI: 0.1, Bins: plan.DefaultBins}
		add(rule(t, p.Name, bound, "distribution_change: {columns: "+flow(p.Name)+", max: 0.1}"))
	}
	if p.kind == timeColumn && p.least.Valid {
		zero := plan.Rule{Kind: plan.Freshness, Columns: []string{p.Name}, Advance: new(time.Duration)}
		add(rule(t, p.Name, zero, "freshness: {column: "+scalar(p.Name)+", advance: 0}"))
	}
	return nil
}

// orderCandidates are what may hold between two columns that were exchanged.
func (s *scoring) orderCandidates(m *mutant, add func(protocol.Remedy, error)) {
	a, b := m.columns[0], m.columns[1]
	for _, o := range []struct{ op, word, says string }{
		{"<=", "at_most", "is at most"}, {">=", "at_least", "is at least"}, {"<>", "is_not", "is never"},
	} {
		add(sqlFile(m.table.name, a+"_"+o.word+"_"+b, fmt.Sprintf("In each row %s %s %s.", a, o.says, b),
			fmt.Sprintf("SELECT * FROM %s WHERE NOT %s %s %s", tableSQL(m.table.name), identifier(a), o.op, identifier(b))), nil)
	}
}

// changeCandidates are rules about what a push may change. The last one finds
// whatever becomes of rows that were there.
func (s *scoring) changeCandidates(m *mutant, add func(protocol.Remedy, error)) {
	t := m.table
	half := percent(0.5 / float64(min(int64(hitShare), t.rows)))
	switch {
	case m.gone:
		least := &plan.Bound{Value: -half.Value, Relative: true, Text: "-" + half.Text}
		if m.operator == "truncate" { // a day may be less than that
			least = &plan.Bound{Text: "0"}
		}
		add(rule(t, "", plan.Rule{Kind: plan.RowCountChange, Min: least}, "row_count_change: {min: "+least.Text+"}"))
	case m.twice:
		add(rule(t, "", plan.Rule{Kind: plan.RowCountChange, Max: half}, "row_count_change: {max: "+half.Text+"}"))
		return
	}
	if len(m.columns) > 0 && len(t.key) > 0 {
		add(rule(t, "", plan.Rule{Kind: plan.ImmutableHistory, Columns: m.columns}, "immutable_history: {columns: "+flow(m.columns...)+"}"))
	}
	add(rule(t, "", plan.Rule{Kind: plan.ImmutableHistory}, "immutable_history"))
}

// values are the different values of a column, sorted.
func (s *scoring) values(ctx context.Context, t *original, p *columnProfile) ([]any, error) {
	id := identifier(p.Name)
	rows, err := s.db.conn.QueryContext(ctx, fmt.Sprintf("SELECT DISTINCT %s FROM %s WHERE %s IS NOT NULL ORDER BY 1", id, t.store, id))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var values []any
	for rows.Next() {
		var v string
		if err := rows.Scan(&v); err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	return values, rows.Err()
}

// percent is a share as it is written in headgate.yaml.
func percent(v float64) *plan.Bound {
	text := strconv.FormatFloat(100*v, 'g', 6, 64)
	exact, err := strconv.ParseFloat(text, 64)
	if err != nil {
		exact = 100 * v
	}
	return &plan.Bound{Value: exact / 100, Relative: true, Text: text + "%"}
}

// rule is a remedy for headgate.yaml.
func rule(t *original, column string, r plan.Rule, text string) (protocol.Remedy, error) {
	finding, _ := r.Compile(t.name, column, t.key)
	return protocol.Remedy{YAML: tableYAML(t.name, "rules: ["+text+"]"), SQL: finding}, nil
}

// columnTest is a remedy for headgate.yaml.
func columnTest(table, column string, test plan.Test) (protocol.Remedy, error) {
	query, err := test.Compile(table, column)
	text := string(test.Kind)
	switch test.Kind {
	case plan.AcceptedValues:
		values := make([]string, len(test.Values))
		for i, v := range test.Values {
			values[i] = fmt.Sprint(v)
		}
		text = "accepted_values: " + flow(values...)
	case plan.Relationships:
		text = fmt.Sprintf("relationships: {to: %s, field: %s}", scalar(test.To), scalar(test.Field))
	}
	return protocol.Remedy{YAML: tableYAML(table, "columns: {"+scalar(column)+": {tests: ["+text+"]}}"), SQL: query}, err
}

// rangeFile is a remedy that keeps numbers in the range that they have, and room beside it.
func rangeFile(t *original, p *columnProfile, room float64) (protocol.Remedy, bool) {
	least, err := strconv.ParseFloat(p.least.String, 64)
	most, err2 := strconv.ParseFloat(p.most.String, 64)
	if err != nil || err2 != nil || least != least || most != most {
		return protocol.Remedy{}, false
	}
	from, to, says := p.least.String, p.most.String, "has"
	if room > 0 {
		beside := room * (most - least)
		format := func(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
		low, high := least-beside, most+beside
		if least >= 0 && low < 0 {
			low = 0 // what is never negative is of a kind that cannot be
		}
		if p.kind == integerColumn {
			low, high = float64(int64(low)), float64(int64(high)+1)
		}
		from, to, says = format(low), format(high), "has, with some room"
	}
	return sqlFile(t.name, p.Name+"_in_range", fmt.Sprintf("%s is in the range that it %s: %s to %s.", p.Name, says, p.least.String, p.most.String),
		fmt.Sprintf("SELECT * FROM %s WHERE %s NOT BETWEEN %s AND %s", tableSQL(t.name), identifier(p.Name), from, to)), true
}

// gapFile is a remedy that wants every day between the first and the last.
func gapFile(t *original, column string) protocol.Remedy {
	return sqlFile(t.name, column+"_has_no_gap", "Between the first day and the last, every day is there.",
		fmt.Sprintf("SELECT unnest(generate_series(min(%[1]s)::DATE, max(%[1]s)::DATE, INTERVAL 1 DAY))::DATE AS missing FROM %[2]s\nEXCEPT\nSELECT %[1]s::DATE FROM %[2]s ORDER BY 1",
			identifier(column), tableSQL(t.name)))
}

var unfit = regexp.MustCompile(`[^a-z0-9]+`)

// sqlFile is a remedy that is a file below verifiers/.
func sqlFile(table, name, says, query string) protocol.Remedy {
	file := strings.Trim(unfit.ReplaceAllString(strings.ToLower(table+"_"+name), "_"), "_")
	says = strings.Join(strings.Fields(says), " ") // no column's name ends the comment
	return protocol.Remedy{Path: "verifiers/" + file[:min(len(file), 100)] + ".sql", SQL: "-- " + says + "\n" + query + "\n"}
}

// tableYAML is a piece of headgate.yaml about one table, in one line.
func tableYAML(table, what string) string {
	return "tables: {" + scalar(table) + ": {" + what + "}}"
}

var plainScalar = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*(?: [A-Za-z0-9_]+)*$`)

// scalar writes a text as YAML reads it: words that mean something else, and all
// but plain ones, in double quotes.
func scalar(s string) string {
	switch strings.ToLower(s) {
	case "true", "false", "yes", "no", "on", "off", "y", "n", "null", "nan", "inf":
		return strconv.Quote(s)
	}
	if plainScalar.MatchString(s) {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 || r == 0xfeff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// flow writes a list of texts as YAML.
func flow(texts ...string) string {
	quoted := make([]string, len(texts))
	for i, t := range texts {
		quoted[i] = scalar(t)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}
