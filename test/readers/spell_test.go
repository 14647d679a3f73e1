package readers

import (
	"encoding/json"
	"fmt"
	"strings"
)

// spelledQuery returns SQL whose rows are objects of the columns' values in the
// spelling of zoo.py. Columns go by their places: their names are for others to test.
func spelledQuery(table string, columns []source) string {
	terms := make([]string, len(columns))
	for i, c := range columns {
		terms[i] = fmt.Sprintf("%s AS c%d", spelled(&c.Kind, quoted(c.Name), 0), i)
	}
	return "SELECT " + strings.Join(terms, ", ") + " FROM " + table
}

func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// spelled returns the SQL of a value's JSON. Names of lambdas' arguments differ by depth.
func spelled(k *kind, of string, depth int) string {
	arg := fmt.Sprintf("v%d", depth)
	text := func(sql string) string { return "CAST(" + sql + " AS VARCHAR)" }
	switch k.K {
	case "binary":
		return "lower(hex(" + of + "))"
	case "uuid":
		return "replace(" + text(of) + ", '-', '')"
	case "date":
		return text("date_diff('day', DATE '1970-01-01', " + of + ")")
	case "time":
		return text("epoch_us(" + of + ")")
	case "time_ns":
		return text("epoch_ns(" + of + ")")
	case "timestamp":
		return text("epoch_" + k.Unit + "(" + of + ")")
	case "interval":
		parts := make(map[string]string)
		for _, p := range []string{"year", "month", "day", "hour", "minute", "millisecond"} {
			parts[p] = "date_part('" + p + "', " + of + ")"
		}
		return fmt.Sprintf("CASE WHEN %s IS NOT NULL THEN concat_ws(',', %s * 12 + %s, %s, (%s * 60 + %s) * 60000 + %s) END",
			of, parts["year"], parts["month"], parts["day"], parts["hour"], parts["minute"], parts["millisecond"])
	case "list":
		return fmt.Sprintf("to_json(list_transform(%s, lambda %s: %s))", of, arg, spelled(k.Of, arg, depth+1))
	case "map":
		return fmt.Sprintf("to_json(list_transform(map_entries(%s), lambda %s: json_array(%s, %s)))",
			of, arg, spelled(k.Key, arg+".key", depth+1), spelled(k.Value, arg+".value", depth+1))
	case "struct":
		var fields []string
		for _, f := range k.Fields {
			name, field := f[0].(string), f[1].(*kind)
			fields = append(fields, "'"+name+"', "+spelled(field, of+"."+quoted(name), depth))
		}
		return fmt.Sprintf("CASE WHEN %s IS NULL THEN NULL ELSE json_object(%s) END", of, strings.Join(fields, ", "))
	case "text":
		return of + "::VARCHAR"
	}
	return text(of)
}

// decodeRows turns the rows of spelledQuery into columns.
func decodeRows(data []byte, columns []source) ([]Column, error) {
	out := make([]Column, len(columns))
	for i, c := range columns {
		out[i].Name = c.Name
	}
	for dec := json.NewDecoder(strings.NewReader(string(data))); dec.More(); {
		var row map[string]any
		if err := dec.Decode(&row); err != nil {
			return nil, err
		}
		for i := range out {
			out[i].Values = append(out[i].Values, row[fmt.Sprintf("c%d", i)])
		}
	}
	return out, nil
}
