package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"

	"github.com/headgate/headgate/exec/protocol"
)

// variableTypes are DuckDB's types of parameters that have a declared one.
var variableTypes = map[string]string{
	"str": "VARCHAR", "int": "BIGINT", "float": "DOUBLE", "bool": "BOOLEAN", "date": "DATE", "timestamp": "TIMESTAMP",
}

// setVariables gives the order's parameters to its query, which reads them with
// getvariable('name'). A value never becomes a part of the query's text.
func (db *database) setVariables(ctx context.Context, order *protocol.Order) error {
	db.variables = make(map[string]bool)
	for _, name := range slices.Sorted(maps.Keys(order.Params)) {
		value := "NULL"
		as, declared := variableTypes[order.ParamTypes[name]]
		switch v := order.Params[name].(type) {
		case nil:
			as = ""
		case string:
			value = literal(v)
			if !declared {
				as = "VARCHAR"
			}
		case bool, json.Number, int64, float64:
			value = literal(fmt.Sprint(v))
			if !declared {
				as = guessedType(fmt.Sprint(v))
			}
		default:
			return dataError("parameter %q is %T, which a query cannot have", name, v)
		}
		if as != "" {
			value = "CAST(" + value + " AS " + as + ")"
		}
		if err := db.exec(ctx, "SET VARIABLE "+identifier(name)+" = "+value); err != nil {
			u := userError(err)
			return dataError("parameter %q: %s", name, u.Message)
		}
		db.variables[strings.ToLower(name)] = true
	}
	return nil
}

// guessedType is the type of a boolean or a number that is declared with none.
func guessedType(text string) string {
	n, isInteger := new(big.Int).SetString(text, 10)
	switch {
	case text == "true", text == "false":
		return "BOOLEAN"
	case !isInteger:
		return "DOUBLE"
	case n.IsInt64():
		return "BIGINT"
	}
	return "HUGEINT"
}

// variables returns the names of the variables that a query reads. DuckDB gives
// NULL for one that is not set, so a name must be written out to be checked.
func variables(sql string, v any) ([]string, error) {
	var names []string
	var walk func(v any) error
	walk = func(v any) error {
		switch v := v.(type) {
		case []any:
			for _, child := range v {
				if err := walk(child); err != nil {
					return err
				}
			}
		case map[string]any:
			if name, _ := v["function_name"].(string); v["class"] == "FUNCTION" && strings.EqualFold(name, "getvariable") {
				name, ok := constantText(list(v["children"]))
				if !ok {
					return sqlError(sql, location(v), "getvariable needs the name of a parameter, written as a text: getvariable('day')")
				}
				if !slices.Contains(names, name) {
					names = append(names, name)
				}
			}
			for _, key := range slices.Sorted(maps.Keys(v)) {
				if err := walk(v[key]); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if err := walk(v); err != nil {
		return nil, err
	}
	slices.Sort(names)
	return names, nil
}

// constantText returns the one argument of a call if it is a text.
func constantText(children []any) (string, bool) {
	if len(children) != 1 {
		return "", false
	}
	child, _ := children[0].(map[string]any)
	value, _ := child["value"].(map[string]any)
	text, ok := value["value"].(string)
	return text, ok && child["class"] == "CONSTANT"
}

// checkVariables refuses a query that reads a variable which the order does not set.
func (db *database) checkVariables(st *statement) error {
	for _, name := range st.variables {
		if !db.variables[strings.ToLower(name)] {
			return sqlError(st.sql, strings.Index(st.sql, name), "there is no parameter %q here: a model declares it with -- headgate: params=[%s]", name, name)
		}
	}
	return nil
}
