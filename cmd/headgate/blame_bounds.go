package main

import (
	"encoding/json"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"

	"github.com/headgate/headgate/objects/table"
)

// outsideOf reports whether a value, in DuckDB's own spelling, cannot be in a part
// with these bounds of a column. It says so only of types whose order is known from
// their texts; of all others a part may hold anything.
func outsideOf(columnType string, s table.Stats, value string) bool {
	if s.Min == nil || s.Max == nil {
		return false
	}
	low, ok := boundText(s.Min)
	high, ok2 := boundText(s.Max)
	if !ok || !ok2 {
		return false
	}
	c, ok := compareAs(columnType, value, low)
	if ok && c < 0 {
		return true
	}
	c, ok = compareAs(columnType, value, high)
	return ok && c > 0
}

// boundText returns a bound of table.json as DuckDB's text.
func boundText(raw json.RawMessage) (string, bool) {
	if len(raw) > 0 && raw[0] == '"' {
		var text string
		err := json.Unmarshal(raw, &text)
		return text, err == nil
	}
	return string(raw), len(raw) > 0
}

// Texts of times whose order is that of their bytes: four digits of a year, and a
// fraction that is cut where only zeros follow.
var (
	plainDate = regexp.MustCompile(`^\d{4}-\d\d-\d\d$`)
	plainTime = regexp.MustCompile(`^(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d(\.\d+)?$`)
	plainUUID = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
)

// compareAs compares two values of a type by their texts; false if that cannot be said.
func compareAs(columnType, a, b string) (int, bool) {
	switch columnType {
	case "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT":
		return compareExact(a, b)
	case "FLOAT", "DOUBLE":
		x, err := strconv.ParseFloat(a, 64)
		y, err2 := strconv.ParseFloat(b, 64)
		if err != nil || err2 != nil || math.IsNaN(x) || math.IsNaN(y) || columnType == "FLOAT" && float32(x) == float32(y) {
			return 0, err == nil && err2 == nil && x == y
		}
		return compareOrdered(x, y), true
	case "VARCHAR":
		return strings.Compare(a, b), true
	case "DATE":
		return strings.Compare(a, b), plainDate.MatchString(a) && plainDate.MatchString(b)
	case "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIME":
		return strings.Compare(a, b), plainTime.MatchString(a) && plainTime.MatchString(b)
	case "TIMESTAMP WITH TIME ZONE":
		x, utc := strings.CutSuffix(a, "+00")
		y, utc2 := strings.CutSuffix(b, "+00")
		return strings.Compare(x, y), utc && utc2 && plainTime.MatchString(x) && plainTime.MatchString(y)
	case "UUID":
		return strings.Compare(a, b), plainUUID.MatchString(a) && plainUUID.MatchString(b)
	}
	if strings.HasPrefix(columnType, "DECIMAL(") {
		return compareExact(a, b)
	}
	return 0, false
}

// digits is what DuckDB writes of integers and decimals. A text with an exponent
// could be a number that no memory holds.
var digits = regexp.MustCompile(`^-?[0-9]{1,80}(\.[0-9]{1,80})?$`)

func compareExact(a, b string) (int, bool) {
	if !digits.MatchString(a) || !digits.MatchString(b) {
		return 0, false
	}
	x, ok := new(big.Rat).SetString(a)
	y, ok2 := new(big.Rat).SetString(b)
	if !ok || !ok2 {
		return 0, false
	}
	return x.Cmp(y), true
}

func compareOrdered(x, y float64) int {
	switch {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}
