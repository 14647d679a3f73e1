package exec

import (
	"github.com/headgate/headgate/exec/plan"
)

// variables are the parameters that an input's filter reads: values for the
// worker that cuts the input, by name.
type variables struct {
	Values map[string]any    `json:"values,omitempty"`
	Types  map[string]string `json:"types,omitempty"`
}

// forFunction returns the parameters that a Python function itself receives, by argument.
func forFunction(params []plan.Param, values map[string]any) (map[string]any, map[string]string) {
	own := make([]plan.Param, 0, len(params))
	given := make(map[string]any, len(params))
	for _, p := range params {
		if !p.IsVariable() {
			own = append(own, p)
			given[p.Param] = values[p.Param]
		}
	}
	return given, typesOf(own)
}

// withVariables returns inputs with the values that their filters read.
func withVariables(bound []Bound, params []plan.Param, values map[string]any) []Bound {
	all := make([]Bound, len(bound))
	for i, b := range bound {
		for _, name := range b.Variables {
			for _, p := range params {
				if !p.IsVariable() || p.Name != name {
					continue
				}
				if b.variables.Values == nil {
					b.variables = variables{Values: make(map[string]any), Types: make(map[string]string)}
				}
				b.variables.Values[name] = values[p.Param]
				if p.Type != "" {
					b.variables.Types[name] = p.Type
				}
			}
		}
		all[i] = b
	}
	return all
}
