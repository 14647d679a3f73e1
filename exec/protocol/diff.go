package protocol

// Names of the two inputs of OpDiff. Each holds the parts that the other side does
// not have, in the order of its table; its columns are those of its whole table.
const (
	DiffOld = "old"
	DiffNew = "new"
)

// Diff says how two states of a table are compared (OpDiff).
type Diff struct {
	// Key are columns of both sides by which rows are paired. Without one, rows are
	// compared in their order, range by range, as lines of text are.
	Key []string `json:"key,omitempty"`
	// Ranges are the stretches of the two part lists that differ, in order. Together
	// they are all files of both inputs.
	Ranges []DiffRange `json:"ranges"`
}

// DiffRange is a stretch of the old parts, and what is in its place.
type DiffRange struct {
	Old DiffParts `json:"old"`
	New DiffParts `json:"new"`
}

// DiffParts are the next parts of one side.
type DiffParts struct {
	Parts int   `json:"parts"` // how many of the input's files
	First int64 `json:"first"` // number of the first one's first row in its table, from 0
}

// Kinds of difference between two states of a row.
const (
	RowRemoved = "removed"
	RowAdded   = "added"
	RowChanged = "changed"
)

// DiffRow is one row that is not the same on both sides. Values are DuckDB's text
// of them, null for NULL, one for each column of the side in the table's order.
type DiffRow struct {
	Kind    string    `json:"kind"`
	OldRow  int64     `json:"old_row,omitempty"` // number in the old table, from 1; 0 if it was added
	NewRow  int64     `json:"new_row,omitempty"` // number in the new table, from 1; 0 if it was removed
	Old     []*string `json:"old,omitempty"`
	New     []*string `json:"new,omitempty"`
	Changed []int     `json:"changed,omitempty"` // of a changed row: indices of the new columns with another value
}

// DiffCounts are the numbers of all rows that differ, whatever was sent of them.
type DiffCounts struct {
	Removed int64 `json:"removed"`
	Added   int64 `json:"added"`
	Changed int64 `json:"changed"`
}
