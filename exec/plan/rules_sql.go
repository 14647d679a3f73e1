package plan

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A rule is two queries. The first gives one row if the rule is violated, and
// nothing else does: its column "finding" says the figure and the bound, the others
// hold the figures. The second gives the rows that show it, and is
// evaluated only then.
//
// The two states of a table may differ in their columns. Both sides are read
// with the columns of both: those of the base first, NULL where a side has none.

// asBase and asNow are the table at the base and in the state, with the same columns.
func asBase(name string) string {
	return fmt.Sprintf("(SELECT * FROM %s UNION ALL BY NAME SELECT * FROM %s WHERE false)", baseTable(name), quoteTable(name))
}

func asNow(name string) string {
	return fmt.Sprintf("(SELECT * FROM %s WHERE false UNION ALL BY NAME SELECT * FROM %s)", baseTable(name), quoteTable(name))
}

func baseTable(name string) string { return quote("base") + "." + quoteTable(name) }

// sameKey is the condition that two rows have one key.
func sameKey(left, right string, key []string) string {
	terms := make([]string, len(key))
	for i, k := range key {
		terms[i] = fmt.Sprintf("%s.%s IS NOT DISTINCT FROM %s.%s", left, quote(k), right, quote(k))
	}
	return strings.Join(terms, " AND ")
}

func number(f float64) string {
	s := strconv.FormatFloat(f, 'g', -1, 64)
	if !strings.ContainsAny(s, ".e") {
		s += ".0"
	}
	return "CAST(" + s + " AS DOUBLE)"
}

func text(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// allowed says what a pair of bounds allows.
func allowed(r *Rule) string {
	switch {
	case r.Max == nil:
		return "; allowed is a change of at least " + r.Min.Text
	case r.Min == nil:
		return "; allowed is a change of at most " + r.Max.Text
	}
	return fmt.Sprintf("; allowed is a change from %s to %s", r.Min.Text, r.Max.Text)
}

// exceeds is the condition that a change is beyond a bound.
func exceeds(change, base string, r *Rule) string {
	var terms []string
	add := func(b *Bound, op string) {
		switch {
		case b == nil:
		case b.Relative:
			terms = append(terms, fmt.Sprintf("%s > 0 AND %s %s %s * %s", base, change, op, number(b.Value), base))
		default:
			terms = append(terms, fmt.Sprintf("%s %s %s", change, op, number(b.Value)))
		}
	}
	add(r.Min, "<")
	add(r.Max, ">")
	return strings.Join(terms, " OR ")
}

func rowCountSQL(name string, r *Rule, key []string) (finding, evidence string) {
	finding = fmt.Sprintf(`SELECT format('rows went from {:,} to {:,} (', before, now) || printf('%%+d', now - before)
  || CASE WHEN before > 0 THEN printf(', %%+.2f%%%%', 100.0 * (now - before) / before) ELSE '' END || ')' || %s AS finding, before AS base_rows, now AS rows
FROM (SELECT (SELECT count(*) FROM %s) AS before, (SELECT count(*) FROM %s) AS now)
WHERE %s`, text(allowed(r)), baseTable(name), quoteTable(name), exceeds("(now - before)", "before", r))
	gone := fmt.Sprintf("SELECT * FROM %s EXCEPT ALL SELECT * FROM %s", asBase(name), asNow(name))
	more := fmt.Sprintf("SELECT * FROM %s EXCEPT ALL SELECT * FROM %s", asNow(name), asBase(name))
	if len(key) > 0 {
		// An edited row is not one that came and went.
		gone = fmt.Sprintf("SELECT b.* FROM %s AS b ANTI JOIN %s AS n ON %s", asBase(name), asNow(name), sameKey("b", "n", key))
		more = fmt.Sprintf("SELECT n.* FROM %s AS n ANTI JOIN %s AS b ON %s", asNow(name), asBase(name), sameKey("b", "n", key))
	}
	fewer := fmt.Sprintf("(SELECT count(*) FROM %s) < (SELECT count(*) FROM %s)", quoteTable(name), baseTable(name))
	evidence = fmt.Sprintf("SELECT 'gone' AS \"change\", * FROM (%s) WHERE %s UNION ALL SELECT 'new', * FROM (%s) WHERE NOT (%s)", gone, fewer, more, fewer)
	return finding, evidence
}

func nullRateSQL(name, column string, r *Rule, key []string) (finding, evidence string) {
	c := quote(column)
	side := func(from string) string {
		return fmt.Sprintf("(SELECT count(*) AS n, count(*) - count(%s) AS nulls FROM %s)", c, from)
	}
	var terms []string
	if r.Min != nil {
		terms = append(terms, "now - before < "+number(r.Min.Value))
	}
	if r.Max != nil {
		terms = append(terms, "now - before > "+number(r.Max.Value))
	}
	finding = fmt.Sprintf(`SELECT printf('NULLs in %%s went from %%.2f%%%% to %%.2f%%%% (%%+.2f points)', %s, 100 * before, 100 * now, 100 * (now - before)) || %s AS finding,
  before AS base_null_rate, now AS null_rate
FROM (SELECT b.nulls / b.n AS before, n.nulls / n.n AS now FROM %s AS b, %s AS n WHERE b.n > 0 AND n.n > 0)
WHERE %s`, text(column), text(allowed(r)), side(asBase(name)), side(asNow(name)), strings.Join(terms, " OR "))
	evidence = fmt.Sprintf("SELECT * FROM %s WHERE %s IS NULL", quoteTable(name), c)
	if len(key) > 0 && !slices.ContainsFunc(key, func(k string) bool { return strings.EqualFold(k, column) }) {
		// Those that were not NULL before come first.
		evidence = fmt.Sprintf("SELECT n.* FROM %s AS n LEFT JOIN %s AS b ON %s WHERE n.%s IS NULL ORDER BY (b.%s IS NULL)",
			quoteTable(name), asBase(name), sameKey("b", "n", key), c, c)
	}
	return finding, evidence
}

// distributionSQL compares the shares of rows in bins that the base gives: the
// population stability index is the sum of (now - base) * ln(now / base) over
// them (Karakoulas, "Empirical validation of retail credit-scoring models", 2004).
// A share counts as at least 1/10,000, so that an empty bin is finite.
func distributionSQL(name, column string, r *Rule) (finding, evidence string) {
	c := quote(column)
	fractions := make([]string, 0, r.Bins)
	for i := 1; i < r.Bins; i++ {
		fractions = append(fractions, strconv.FormatFloat(float64(i)/float64(r.Bins), 'g', -1, 64))
	}
	bins := fmt.Sprintf(`WITH "values at base" AS (SELECT %[1]s AS v, count(*) AS n FROM %[2]s GROUP BY 1),
"values now" AS (SELECT %[1]s AS v, count(*) AS n FROM %[3]s GROUP BY 1),
"edges of bins" AS (SELECT CASE WHEN (SELECT count(*) FROM "values at base" WHERE v IS NOT NULL) > %[4]d
  THEN list_sort(list_distinct(quantile_disc(%[1]s, [%[5]s]))) END AS edges FROM %[2]s),
"values of both" AS (SELECT coalesce(b.v, n.v) AS v, coalesce(b.n, 0) AS before, coalesce(n.n, 0) AS now
  FROM "values at base" AS b FULL JOIN "values now" AS n ON b.v IS NOT DISTINCT FROM n.v),
"bins of values" AS (SELECT CASE WHEN v IS NULL THEN 'NULL'
    WHEN edges IS NULL AND before > 0 THEN 'value ' || CAST(v AS VARCHAR)
    WHEN edges IS NULL THEN 'a new value'
    WHEN v > edges[-1] THEN 'above ' || CAST(edges[-1] AS VARCHAR)
    ELSE 'up to ' || CAST(list_filter(edges, lambda e: e >= v)[1] AS VARCHAR) END AS bin, before, now
  FROM "values of both", "edges of bins"),
"shares of bins" AS (SELECT bin, CAST(sum(before) AS BIGINT) AS base_rows, CAST(sum(now) AS BIGINT) AS rows,
    sum(before) / sum(sum(before)) OVER () AS base_share, coalesce(sum(now) / nullif(sum(sum(now)) OVER (), 0), 0) AS share
  FROM "bins of values" GROUP BY bin),
"index of bins" AS (SELECT *, (greatest(share, 1e-4) - greatest(base_share, 1e-4)) * ln(greatest(share, 1e-4) / greatest(base_share, 1e-4)) AS psi FROM "shares of bins")
`, c, asBase(name), asNow(name), FewValues, strings.Join(fractions, ", "))
	finding = bins + fmt.Sprintf(`SELECT printf('the distribution of %%s changed: its population stability index is %%.4f, allowed is %%s; most of it in the bin %%s', %s, psi, %s, bin) AS finding, psi
FROM (SELECT sum(psi) AS psi, arg_max(bin, psi) AS bin, sum(base_rows) AS n FROM "index of bins") WHERE n > 0 AND NOT psi <= %s`,
		text(column), text(strconv.FormatFloat(r.PSI, 'g', -1, 64)), number(r.PSI))
	return finding, bins + `SELECT bin, base_rows, rows, base_share, share, psi FROM "index of bins" ORDER BY psi DESC, bin`
}

// freshnessSQL looks at the newest value up to now by the clock: one from the future
// would hide that nothing comes any more.
func freshnessSQL(name, column string, r *Rule) (finding, evidence string) {
	c := quote(column)
	var terms, says []string
	newest := fmt.Sprintf("max(CAST(%s AS TIMESTAMP))", c)
	if r.MaxAge != nil {
		newest += fmt.Sprintf(" FILTER (WHERE CAST(%s AS TIMESTAMP) <= make_timestamp(epoch_us(now())))", c)
		terms = append(terms, fmt.Sprintf("newest IS NULL OR newest < make_timestamp(epoch_us(now())) - to_seconds(%d)", seconds(*r.MaxAge)))
		says = append(says, fmt.Sprintf("it may be %s old at %s UTC", FormatAge(*r.MaxAge), "' || strftime(make_timestamp(epoch_us(now())), '%Y-%m-%d %H:%M:%S') || '"))
	}
	if r.Advance != nil {
		terms = append(terms, fmt.Sprintf("before IS NOT NULL AND (newest IS NULL OR newest < before + to_seconds(%d))", seconds(*r.Advance)))
		say := "it may not be older than the base''s, "
		if *r.Advance > 0 {
			say = fmt.Sprintf("it must be %s newer than the base''s, ", FormatAge(*r.Advance))
		}
		says = append(says, say+"' || coalesce(CAST(before AS VARCHAR), 'which has none') || '")
	}
	finding = fmt.Sprintf(`SELECT 'the newest %s is ' || coalesce(CAST(newest AS VARCHAR), 'not there') || '; %s' AS finding, newest, before AS base_newest
FROM (SELECT (SELECT %s FROM %s) AS newest, (SELECT max(CAST(%s AS TIMESTAMP)) FROM %s) AS before)
WHERE %s`, strings.ReplaceAll(column, "'", "''"), strings.Join(says, ", and "), newest, asNow(name), c, asBase(name), strings.Join(terms, " OR "))
	return finding, fmt.Sprintf("SELECT * FROM %s ORDER BY %s DESC NULLS LAST LIMIT 20", quoteTable(name), c)
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

func reconcileSQL(name string, r *Rule) (finding, evidence string) {
	side := func(table, value, where string, by []string) string {
		var b strings.Builder
		b.WriteString("(SELECT ")
		for i, column := range by {
			fmt.Fprintf(&b, "%s AS %s, ", quote(column), quote(r.By[i]))
		}
		fmt.Fprintf(&b, "(%s\n) AS %s FROM %s", value, quote("value of it"), quoteTable(table))
		if where != "" {
			fmt.Fprintf(&b, " WHERE (%s\n)", where)
		}
		if len(by) > 0 {
			b.WriteString(" GROUP BY ALL")
		}
		return b.String() + ")"
	}
	on := "true"
	var groups, which []string
	if len(r.By) > 0 {
		on = sameKey("l", "r", r.By)
	}
	for _, column := range r.By {
		c := quote(column)
		groups = append(groups, fmt.Sprintf("coalesce(l.%s, r.%s) AS %s, ", c, c, c))
		which = append(which, fmt.Sprintf("%s || coalesce(CAST(%s AS VARCHAR), 'NULL')", text(column+" = "), c))
	}
	const v = `"value of it"`
	agree := fmt.Sprintf("l.%s IS NOT DISTINCT FROM r.%s", v, v)
	distance := ""
	if r.Tolerance.Value > 0 {
		limit := number(r.Tolerance.Value)
		if r.Tolerance.Relative {
			limit += " * abs(r." + v + ")"
		}
		agree = fmt.Sprintf("coalesce(abs(l.%[1]s - r.%[1]s) <= %[2]s, l.%[1]s IS NULL AND r.%[1]s IS NULL)", v, limit)
		distance = fmt.Sprintf(", l.%s - r.%s AS \"difference\"", v, v)
	}
	compared := fmt.Sprintf("WITH \"both sides\" AS (SELECT %sl.%s AS \"value\", r.%s AS to_value%s, %s AS \"they agree\" FROM %s AS l FULL JOIN %s AS r ON %s)\n",
		strings.Join(groups, ""), v, v, distance, agree, side(name, r.Value, r.Where, r.By), side(r.To, r.ToValue, r.ToWhere, r.ToBy), on)
	first := "''"
	if len(which) > 0 {
		first = strings.Join(which, " || ', ' || ") + " || ': '"
	}
	finding = compared + fmt.Sprintf(`SELECT format('{:,} of {:,} ', bad, n) || %s || first || %s AS finding, bad AS differ, n AS compared
FROM (SELECT count(*) AS n, count(*) FILTER (WHERE NOT "they agree") AS bad,
  min(%s || coalesce(CAST("value" AS VARCHAR), 'nothing') || ' against ' || coalesce(CAST(to_value AS VARCHAR), 'nothing')) FILTER (WHERE NOT "they agree") AS first FROM "both sides")
WHERE bad > 0`, text(fmt.Sprintf("values of %s differ from %s of %s; ", r.Value, r.ToValue, r.To)), text("; allowed is a difference of "+r.Tolerance.Text), first)
	order := ""
	if len(r.By) > 0 {
		order = " ORDER BY " + columnList(r.By)
	}
	return finding, compared + `SELECT * EXCLUDE ("they agree") FROM "both sides" WHERE NOT "they agree"` + order
}

func columnList(names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = quote(n)
	}
	return strings.Join(quoted, ", ")
}

// historySQL finds rows of the base that are gone or changed.
func historySQL(name string, r *Rule, key []string) (finding, evidence string) {
	where := ""
	if r.Where != "" {
		where = " WHERE (" + r.Where + "\n)"
	}
	before := fmt.Sprintf("(SELECT * FROM %s%s)", asBase(name), where)
	about := "rows of the base"
	if r.Where != "" {
		about += " where " + r.Where
	}
	if len(key) == 0 {
		list := "*"
		if len(r.Columns) > 0 {
			list = columnList(r.Columns)
		}
		evidence = fmt.Sprintf("SELECT %s FROM %s EXCEPT ALL SELECT %s FROM %s", list, before, list, asNow(name))
		return fmt.Sprintf("SELECT format('{:,} ', n) || %s AS finding, n AS \"gone or changed\" FROM (SELECT count(*) AS n FROM (%s)) WHERE n > 0",
			text(about+" are gone or changed; allowed are 0"), evidence), evidence
	}
	// A row as a whole goes by its table's name, unless a column has the same.
	const b, n = `"row at base"`, `"row now"`
	changed := b + " IS DISTINCT FROM " + n
	if len(r.Columns) > 0 {
		terms := make([]string, len(r.Columns))
		for i, column := range r.Columns {
			terms[i] = fmt.Sprintf("%s.%s IS DISTINCT FROM %s.%s", b, quote(column), n, quote(column))
		}
		changed = strings.Join(terms, " OR ")
	}
	// A key that is there several times is told of by the table's key. The comparison is
	// no part of the join: DuckDB would then compare each row with each.
	rows := fmt.Sprintf("SELECT 'gone' AS \"what became of it\", %[5]s.* FROM %[1]s AS %[5]s ANTI JOIN %[2]s AS %[6]s ON %[3]s"+
		" UNION ALL SELECT 'changed', %[5]s.* FROM %[1]s AS %[5]s JOIN %[2]s AS %[6]s ON %[3]s WHERE %[4]s", before, asNow(name), sameKey(b, n, key), changed, b, n)
	finding = fmt.Sprintf(`SELECT format('{:,} gone and {:,} changed of the ', gone, changed) || %s AS finding, gone, changed
FROM (SELECT count(*) FILTER (WHERE "what became of it" = 'gone') AS gone, count(*) FILTER (WHERE "what became of it" = 'changed') AS changed FROM (%s))
WHERE gone + changed > 0`, text(about+"; allowed are 0"), rows)
	return finding, rows
}

// MaxAge is the longest age that a rule may speak of.
const MaxAge = 100 * 365 * 24 * time.Hour

// ParseAge reads a duration of whole seconds, from 0 to MaxAge: "90s", "36h", "2d", "1w", "1d12h".
func ParseAge(s string) (time.Duration, error) {
	bad := fmt.Errorf("%q is not an age such as 36h, 2d or 1w", clip(s))
	if s == "0" {
		return 0, nil
	}
	units := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}
	var total time.Duration
	rest := s
	for rest != "" {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		if digits == 0 || digits > 9 || digits == len(rest) || units[rest[digits]] == 0 {
			return 0, bad
		}
		n, err := strconv.ParseInt(rest[:digits], 10, 64)
		unit := units[rest[digits]]
		if err != nil {
			return 0, bad
		}
		if n > int64((MaxAge-total)/unit) {
			return 0, fmt.Errorf("age %q is more than 100 years", clip(s))
		}
		total += time.Duration(n) * unit
		rest = rest[digits+1:]
	}
	if s == "" {
		return 0, bad
	}
	return total, nil
}

// FormatAge writes a duration as ParseAge reads it: "1d12h".
func FormatAge(d time.Duration) string {
	if d == 0 {
		return "0s"
	}
	var b strings.Builder
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}} {
		if n := d / u.unit; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.name)
			d -= n * u.unit
		}
	}
	return b.String()
}
