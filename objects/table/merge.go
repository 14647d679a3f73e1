package table

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Merge is what a three-way merge of snapshots comes to before a row is looked at:
// the schema, and which parts of the merged table are those of one side as they
// are. Only parts in Segments without Keep have to be opened.
type Merge struct {
	Columns  []Column // of the merged table; Nullable if it is on either side
	Key      []string
	Segments []Segment // in the order of the rows
	// Conflicts of the schema. If there are any, there are no segments.
	Conflicts []Conflict
}

// Segment is a stretch of a merged table: parts that stay as they are, or what
// each version has there, to be merged row by row.
type Segment struct {
	Keep               []Part
	Base, Ours, Theirs []Part
}

// ByRows reports whether the segment's rows have to be merged.
func (s *Segment) ByRows() bool { return s.Keep == nil }

// Conflict is something that both sides changed, each in its own way. Base, Ours
// and Theirs tell of it in words.
type Conflict struct {
	Kind   string `json:"kind"`   // "schema" or "key"
	Column string `json:"column"` // "" for the table as a whole
	Base   string `json:"base"`
	Ours   string `json:"ours"`
	Theirs string `json:"theirs"`
}

// PlanMerge plans the merge of ours and theirs, which both came of base; base is nil
// if the table is new on both sides.
//
// The schema is merged by columns' names: what one side added, dropped, widened or
// put elsewhere is so in the result; what both did alike is no conflict. Of types, only
// a widening (INTEGER to BIGINT) can be carried over to the other side's rows. A
// table without a key has no rows that could be told apart, so it is merged by ranges
// of parts, and not at all if its schema changed.
func PlanMerge(base, ours, theirs *Snapshot) *Merge {
	m := &Merge{}
	none := base == nil
	if none {
		base = &Snapshot{}
	}
	m.mergeColumns(base.Columns, ours.Columns, theirs.Columns)
	m.mergeKey(base, ours, theirs, none)
	reshaped := !none && !sameShape(base, m)
	reshaped = reshaped || !sameShape(ours, m) || !sameShape(theirs, m)
	if len(m.Key) == 0 && len(m.Conflicts) == 0 {
		switch {
		case none:
			m.conflict("key", "", "", "a new table without a key", "another new table of this name")
		case reshaped:
			m.conflict("schema", "", describe(base), describe(ours), describe(theirs))
		}
	}
	if len(m.Conflicts) > 0 {
		m.Segments = nil
		return m
	}
	if reshaped {
		m.Segments = []Segment{{Base: base.Parts, Ours: ours.Parts, Theirs: theirs.Parts}}
		return m
	}
	names := func(s *Snapshot) []string {
		list := make([]string, len(s.Parts))
		for i, p := range s.Parts {
			list[i] = p.File
		}
		return list
	}
	b, o, t := names(base), names(ours), names(theirs)
	for _, r := range Overlay(Align(b, o), Align(b, t)) {
		ourParts, theirParts := ours.Parts[r.Ours.From:r.Ours.To], theirs.Parts[r.Theirs.From:r.Theirs.To]
		switch {
		case !r.TheirsChanged || slices.Equal(o[r.Ours.From:r.Ours.To], t[r.Theirs.From:r.Theirs.To]):
			m.keep(ourParts)
		case !r.OursChanged:
			m.keep(theirParts)
		default:
			m.Segments = append(m.Segments, Segment{Base: base.Parts[r.Base.From:r.Base.To], Ours: ourParts, Theirs: theirParts})
		}
	}
	return m
}

func (m *Merge) keep(parts []Part) {
	if len(parts) == 0 {
		return
	}
	if last := len(m.Segments) - 1; last >= 0 && !m.Segments[last].ByRows() {
		m.Segments[last].Keep = append(m.Segments[last].Keep, parts...)
		return
	}
	m.Segments = append(m.Segments, Segment{Keep: slices.Clone(parts)})
}

func (m *Merge) conflict(kind, column, base, ours, theirs string) {
	m.Conflicts = append(m.Conflicts, Conflict{kind, column, base, ours, theirs})
}

// sameShape reports whether the snapshot's parts can be parts of the merged table.
func sameShape(s *Snapshot, m *Merge) bool {
	return slices.EqualFunc(s.Columns, m.Columns, func(a, b Column) bool { return a.Name == b.Name && a.Type == b.Type }) && slices.Equal(s.Key, m.Key)
}

func describe(s *Snapshot) string {
	var b strings.Builder
	for i, c := range s.Columns {
		if i > 0 {
			b.WriteString(", ")
		}
		if b.Len() > 500 {
			fmt.Fprintf(&b, "%d more", len(s.Columns)-i)
			break
		}
		b.WriteString(c.Name + " " + c.Type)
	}
	return b.String()
}

// mergeColumns merges by name. The order is that of the side that changed it, else
// ours; what only the other side added comes last.
func (m *Merge) mergeColumns(base, ours, theirs []Column) {
	skeleton, other := ours, theirs
	if sameOrder(base, ours) && !sameOrder(base, theirs) {
		skeleton, other = theirs, ours
	}
	taken := make(map[string]string)
	add := func(name string) {
		b, o, t := find(base, name), find(ours, name), find(theirs, name)
		c, ok := m.mergeColumn(name, b, o, t)
		if !ok {
			return
		}
		if before, clash := taken[strings.ToLower(name)]; clash {
			m.conflict("schema", name, "", fmt.Sprintf("there is a column %q", before), fmt.Sprintf("there is a column %q, which is the same name in SQL", name))
			return
		}
		taken[strings.ToLower(name)] = name
		m.Columns = append(m.Columns, c)
	}
	for _, c := range skeleton {
		add(c.Name)
	}
	for _, c := range other {
		if find(skeleton, c.Name) == nil {
			add(c.Name)
		}
	}
	if len(m.Columns) == 0 && len(m.Conflicts) == 0 {
		m.conflict("schema", "", "", "all columns but these were dropped", "all columns but these were dropped")
	}
}

// sameOrder reports whether the columns that both have are in one order.
func sameOrder(a, b []Column) bool {
	common := func(list, in []Column) []string {
		var names []string
		for _, c := range list {
			if find(in, c.Name) != nil {
				names = append(names, c.Name)
			}
		}
		return names
	}
	return slices.Equal(common(a, b), common(b, a))
}

func find(columns []Column, name string) *Column {
	for i := range columns {
		if columns[i].Name == name {
			return &columns[i]
		}
	}
	return nil
}

// mergeColumn returns what becomes of a column, of which any version may be nil;
// false if it is dropped, or in conflict.
func (m *Merge) mergeColumn(name string, b, o, t *Column) (Column, bool) {
	typeOf := func(c *Column) string {
		if c == nil {
			return "no column"
		}
		return c.Type
	}
	conflict := func() (Column, bool) {
		m.conflict("schema", name, typeOf(b), typeOf(o), typeOf(t))
		return Column{}, false
	}
	switch {
	case o == nil && t == nil:
		return Column{}, false
	case o == nil || t == nil:
		side := o
		if o == nil {
			side = t
		}
		switch {
		case b == nil:
			return *side, true // added
		case b.Type == side.Type:
			return Column{}, false // dropped; its cells must be as they were
		}
		return conflict()
	}
	c := Column{Name: name, Nullable: o.Nullable || t.Nullable, Type: o.Type}
	switch {
	case o.Type == t.Type:
	case b == nil:
		return conflict()
	case o.Type == b.Type && widens(b.Type, t.Type):
		c.Type = t.Type
	case t.Type == b.Type && widens(b.Type, o.Type):
	case widens(b.Type, o.Type) && widens(o.Type, t.Type):
		c.Type = t.Type
	case widens(b.Type, t.Type) && widens(t.Type, o.Type):
	default:
		return conflict()
	}
	return c, true
}

// mergeKey takes the key as one value that a side may have changed.
func (m *Merge) mergeKey(base, ours, theirs *Snapshot, none bool) {
	show := func(key []string) string {
		if len(key) == 0 {
			return "no key"
		}
		return "key (" + strings.Join(key, ", ") + ")"
	}
	switch {
	case slices.Equal(ours.Key, theirs.Key), !none && slices.Equal(theirs.Key, base.Key):
		m.Key = ours.Key
	case !none && slices.Equal(ours.Key, base.Key):
		m.Key = theirs.Key
	default:
		m.conflict("key", "", show(base.Key), show(ours.Key), show(theirs.Key))
		return
	}
	if len(m.Key) == 0 && !none && len(base.Key) > 0 {
		// Rows could be told apart, and no longer can: their order would be chance.
		m.conflict("key", "", show(base.Key), show(ours.Key), show(theirs.Key))
		return
	}
	for _, k := range m.Key {
		if find(ours.Columns, k) == nil || find(theirs.Columns, k) == nil || !none && find(base.Columns, k) == nil {
			m.conflict("key", k, show(base.Key), show(ours.Key), show(theirs.Key))
			return
		}
	}
}

var decimal = regexp.MustCompile(`^DECIMAL\((\d+),(\d+)\)$`)

// integerDigits is how many decimal digits the values of a type have at most.
var integerDigits = map[string]int{
	"TINYINT": 3, "SMALLINT": 5, "INTEGER": 10, "BIGINT": 19,
	"UTINYINT": 3, "USMALLINT": 5, "UINTEGER": 10, "UBIGINT": 20,
}

// wider lists the types without parameters that hold each value of a type exactly.
var wider = map[string][]string{
	"TINYINT":   {"SMALLINT", "INTEGER", "BIGINT", "FLOAT", "DOUBLE"},
	"SMALLINT":  {"INTEGER", "BIGINT", "FLOAT", "DOUBLE"},
	"INTEGER":   {"BIGINT", "DOUBLE"},
	"UTINYINT":  {"USMALLINT", "UINTEGER", "UBIGINT", "SMALLINT", "INTEGER", "BIGINT", "FLOAT", "DOUBLE"},
	"USMALLINT": {"UINTEGER", "UBIGINT", "INTEGER", "BIGINT", "FLOAT", "DOUBLE"},
	"UINTEGER":  {"UBIGINT", "BIGINT", "DOUBLE"},
	"FLOAT":     {"DOUBLE"},
	"DATE":      {"TIMESTAMP"},
}

// widens reports whether type b holds every value of a exactly.
func widens(a, b string) bool {
	if slices.Contains(wider[a], b) {
		return true
	}
	to := decimal.FindStringSubmatch(b)
	if to == nil {
		return false
	}
	whole, scale := integerDigits[a], 0
	if from := decimal.FindStringSubmatch(a); from != nil {
		whole, scale = number(from[1])-number(from[2]), number(from[2])
	}
	return whole > 0 && number(to[2]) >= scale && number(to[1])-number(to[2]) >= whole
}

// number reads digits that a pattern has found; a type has few of them.
func number(digits string) int {
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0
	}
	return n
}
