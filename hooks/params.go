package hooks

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/spelling"
)

// resolveParams gives every parameter of the plan its value: from the push
// options, else the default of the proposal's own settings, which are code like
// the models. It returns what is wrong, one sentence each.
func (e *evaluation) resolveParams(given map[string]string) []string {
	e.params = make(map[plan.Param]any)
	var wrong []string
	declared := make(map[string]bool)
	for _, m := range e.plan.Models {
		for _, p := range m.Params {
			declared[p.Name] = true
			if _, seen := e.params[declaration(p)]; seen {
				continue
			}
			text, ok := given[p.Name]
			v, err := p.Default, error(nil)
			if ok {
				v, err = plan.ParseParam(p.Type, text)
			}
			switch {
			case err != nil && p.Type != "":
				wrong = append(wrong, fmt.Sprintf("parameter %q is of the type %s: %v", p.Name, p.Type, err))
			case err != nil:
				wrong = append(wrong, fmt.Sprintf("parameter %q: %v", p.Name, err))
			case !ok && v == nil:
				wrong = append(wrong, e.noValue(m, p))
			}
			e.params[declaration(p)] = v
		}
	}
	names := slices.Sorted(maps.Keys(declared))
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if !declared[name] {
			wrong = append(wrong, fmt.Sprintf("no model declares the parameter %q%s", name, spelling.DidYouMean(name, names)))
		}
	}
	return wrong
}

// declaration is what is said of a parameter, whichever argument receives it. Two
// pipelines of Bauplan may say different things of one name.
func declaration(p plan.Param) plan.Param {
	p.Param = ""
	return p
}

func (e *evaluation) noValue(m plan.Model, p plan.Param) string {
	what := fmt.Sprintf("%q", p.Name)
	if d := e.next.Parameters[p.Name].Description; d != "" {
		what += " (" + d + ")"
	}
	return fmt.Sprintf("model %s: parameter %s has no value; push with -o param.%s=<value>, or give it a default in %s", m.Name, what, p.Name, PolicyFile)
}

// paramsOf returns the values of a model's parameters by argument, which is how
// the function gets them.
func (e *evaluation) paramsOf(m *plan.Model) (map[string]any, error) {
	params := make(map[string]any, len(m.Params))
	for _, p := range m.Params {
		v, ok := e.params[declaration(p)]
		if !ok {
			return nil, fmt.Errorf("model %s: parameter %q has no value", m.Name, p.Name)
		}
		params[p.Param] = v
	}
	return params, nil
}

// paramsByName returns the same values by the names under which they are given,
// for the record and the lineage.
func (e *evaluation) paramsByName(m *plan.Model) map[string]any {
	if len(m.Params) == 0 {
		return nil
	}
	params := make(map[string]any, len(m.Params))
	for _, p := range m.Params {
		params[p.Name] = e.params[declaration(p)]
	}
	return params
}

// canonicalJSON returns the one JSON text of values that plan.ParseParam gave,
// "" if there are none: keys sorted, no HTML escapes, integers as integers.
func canonicalJSON(values map[string]any) string {
	if len(values) == 0 {
		return ""
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(values); err != nil {
		panic(fmt.Sprintf("parameters as JSON: %v", err)) // texts, numbers, booleans and nil always have a form
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// parseCanonicalJSON returns the values that canonicalJSON wrote, as
// plan.ParseParam gives them: a number without a point is an integer.
func parseCanonicalJSON(text string) (map[string]any, error) {
	values := make(map[string]any)
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&values); err != nil {
		return nil, err
	}
	for name, v := range values {
		number, ok := v.(json.Number)
		if !ok {
			continue
		}
		if n, err := number.Int64(); err == nil {
			values[name] = n
		}
	}
	if canonicalJSON(values) != text {
		return nil, fmt.Errorf("%q is not the JSON that a gate writes", text)
	}
	return values, nil
}
