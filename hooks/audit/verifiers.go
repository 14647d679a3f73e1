package audit

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/headgate/headgate/hooks"
	"github.com/headgate/headgate/hooks/policy"
	"github.com/headgate/headgate/hooks/proof"
	"github.com/headgate/headgate/hooks/trailer"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/tree"
)

// maxPolicy bounds headgate.yaml, in bytes.
const maxPolicy = 1 << 20

// sqlFile is a function's file.
type sqlFile struct {
	path string
	oid  objects.OID
}

// verifiers checks that everything in the tree that must have judged it did: SQL
// verifiers and column tests of the commit, and those of its base. Expectations in
// Python can be told from other code by a planner only, as a replay has one; of
// those that the proof names, the file must be there.
func (w *checker) verifiers(ctx context.Context, s *proof.Statement) error {
	own := make(map[string]bool)     // paths of the commit's own
	names := make(map[string]bool)   // their names, in lower case
	atBase := make(map[string]bool)  // names of the base's that judged
	changed := make(map[string]bool) // paths and names at the base of which the proof tells
	for _, v := range s.Predicate.Verifiers {
		if v.AtBase {
			atBase[strings.ToLower(v.Name)] = true
			continue
		}
		own[v.Path], names[strings.ToLower(v.Name)] = true, true
	}
	models := make(map[string]bool)
	for _, m := range s.Predicate.Models {
		models[m.Path] = true
	}
	if err := w.complete(ctx, "models", models, "model"); err != nil {
		return err
	}
	if err := w.complete(ctx, "verifiers", own, "verifier"); err != nil {
		return err
	}
	for of, paths := range map[string]map[string]bool{"verifier": own, "model": models} {
		for p := range paths {
			if e, err := w.entry(ctx, w.c.Tree, p); err != nil {
				return err
			} else if e.OID.IsZero() && strings.Contains(p, "/") { // a test of the policy or of a snapshot is in no file of its own
				w.found(KindVerifier, "its proof names a %s in %s, which is not in the tree", of, p)
			}
		}
	}
	tests, err := w.testsOf(ctx, w.c.Tree)
	if err != nil {
		w.found(KindVerifier, "%s cannot be read: %v", hooks.PolicyFile, err)
	}
	for _, t := range tests {
		if !names[t] && !w.keyOfModel(t) {
			w.found(KindVerifier, "the test %s is in %s, and did not judge this commit", t, hooks.PolicyFile)
		}
	}
	for _, c := range s.Predicate.VerifierChanges {
		changed[c.Path], changed[strings.ToLower(c.Name)] = true, true
		if c.NotRun == "" && c.Change != "added" && !atBase[strings.ToLower(c.Name)] {
			w.found(KindVerifier, "verifier %s of its base was %s by the proposal, and did not judge it", c.Name, c.Change)
		}
	}
	return w.standing(ctx, s, names, changed)
}

// complete checks that every SQL file below a directory is named by the proof.
func (w *checker) complete(ctx context.Context, dir string, named map[string]bool, what string) error {
	files, err := w.sqlFiles(ctx, w.c.Tree, dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		if !named[f.path] {
			w.found(KindVerifier, "the %s %s is in the tree, and its proof does not name it", what, f.path)
		}
	}
	return nil
}

// standing checks that the base's verifiers judged the commit: those that are gone
// or are another file now must be told of as changed.
func (w *checker) standing(ctx context.Context, s *proof.Statement, names, changed map[string]bool) error {
	if w.base == nil {
		return nil
	}
	if says := s.Predicate.BuildDefinition.Internal.BaseVerifiers; says == proof.BaseUnreadable {
		w.notes = append(w.notes, fmt.Sprintf("the verifiers of %s's base could not be read when it was published, so they did not judge it", w.at))
		return nil
	} else if says != proof.BaseJudged {
		entries, err := w.list(ctx, w.base.Tree)
		if err != nil || len(entries) == 0 {
			return err
		}
		branch, _ := strings.CutPrefix(s.Predicate.BuildDefinition.External.Target, "refs/heads/")
		if pol, err := policyOf(ctx, w.r, w.base.Tree); err == nil && pol.GateOf(branch) != policy.Off {
			w.found(KindVerifier, "the verifiers of its base did not judge it, though the branch was gated")
		}
		return nil
	}
	before, err := w.sqlFiles(ctx, w.base.Tree, "verifiers")
	if err != nil {
		return err
	}
	now, err := w.sqlFiles(ctx, w.c.Tree, "verifiers")
	if err != nil {
		return err
	}
	for _, f := range before {
		same := slices.ContainsFunc(now, func(n sqlFile) bool { return n.oid == f.oid })
		if !same && !changed[f.path] {
			w.found(KindVerifier, "the verifier %s of its base is not in the tree as it was, and did not judge this commit", f.path)
		}
	}
	tests, err := w.testsOf(ctx, w.base.Tree)
	if err != nil {
		return nil // it could not be read then, either
	}
	for _, t := range tests {
		if !names[t] && !changed[t] && !w.keyOfModel(t) {
			w.found(KindVerifier, "the test %s of its base is gone, and did not judge this commit", t)
		}
	}
	return nil
}

// keyOfModel tells whether a test is of the key of a derived table, here or at the
// base: that is checked while the table is cut, and is no verifier.
func (w *checker) keyOfModel(test string) bool {
	name, ok := strings.CutSuffix(test, ":key")
	if !ok {
		return false
	}
	models := w.gate.Models
	if w.base != nil {
		if g, err := trailer.Parse(w.base.Message); err == nil {
			models = slices.Concat(models, g.Models)
		}
	}
	return slices.ContainsFunc(models, func(m trailer.Model) bool { return strings.EqualFold(m.Name, name) })
}

// sqlFiles lists the SQL files below a directory of a tree.
func (w *checker) sqlFiles(ctx context.Context, root objects.OID, dir string) ([]sqlFile, error) {
	top, err := w.entry(ctx, root, dir)
	if err != nil || top.Mode != gitobj.ModeTree {
		return nil, err
	}
	if files, ok := w.sql[top.OID]; ok {
		return files, nil
	}
	var files []sqlFile
	err = tree.Walk(ctx, w.r, top.OID, func(at string, e gitobj.Entry) error {
		switch hidden := strings.HasPrefix(path.Base(at), "."); {
		case hidden && e.Mode == gitobj.ModeTree:
			return tree.ErrSkipDir
		case !hidden && (e.Mode == gitobj.ModeFile || e.Mode == gitobj.ModeExec) && path.Ext(at) == ".sql":
			files = append(files, sqlFile{dir + "/" + at, e.OID})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(w.sql) >= maxCached {
		clear(w.sql)
	}
	w.sql[top.OID] = files
	return files, nil
}

// testsOf returns the names of the column tests and keys of a tree's policy, in
// lower case.
func (w *checker) testsOf(ctx context.Context, root objects.OID) ([]string, error) {
	e, err := w.entry(ctx, root, hooks.PolicyFile)
	if err != nil || e.OID.IsZero() {
		return nil, err
	}
	if tests, ok := w.tests[e.OID]; ok {
		return tests, nil
	}
	pol, err := policyOf(ctx, w.r, root)
	if err != nil {
		return nil, err
	}
	var tests []string
	for name, rules := range pol.PlanSettings().Tables {
		if len(rules.Key) > 0 {
			tests = append(tests, strings.ToLower(name+":key"))
		}
		for column, list := range rules.Columns {
			for _, t := range list {
				tests = append(tests, strings.ToLower(fmt.Sprintf("%s.%s:%s", name, column, t.Kind)))
			}
		}
	}
	slices.Sort(tests)
	if len(w.tests) >= maxCached {
		clear(w.tests)
	}
	w.tests[e.OID] = tests
	return tests, nil
}

// policyOf reads the policy of a tree.
func policyOf(ctx context.Context, r objects.Reader, root objects.OID) (*policy.Policy, error) {
	e, err := tree.Lookup(ctx, r, root, hooks.PolicyFile)
	if errors.Is(err, objects.ErrNotFound) {
		return policy.Default(), nil
	}
	if err != nil {
		return nil, err
	}
	data, err := objects.ReadAll(ctx, r, e.OID, objects.Blob, maxPolicy)
	if err != nil {
		return nil, err
	}
	return policy.Parse(hooks.PolicyFile, data)
}
