package table

import (
	"slices"
	"strings"
)

// Kinds of SchemaChange.
const (
	ColumnAdded    = "added"
	ColumnDropped  = "dropped"
	ColumnRenamed  = "renamed" // in case only, which SQL does not tell apart
	ColumnRetyped  = "type"
	ColumnNullable = "nullable" // From and To are "true" or "false"
	ColumnsMoved   = "order"    // those that both have stand in another order; From and To list them
	KeyChanged     = "key"      // From and To list its columns, "" if there are none
)

// SchemaChange is one difference between the columns or keys of two snapshots.
type SchemaChange struct {
	Kind   string `json:"kind"`
	Column string `json:"column,omitempty"` // as the new snapshot spells it, if it has it
	From   string `json:"from,omitempty"`   // the type, of a dropped column too
	To     string `json:"to,omitempty"`     // the type, of an added column too
}

// SchemaChanges says what became of the columns and the key of one snapshot in
// another, in the order of the new columns; dropped ones come first. Columns are
// the same if SQL takes their names for one.
func SchemaChanges(old, new *Snapshot) []SchemaChange {
	var out []SchemaChange
	at := func(s *Snapshot, name string) int {
		return slices.IndexFunc(s.Columns, func(c Column) bool { return strings.EqualFold(c.Name, name) })
	}
	var before, after []string // what both have, as the new one spells it
	for _, c := range old.Columns {
		if i := at(new, c.Name); i < 0 {
			out = append(out, SchemaChange{Kind: ColumnDropped, Column: c.Name, From: c.Type})
		} else {
			before = append(before, new.Columns[i].Name)
		}
	}
	for _, c := range new.Columns {
		i := at(old, c.Name)
		if i < 0 {
			out = append(out, SchemaChange{Kind: ColumnAdded, Column: c.Name, To: c.Type})
			continue
		}
		after = append(after, c.Name)
		was := old.Columns[i]
		if was.Name != c.Name {
			out = append(out, SchemaChange{Kind: ColumnRenamed, Column: c.Name, From: was.Name, To: c.Name})
		}
		if was.Type != c.Type {
			out = append(out, SchemaChange{Kind: ColumnRetyped, Column: c.Name, From: was.Type, To: c.Type})
		}
		if was.Nullable != c.Nullable {
			text := map[bool]string{false: "false", true: "true"}
			out = append(out, SchemaChange{Kind: ColumnNullable, Column: c.Name, From: text[was.Nullable], To: text[c.Nullable]})
		}
	}
	if !slices.Equal(before, after) {
		out = append(out, SchemaChange{Kind: ColumnsMoved, From: strings.Join(before, ", "), To: strings.Join(after, ", ")})
	}
	if !slices.EqualFunc(old.Key, new.Key, strings.EqualFold) {
		out = append(out, SchemaChange{Kind: KeyChanged, From: strings.Join(old.Key, ", "), To: strings.Join(new.Key, ", ")})
	}
	return out
}

// RowKey returns the columns by which the rows of two snapshots are paired: the new
// key, or else the old one, if both sides have its columns; nil if there is none, and
// rows are compared in their order.
func RowKey(old, new *Snapshot) []string {
	for _, key := range [][]string{new.Key, old.Key} {
		if len(key) == 0 {
			continue
		}
		var spelt []string // as the new snapshot does
		for _, k := range key {
			i := slices.IndexFunc(new.Columns, func(c Column) bool { return strings.EqualFold(c.Name, k) })
			if i >= 0 && slices.ContainsFunc(old.Columns, func(c Column) bool { return strings.EqualFold(c.Name, k) }) {
				spelt = append(spelt, new.Columns[i].Name)
			}
		}
		if len(spelt) == len(key) {
			return spelt
		}
	}
	return nil
}
