package exec

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/sandbox"
)

// expectedMutants is how many mutants one expectation is shown while a push waits.
// Those beyond count as not noticed by it.
const expectedMutants = 60

// expectEntry is what the cache remembers of an expectation and mutants.
type expectEntry struct {
	Key    string          `json:"key"` // see passEntry
	Why    string          `json:"why,omitempty"`
	Killed map[string]bool `json:"killed"`
}

// ScoreExpectations shows what no verifier in SQL has noticed to the expectations in Python,
// and marks in scored what they refuse. The tables are as for Score. One that cannot be
// asked has noticed nothing, and is named among the unsound.
func (s *Session) ScoreExpectations(ctx context.Context, p *plan.Plan, score *protocol.Score, scored *protocol.Scored, bound []Bound, out Sink) error {
	todo := make(map[*plan.Verifier][]*protocol.Mutant)
	var order []*plan.Verifier
	for i := range scored.Tables {
		for _, v := range Watchers(p, score, score.Targets[i].Name) {
			for j := range scored.Tables[i].Mutants {
				if todo[v] == nil {
					order = append(order, v)
				}
				todo[v] = append(todo[v], &scored.Tables[i].Mutants[j])
			}
		}
	}
	for _, v := range order {
		var left []*protocol.Mutant
		for _, m := range todo[v] {
			if m.Status == protocol.MutantSurvived && len(left) < expectedMutants {
				left = append(left, m)
			}
		}
		if len(left) == 0 {
			continue
		}
		killed, why, err := s.expect(ctx, v, score, left, bound, out)
		var f *Failure
		if errors.As(err, &f) {
			killed, why, err = nil, f.Text, nil
		}
		if err != nil {
			return err
		}
		if why != "" {
			scored.Unsound = append(scored.Unsound, protocol.UnsoundCheck{Name: v.Name, Reason: why})
		}
		for _, m := range left {
			if killed[m.Name] {
				m.Status, m.By, m.Remedy = protocol.MutantKilled, v.Name, nil
			}
		}
	}
	return nil
}

// expect shows mutants to one expectation. why is set if it says nothing of faults.
func (s *Session) expect(ctx context.Context, v *plan.Verifier, score *protocol.Score, mutants []*protocol.Mutant, bound []Bound, out Sink) (killed map[string]bool, why string, err error) {
	at, err := s.placeOf(v.Kind, &v.Declared)
	if err != nil {
		return nil, "", err
	}
	emit := *score
	emit.Checks, emit.Emit, emit.Wanted = nil, []string{protocol.NoMutant}, nil
	for _, m := range mutants {
		emit.Emit = append(emit.Emit, m.Name)
	}
	for _, in := range v.Inputs {
		emit.Wanted = append(emit.Wanted, protocol.Table{Name: in.Table, Param: in.Param, Select: in.Columns, Filter: in.Filter})
	}
	code, err := json.Marshal(&emit)
	if err != nil {
		return nil, "", err
	}
	key := action{Op: opScore + ", python", Code: v.Code.String() + string(code), Env: at.env.String() + s.rt.env.Worker.String(), Inputs: actionInputs(bound)}.key()
	var known expectEntry
	if s.cached(key, &known) && known.Key == key.String() {
		return known.Killed, known.Why, nil
	}
	known = expectEntry{Key: key.String(), Killed: make(map[string]bool)}
	dir, done, err := s.tempDir()
	if err != nil {
		return nil, "", err
	}
	defer done()
	var u Usage
	files, err := s.mutantFiles(ctx, &emit, bound, dir, &u)
	if err != nil {
		return nil, "", err
	}
	var shown []protocol.Mutant
	for _, m := range files {
		switch {
		case len(m.Files) == len(v.Inputs):
			shown = append(shown, m)
		case m.Name != protocol.NoMutant && m.Status == protocol.MutantSurvived && len(m.Files) == 0:
			known.Killed[m.Name] = true // a model fails on it, and so would the run
		}
	}
	if len(shown) == 0 || shown[0].Name != protocol.NoMutant {
		return nil, "", fmt.Errorf("expectation %s: the worker did not send its tables", v.Name)
	}
	lim := s.limits(v.Resources)
	job := s.job(sandbox.KindPython, at.python, lim, &protocol.Order{Op: protocol.OpPyExpect, Path: codeRoot, Module: v.Path, Function: v.Function})
	job.Packages, job.Log = at.packages, limited(out.Log)
	s.stageCode(ctx, &job, v.Files)
	const below = "mutants/"
	ExpectCases(job.Order, v, shown, func(name string) string {
		job.Inputs = append(job.Inputs, linkFile(below+name, filepath.Join(dir, name)))
		return inputRoot + below + name
	})
	answer, err := s.run(ctx, job, &u)
	if err != nil {
		return nil, "", err
	}
	verdicts, err := ExpectAnswers(answer, v, len(shown))
	if err != nil {
		return nil, "", err
	}
	if verdicts[0] != "" {
		known.Why, known.Killed = "without any fault: "+verdicts[0], nil
	} else {
		for i, m := range shown[1:] {
			if verdicts[i+1] != "" {
				known.Killed[m.Name] = true
			}
		}
	}
	s.remember(key, known)
	return known.Killed, known.Why, nil
}

// mutantFiles has a worker write mutants to files in dir. What came out of its sandbox is
// foreign: it goes into another one unread.
func (s *Session) mutantFiles(ctx context.Context, emit *protocol.Score, bound []Bound, dir string, u *Usage) ([]protocol.Mutant, error) {
	job := s.job(sandbox.KindWorker, "", s.opt.Limits, &protocol.Order{Op: protocol.OpScore, Score: emit})
	sent := make(map[string]bool)
	job.Files = func(name string, n int64, r io.Reader) error {
		sent[name] = true
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
		if err != nil {
			return &protocol.FormatError{Reason: fmt.Sprintf("file %q cannot be kept", name)}
		}
		if _, err := io.Copy(f, r); err != nil {
			return fmt.Errorf("keep a mutant: %w", joinClose(err, f))
		}
		return f.Close()
	}
	s.stage(ctx, &job, bound)
	answer, err := s.run(ctx, job, u)
	if err != nil {
		return nil, err
	}
	if answer.Score == nil {
		return nil, errors.New("the worker did not answer with mutants")
	}
	var all []protocol.Mutant
	for _, t := range answer.Score.Tables {
		all = append(all, t.Mutants...)
	}
	for _, m := range all {
		for _, f := range m.Files {
			if !sent[f.Name] {
				return nil, fmt.Errorf("the worker names a file %q that it did not send", f.Name)
			}
		}
	}
	return all, nil
}
