package hooks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/pyenv"
	"github.com/headgate/headgate/hooks/policy"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/table"
	"github.com/headgate/headgate/objects/tree"
)

// How a proposal changes a verifier of its target's tip.
const (
	verifierAdded    = "added"
	verifierRemoved  = "removed"
	verifierEdited   = "edited"            // its code, or which tables it reads
	verifierWeakened = "weakened"          // its severity, from error to warn, and perhaps more
	verifierMoved    = "other environment" // a Python function's packages, by headgate.lock
	tablesUnchanged  = "its tables are as they were at the tip, where it held"
	tableGone        = "its table is gone, and it was the table's own rule"
	fixVerifierFirst = "publish the change of the verifier first, in a push that leaves its tables as they are, and then this one"
)

// VerifierChange is what a proposal does to the verifiers of its target's tip.
type VerifierChange struct {
	Name   string `json:"name"`
	Path   string `json:"path,omitempty"` // at the tip; in the proposal if it is added
	Change string `json:"change"`         // "added", "removed", "edited", "weakened", "other environment"
	// NotRun is why the tip's own did not judge the proposal; "" if it did.
	NotRun string `json:"not_run,omitempty"`
}

// standing are the verifiers of the target's tip that the proposal does not have
// as they are there. They judge it too: what a push is judged by is not its own
// to choose.
type standing struct {
	changes   []VerifierChange
	verifiers []*plan.Verifier // of the tip
	at        []int            // index into changes, for each of verifiers
	touched   []string         // paths at the base of the models and verifiers that are changed, wherever the change is
	made      map[string]bool  // the tables that the base's models make
	sess      *exec.Session    // for those in Python, with the packages that the tip has locked; nil if there are none
}

// holds tells whether v is one of the tip's. A nil standing has none.
func (s *standing) holds(v *plan.Verifier) bool { return s != nil && slices.Contains(s.verifiers, v) }

// change returns what the proposal does to one of the tip's verifiers.
func (s *standing) change(v *plan.Verifier) *VerifierChange {
	return &s.changes[s.at[slices.Index(s.verifiers, v)]]
}

// standingAt finds the verifiers of the base that still stand: settings are the
// base's own policy. open gives a session for the packages that the base has
// locked. The error is a *plan.Error if the base's code makes no plan, and a
// *pyenv.Error if its environments are at fault.
func (e *evaluation) standingAt(ctx context.Context, settings *policy.Policy, open func() *exec.Session) (_ *standing, err error) {
	from := settings.PlanSettings()
	from.Packages, from.Denied = []string{"*"}, nil // they were allowed when they were published
	at, err := plan.Build(ctx, e.store, e.baseTree, from, e.sess)
	if err != nil {
		return nil, err
	}
	s := &standing{made: make(map[string]bool, len(at.Models))}
	defer func() {
		if err != nil && s.sess != nil {
			err = errors.Join(err, s.sess.Close())
		}
	}()
	moved, err := e.movedVerifiers(ctx, s, at, open)
	if err != nil {
		return nil, err
	}
	own := make(map[string]*plan.Verifier, len(e.plan.Verifiers))
	for i := range e.plan.Verifiers {
		own[strings.ToLower(e.plan.Verifiers[i].Name)] = &e.plan.Verifiers[i]
	}
	known := make(map[string]bool, len(at.Verifiers))
	for i := range at.Verifiers {
		v := &at.Verifiers[i]
		known[strings.ToLower(v.Name)] = true
		change := verifierMoved
		if !moved[v] {
			change = changeOf(v, own[strings.ToLower(v.Name)], e.plan.Verifiers)
		}
		if change != "" {
			s.at = append(s.at, len(s.changes))
			s.verifiers = append(s.verifiers, v)
			s.touch(v)
			s.changes = append(s.changes, VerifierChange{Name: v.Name, Path: v.Path, Change: change})
		}
	}
	for i := range e.plan.Verifiers {
		if v := &e.plan.Verifiers[i]; !known[strings.ToLower(v.Name)] {
			s.changes = append(s.changes, VerifierChange{Name: v.Name, Path: v.Path, Change: verifierAdded})
		}
	}
	s.touchModels(at.Models, e.plan.Models)
	if err := e.prepareStanding(ctx, s, s.verifiers, open); err != nil {
		return nil, err
	}
	return s, nil
}

// touch notes the path of a verifier that is changed.
func (s *standing) touch(v *plan.Verifier) {
	path := v.Path
	if path == table.FileName { // a key that the snapshot claims
		dir, err := table.Dir(v.Table)
		if err != nil {
			return // no table of a commit has such a name
		}
		path = dir + "/" + table.FileName
	}
	s.touched = append(s.touched, path)
}

// touchModels notes the paths of models that are changed: by their own file, or by
// one that they import.
func (s *standing) touchModels(was, is []plan.Model) {
	now := make(map[string]*plan.Model, len(is))
	for i := range is {
		now[is[i].Name] = &is[i]
	}
	for _, m := range was {
		s.made[m.Name] = true
		if next := now[m.Name]; next == nil || next.Code != m.Code {
			s.touched = append(s.touched, m.Path)
		}
	}
}

// changeOf says what became of a verifier of the tip: "" if the proposal has the
// same check, under this name or another, and as strict.
func changeOf(v, next *plan.Verifier, all []plan.Verifier) string {
	for i := range all {
		if sameCheck(v, &all[i]) && (all[i].Severity == plan.SeverityError || v.Severity == all[i].Severity) {
			return ""
		}
	}
	switch {
	case next == nil:
		return verifierRemoved
	case next.Severity == plan.SeverityWarn && v.Severity == plan.SeverityError:
		return verifierWeakened
	}
	return verifierEdited
}

// sameCheck tells whether two verifiers give the same verdict on the same tables.
func sameCheck(a, b *plan.Verifier) bool {
	return a.Kind == b.Kind && a.Code == b.Code && slices.EqualFunc(a.Inputs, b.Inputs, func(x, y plan.Input) bool {
		return strings.EqualFold(x.Table, y.Table) && x.Param == y.Param && x.Filter == y.Filter && slices.Equal(x.Columns, y.Columns)
	})
}

// movedVerifiers returns the tip's Python verifiers that would run with other
// packages in the state than at the tip: they can make another check of the same code.
func (e *evaluation) movedVerifiers(ctx context.Context, s *standing, at *plan.Plan, open func() *exec.Session) (map[*plan.Verifier]bool, error) {
	was, is := lockOID(ctx, e.store, e.baseTree), lockOID(ctx, e.store, e.tree)
	if was == is {
		return nil, nil
	}
	var same []*plan.Verifier
	for i := range at.Verifiers {
		v := &at.Verifiers[i]
		if v.Kind == plan.KindPython && slices.ContainsFunc(e.plan.Verifiers, func(o plan.Verifier) bool { return sameCheck(v, &o) }) {
			same = append(same, v)
		}
	}
	if err := e.prepareStanding(ctx, s, same, open); err != nil {
		return nil, err
	}
	moved := make(map[*plan.Verifier]bool)
	for _, v := range same {
		was, err := s.sess.Environment(v)
		if err != nil {
			return nil, err
		}
		is, err := e.sess.Environment(v)
		if err != nil {
			return nil, err
		}
		moved[v] = was != is
	}
	return moved, nil
}

// lockOID returns the blob of a tree's headgate.lock, zero if there is none.
func lockOID(ctx context.Context, r objects.Reader, root objects.OID) objects.OID {
	e, err := tree.Lookup(ctx, r, root, pyenv.LockFile)
	if err != nil {
		return objects.OID{} // what is wrong with it is found when it is read
	}
	return e.OID
}

// prepareStanding makes what Python verifiers of the tip run in, as the tip has it locked.
func (e *evaluation) prepareStanding(ctx context.Context, s *standing, verifiers []*plan.Verifier, open func() *exec.Session) error {
	python := &plan.Plan{}
	for _, v := range verifiers {
		if v.Kind == plan.KindPython {
			python.Verifiers = append(python.Verifiers, *v)
		}
	}
	if len(python.Verifiers) == 0 {
		return nil
	}
	lock, err := lockAt(ctx, e.store, e.baseTree)
	if err != nil {
		return err
	}
	if s.sess == nil {
		s.sess = open()
	}
	problems, err := s.sess.Prepare(ctx, python, exec.Preparing{Lock: lock})
	if err == nil && len(problems) > 0 {
		err = &pyenv.Error{Text: strings.Join(problems, "; ")}
	}
	return err
}

// stand finds the verifiers of the target's tip that judge the proposal although
// it does not have them. Where no gate binds, nothing does.
func (r *run) stand(ctx context.Context) error {
	if r.standsAlone() {
		return nil
	}
	pol, err := policyAt(ctx, r.q, r.base)
	if err == nil {
		r.standing, err = r.standingAt(ctx, pol, func() *exec.Session {
			return r.gate.cfg.Runtime.Session(r.q, r.lake.Actions, r.options())
		})
	}
	var code *plan.Error
	var bad *policy.Error
	var env *pyenv.Error
	var f *exec.Failure
	switch {
	case err == nil:
		r.showChanges()
		return nil
	case !errors.As(err, &code) && !errors.As(err, &bad) && !errors.As(err, &env) && !errors.As(err, &f):
		return fmt.Errorf("verifiers of the tip: %w", err)
	case (r.baseVerified || r.binding() && r.policy.Grants != nil) && !r.who.Admin:
		return r.reject(fmt.Sprintf("the verifiers of %s could not run, so nothing can be held against them: %v; an administrator can push a state in which they can be read", r.stands(), err))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.warn(fmt.Sprintf("the verifiers of %s cannot be read, so only the proposal's own judge it: %v", r.stands(), err))
	return nil
}

// standsAlone tells whether the proposal's own verifiers are all that judge it.
func (r *run) standsAlone() bool {
	return r.base.IsZero() || r.policy.GateOf(strings.TrimPrefix(string(r.target), headsPrefix)) == policy.Off
}

// showChanges tells the pusher and the record what the proposal does to the
// verifiers that judge it.
func (r *run) showChanges() {
	r.rec.VerifierChanges = r.standing.changes
	for _, c := range r.standing.changes {
		if c.Change != verifierAdded {
			r.say.line("verify", c.Name, "%s by this push (%s); as it is at the tip it judges this push too", strings.ToUpper(c.Change), c.Path)
		}
	}
}

// standingGroups binds the tip's verifiers to the state. One that has nothing to
// judge is left out, and its change says why; reasons are of those that cannot be bound.
func (r *run) standingGroups(ctx context.Context) (groups [][]exec.Checked, reasons []string, err error) {
	if r.standing == nil {
		return nil, nil, nil
	}
	atBase, err := r.baseTables(ctx)
	if err != nil {
		return nil, nil, err
	}
	var run []*plan.Verifier
	for _, v := range r.standing.verifiers {
		change := r.standing.change(v)
		own := v.Kind == plan.KindColumn && v.Path != PolicyFile
		switch missing := r.missing(v, atBase); {
		case missing != "" && own && strings.EqualFold(missing, v.Table):
			change.NotRun = tableGone
		case missing != "":
			reasons = append(reasons, r.standingError(v, fmt.Sprintf("the table %s is not in the state any more", missing)))
		case r.baseVerified && r.unchanged(v, atBase):
			change.NotRun = tablesUnchanged
		default:
			run = append(run, v)
		}
		if change.NotRun != "" {
			r.say.line("verify", v.Name, "as it is at the tip, it has nothing to judge: %s", change.NotRun)
		}
	}
	groups, err = r.group(ctx, run)
	return groups, reasons, err
}

// missing returns a table that a verifier reads and neither the state nor, for
// "base.x", the base has; "" if there is none.
func (e *evaluation) missing(v *plan.Verifier, atBase map[string]objects.OID) string {
	for _, in := range v.Inputs {
		name, isBase := strings.CutPrefix(in.Table, plan.BasePrefix)
		if _, there := atBase[name]; isBase && there {
			continue
		}
		if _, ok := e.find(name); !ok {
			return name
		}
	}
	return ""
}

// unchanged tells whether all that a verifier reads is as it was at the base.
func (e *evaluation) unchanged(v *plan.Verifier, atBase map[string]objects.OID) bool {
	for _, in := range v.Inputs {
		name := strings.TrimPrefix(in.Table, plan.BasePrefix)
		now, ok := e.find(name)
		if was, there := atBase[name]; !ok || !there || now.Tree != was {
			return false
		}
	}
	return true
}

// find returns a table of the state by its SQL name.
func (e *evaluation) find(name string) (*exec.Table, bool) {
	if t := e.tables[name]; t != nil {
		return t, true
	}
	for known, t := range e.tables {
		if strings.EqualFold(known, name) && t != nil {
			return t, true
		}
	}
	return nil, false
}

// standingError is why a verifier of the tip that cannot be evaluated refuses.
func (r *run) standingError(v *plan.Verifier, why string) string {
	return fmt.Sprintf("verifier %s of %s could not run on this state: %s; %s", v.Name, r.stands(), why, fixVerifierFirst)
}

// stands is where the verifiers are that stand although the proposal lacks them.
func (r *run) stands() string {
	if r.old.IsZero() {
		return "the base on main" // of a new branch
	}
	return strings.TrimPrefix(string(r.target), headsPrefix) + "'s tip"
}

// emptyLike is a table without rows and with the columns of another.
func emptyLike(t *exec.Table) *exec.Table {
	return &exec.Table{Meta: &table.Snapshot{Format: t.Meta.Format, Columns: t.Meta.Columns}}
}
