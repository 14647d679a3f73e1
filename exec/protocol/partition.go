package protocol

import (
	"fmt"
	"regexp"
	"strings"
)

// Partition is one term of a table's partitioning: a column, or the unit of
// time that a column's value falls in.
type Partition struct {
	Column string
	Unit   string // "year", "month", "day", "hour"; "" is the column's value itself
}

var (
	partitionUnit = regexp.MustCompile(`^(?i:(year|month|day|hour))\s*\(\s*(.+?)\s*\)$`)
	anyCall       = regexp.MustCompile(`^[A-Za-z_]+\s*\(.*\)$`)
)

// maxPartitionTerm bounds a term: a column's name and what is around it.
const maxPartitionTerm = 300

// ParsePartition reads "day" (a column) or "month(pickup)". A unit is truncation,
// as Iceberg's transforms are: month tells January 2023 from January 2024.
func ParsePartition(term string) (Partition, error) {
	if term == "" || len(term) > maxPartitionTerm {
		return Partition{}, fmt.Errorf("a term of %d bytes, want 1 to %d", len(term), maxPartitionTerm)
	}
	m := partitionUnit.FindStringSubmatch(term)
	if m == nil {
		if anyCall.MatchString(term) {
			return Partition{}, fmt.Errorf("%q: want a column, or year(...), month(...), day(...) or hour(...) of one", term)
		}
		return Partition{Column: term}, nil
	}
	return Partition{Column: m[2], Unit: strings.ToLower(m[1])}, nil
}
