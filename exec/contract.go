package exec

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/sandbox"
	"github.com/headgate/headgate/objects/table"
)

// maxBroken bounds how many columns of a broken contract are named.
const maxBroken = 20

// Contract holds a table against the columns that its model declares and returns
// what is not as declared, a sentence for each column: missing, not declared, or
// of another type. Their order is not part of it. An error that is a *Failure
// means that the declaration makes no sense.
func (s *Session) Contract(ctx context.Context, m *plan.Model, t *Table) ([]string, error) {
	if len(m.Columns) == 0 {
		return nil, nil
	}
	types, err := s.canonicalTypes(ctx, m)
	if err != nil {
		return nil, err
	}
	return broken(m.Columns, types, t.Meta.Columns), nil
}

// broken compares what is declared with what there is. types are of those
// declared columns that have one.
func broken(declared []string, types map[string]string, have []table.Column) []string {
	found := make(map[string]string, len(have))
	for _, c := range have {
		found[c.Name] = c.Type
	}
	var wrong []string
	for _, name := range declared {
		want, is := types[name], found[name]
		switch {
		case is == "":
			wrong = append(wrong, fmt.Sprintf("column %q is missing: expected %s, found none", name, orAny(want)))
		case want != "" && want != is:
			wrong = append(wrong, fmt.Sprintf("column %q has another type: expected %s, found %s", name, want, is))
		}
	}
	for _, c := range have {
		if !slices.Contains(declared, c.Name) {
			wrong = append(wrong, fmt.Sprintf("column %q is not declared: expected none, found %s", c.Name, c.Type))
		}
	}
	if more := len(wrong) - maxBroken; more > 0 {
		wrong = append(wrong[:maxBroken], fmt.Sprintf("and %d more columns are not as declared", more))
	}
	return wrong
}

func orAny(t string) string {
	if t == "" {
		return "any type"
	}
	return t
}

// canonicalTypes returns the declared types as a table.json names them.
func (s *Session) canonicalTypes(ctx context.Context, m *plan.Model) (map[string]string, error) {
	if len(m.Types) == 0 {
		return nil, nil
	}
	names := slices.Sorted(maps.Keys(m.Types))
	written := make([]string, len(names))
	for i, name := range names {
		written[i] = m.Types[name]
	}
	code, err := json.Marshal(written)
	if err != nil {
		return nil, err
	}
	key := action{Op: string(protocol.OpTypes), Code: string(code), Env: s.rt.env.Worker.String()}.key()
	var canonical []string
	if !s.cached(key, &canonical) {
		answer, err := s.ask(ctx, sandbox.KindWorker, "", &protocol.Order{Op: protocol.OpTypes, Types: written})
		if err != nil {
			if f, ok := err.(*Failure); ok {
				f.Text = fmt.Sprintf("%s: columns: %s", m.Path, f.Text)
			}
			return nil, err
		}
		canonical = answer.Types
		s.remember(key, canonical)
	}
	if len(canonical) != len(names) {
		return nil, fmt.Errorf("asked for %d types, worker answered %d", len(names), len(canonical))
	}
	types := make(map[string]string, len(names))
	for i, name := range names {
		types[name] = canonical[i]
	}
	return types, nil
}
