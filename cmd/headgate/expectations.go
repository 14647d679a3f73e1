package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	runtime "github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/sdk"
)

// localExpectations runs expectations in Python over the mutants that no verifier in SQL
// has found, in an interpreter of the user's own.
type localExpectations struct {
	worker workerFlag
	python string
	plan   *localPlan
	inputs []protocol.Table
	score  *protocol.Score
	dir    string
	say    func(string)
}

// judge marks the mutants that an expectation finds.
func (l *localExpectations) judge(ctx context.Context, scored *protocol.Scored) error {
	// Which mutants each expectation is to see.
	todo := make(map[*plan.Verifier][]*protocol.Mutant)
	var order []*plan.Verifier
	for i := range scored.Tables {
		t := &scored.Tables[i]
		for _, v := range runtime.Watchers(l.plan.Plan, l.score, t.Name) {
			for j := range t.Mutants {
				if t.Mutants[j].Status == protocol.MutantSurvived {
					if todo[v] == nil {
						order = append(order, v)
					}
					todo[v] = append(todo[v], &t.Mutants[j])
				}
			}
		}
	}
	if len(order) == 0 {
		return nil
	}
	library, code, err := l.unpack()
	if err != nil {
		return err
	}
	for _, v := range order {
		if err := l.expectation(ctx, v, todo[v], library, code, scored); err != nil {
			return err
		}
	}
	return nil
}

// unpack writes the library and the lake's Python files to disk.
func (l *localExpectations) unpack() (library, code string, err error) {
	if l.python == "" {
		return "", "", errors.New("the lake has expectations in Python, and there is no interpreter; name one with --python PATH")
	}
	code = filepath.Join(l.dir, "code")
	for name, text := range l.plan.files {
		if filepath.Ext(name) != ".py" {
			continue
		}
		path := filepath.Join(code, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return "", "", err
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return "", "", err
		}
	}
	parent := filepath.Join(l.dir, "sdk")
	if err := os.Mkdir(parent, 0o700); err != nil {
		return "", "", err
	}
	library, err = sdk.Unpack(parent)
	return library, code, err
}

// expectation runs one expectation over mutants, after the tables as they are.
func (l *localExpectations) expectation(ctx context.Context, v *plan.Verifier, mutants []*protocol.Mutant, library, code string, scored *protocol.Scored) error {
	score := *l.score
	score.Checks, score.Emit, score.Wanted = nil, []string{protocol.NoMutant}, nil
	byName := make(map[string]*protocol.Mutant)
	for _, m := range mutants {
		if m.Status == protocol.MutantSurvived { // another expectation may have found it
			score.Emit = append(score.Emit, m.Name)
			byName[m.Name] = m
		}
	}
	for _, in := range v.Inputs {
		score.Wanted = append(score.Wanted, protocol.Table{Name: in.Table, Select: in.Columns, Filter: in.Filter})
	}
	dir, err := os.MkdirTemp(l.dir, "mutants-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l.say(fmt.Sprintf("expectation %s: %d mutants", v.Name, len(byName)))
	answer, err := l.worker.runWorker(ctx, &protocol.Order{Op: protocol.OpScore, Inputs: l.inputs, Score: &score}, func(name string, _ int64, r io.Reader) error {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		return errors.Join(err, f.Close())
	}, nil)
	if err != nil {
		return err
	}
	var all []protocol.Mutant
	if answer.Score != nil {
		for _, t := range answer.Score.Tables {
			all = append(all, t.Mutants...)
		}
	}
	plain := slices.IndexFunc(all, func(m protocol.Mutant) bool { return m.Name == protocol.NoMutant })
	if plain < 0 {
		return fmt.Errorf("expectation %s: the worker did not send its tables", v.Name)
	}
	why, err := l.run(ctx, v, []protocol.Mutant{all[plain]}, dir, library, code)
	if err != nil {
		return err
	}
	if why[0] != "" {
		scored.Unsound = append(scored.Unsound, protocol.UnsoundCheck{Name: v.Name, Reason: why[0]})
		return nil
	}
	// A fresh process for them all: the call before has passed, so it needs nothing more.
	all = slices.Delete(all, plain, plain+1)
	kill := func(name string) {
		if m := byName[name]; m != nil {
			m.Status, m.By, m.Remedy = protocol.MutantKilled, v.Name, nil
		}
	}
	var shown []protocol.Mutant
	for _, m := range all {
		switch {
		case m.Status == protocol.MutantEquivalent:
		case len(m.Files) == 0: // a model fails on it, and so would the run
			kill(m.Name)
		default:
			shown = append(shown, m)
		}
	}
	if len(shown) == 0 {
		return nil
	}
	if why, err = l.run(ctx, v, shown, dir, library, code); err != nil {
		return err
	}
	for i, m := range shown {
		if why[i] != "" {
			kill(m.Name)
		}
	}
	return nil
}

// run calls an expectation for each mutant, in one process, and returns why it refuses
// each, "" if it passes.
func (l *localExpectations) run(ctx context.Context, v *plan.Verifier, mutants []protocol.Mutant, dir, library, code string) ([]string, error) {
	order := &protocol.Order{Op: protocol.OpPyExpect, Path: code, Module: v.Path, Function: v.Function, TempDir: dir}
	runtime.ExpectCases(order, v, mutants, func(name string) string { return filepath.Join(dir, name) })
	cmd := exec.Command(l.python, "-m", "headgate._sandbox")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PYTHONPATH="+library, "PYTHONDONTWRITEBYTECODE=1", "HEADGATE_PREIMPORT=", "PYTHONHASHSEED=0")
	answer, err := runOrder(ctx, cmd, l.python, order, nil, nil)
	var bad *protocol.UserError
	if errors.As(err, &bad) { // it could not even be loaded
		return slices.Repeat([]string{strings.TrimSpace(bad.Message)}, len(mutants)), nil
	}
	if err != nil {
		return nil, err
	}
	return runtime.ExpectAnswers(answer, v, len(mutants))
}
