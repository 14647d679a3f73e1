package protocol

// Merge is what OpMerge merges (objects/table plans it).
type Merge struct {
	// Base, Ours and Theirs are the columns of the three versions; Base has none if
	// the table is new on both sides.
	Base   []Column `json:"base,omitempty"`
	Ours   []Column `json:"ours"`
	Theirs []Column `json:"theirs"`

	Columns  []Column       `json:"columns"` // of the merged table
	Segments []MergeSegment `json:"segments,omitempty"`
	// Conflicts are known before a row is looked at. If there are any, no row is.
	Conflicts []MergeConflict `json:"conflicts,omitempty"`
	// Rules say what becomes of conflicts; the first that fits one decides it.
	Rules []MergeRule `json:"rules,omitempty"`
}

// MergeSegment is a stretch of the merged table: files that stay as they are, or
// those of each version, to be merged by rows.
type MergeSegment struct {
	Keep []string `json:"keep,omitempty"`
	// Staged is how many of Keep are there, from the first on: rows of a merge before
	// them go on in them until a cut falls where one was (Merged.Short).
	Staged int      `json:"staged,omitempty"`
	Base   []string `json:"base,omitempty"`
	Ours   []string `json:"ours,omitempty"`
	Theirs []string `json:"theirs,omitempty"`
}

// MergeConflict is one that was found without rows: in the schema, or in the key.
type MergeConflict struct {
	Kind   string `json:"kind"`
	Column string `json:"column,omitempty"`
	Base   string `json:"base,omitempty"`
	Ours   string `json:"ours,omitempty"`
	Theirs string `json:"theirs,omitempty"`
}

// MergeRule decides conflicts of rows.
type MergeRule struct {
	Column string `json:"column,omitempty"` // "" fits all columns, and rows that a side deleted
	Where  string `json:"where,omitempty"`  // SQL over the key's columns; "" is all rows
	Take   string `json:"take,omitempty"`   // "base", "ours" or "theirs"; "" if SQL says
	SQL    string `json:"sql,omitempty"`    // a value, over the key's columns, base, ours and theirs
}

// Kinds of conflicts, as the column "kind" of a file of conflicts has them.
const (
	ConflictCell     = "cell"     // changed on both sides
	ConflictInserted = "inserted" // the row is new on both sides, and not alike
	ConflictDeleted  = "deleted"  // one side deleted the row, the other one changed this cell
	ConflictDropped  = "dropped"  // one side dropped the column, the other one changed this cell
	ConflictRange    = "range"    // without a key: both sides changed these rows
	ConflictSchema   = "schema"
	ConflictKey      = "key"
)

// Merged says how a merge went.
type Merged struct {
	// Conflicts that no rule decided. Without any, the answer's snapshot is the merged
	// table; else it is the table of the conflicts, one row each: the key's columns, then
	// "column", "kind", "base", "ours" and "theirs" as text.
	Conflicts int64            `json:"conflicts"`
	Resolved  int64            `json:"resolved"`          // that a rule decided
	Columns   []string         `json:"columns,omitempty"` // of the conflicts
	Sample    []map[string]any `json:"sample,omitempty"`  // the first of them, for the eye
	// Short: more of the parts that stay had to be there. Nothing was sent; ask again
	// with more of them staged.
	Short bool `json:"short,omitempty"`
}
