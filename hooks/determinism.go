package hooks

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/exec/plan"
)

// repeat evaluates a model a second time and says in what the result differs
// from the first; "" if in nothing. A second run that fails differs too: the first
// is then luck.
func (r *run) repeat(ctx context.Context, m *plan.Model, args exec.Arguments, first *exec.Result) (string, error) {
	r.say.line("model", m.Name, "runs a second time: sandbox.double_run is new")
	again, err := r.sess.Repeat(ctx, m, args, first, exec.Sink{})
	var f *exec.Failure
	switch {
	case errors.As(err, &f):
		r.concealFailure(f)
		return "a second run on the same inputs failed: " + f.Text, nil
	case err != nil:
		return "", err
	case again.Tree == first.Table.Tree:
		return "", nil
	}
	what := difference(ctx, r.sess, first.Table, again)
	if what == "" {
		what = "other rows"
	}
	return "a second run on the same inputs gave something else: " + r.hide.Text(what), nil
}

// determinism records what a second run showed.
func (rec *ModelRecord) determinism(tried, doubted bool) {
	if tried || doubted {
		steady := !doubted
		rec.Deterministic = &steady
	}
}

// clockWarning says where a model reads the clock; "" if it does not. A word such
// as current_date is a column where an input has one of that name.
func clockWarning(m *plan.Model, bound []exec.Bound) string {
	columns := make(map[string]bool)
	for _, b := range bound {
		for _, c := range b.Table.Meta.Columns {
			columns[strings.ToLower(c.Name)] = true
		}
	}
	var names []string
	line := 0
	for _, read := range m.Clock {
		if read.Word && columns[read.Name] {
			continue
		}
		if line == 0 {
			line = read.Line
		}
		names = append(names, read.Name)
	}
	if len(names) == 0 {
		return ""
	}
	return fmt.Sprintf("%s:%d: model %s reads the clock (%s): its result changes from run to run", m.Path, line, m.Name, strings.Join(names, ", "))
}
