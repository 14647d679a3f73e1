package hooks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/exec/pyenv"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/tree"
)

// lock reads the state's headgate.lock; a state without one has an empty lock.
// Errors are *pyenv.Error if the file is there and wrong.
func (e *evaluation) lock(ctx context.Context) (*pyenv.Lock, error) {
	return lockAt(ctx, e.store, e.tree)
}

func lockAt(ctx context.Context, store objects.Reader, root objects.OID) (*pyenv.Lock, error) {
	entry, err := tree.Lookup(ctx, store, root, pyenv.LockFile)
	if errors.Is(err, objects.ErrNotFound) {
		return &pyenv.Lock{}, nil
	}
	if err != nil {
		return nil, err
	}
	if entry.Mode != gitobj.ModeFile && entry.Mode != gitobj.ModeExec {
		return nil, &pyenv.Error{Text: pyenv.LockFile + " is not a regular file"}
	}
	info, err := store.Stat(ctx, entry.OID)
	if err != nil {
		return nil, err
	}
	if info.Size > pyenv.MaxLock {
		return nil, &pyenv.Error{Text: fmt.Sprintf("%s has %d bytes, the limit is %d", pyenv.LockFile, info.Size, pyenv.MaxLock)}
	}
	data, err := objects.ReadAll(ctx, store, entry.OID, objects.Blob, pyenv.MaxLock)
	if err != nil {
		return nil, err
	}
	return pyenv.ParseLock(data)
}

// environments makes what the plan's Python functions run in. What headgate.lock
// lacks is added to the state.
func (r *run) environments(ctx context.Context) error {
	lock, err := r.lock(ctx)
	var refused *pyenv.Error
	if errors.As(err, &refused) {
		return r.reject(refused.Text)
	}
	if err != nil {
		return err
	}
	var added []string
	problems, err := r.sess.Prepare(ctx, r.plan, exec.Preparing{
		Lock:   lock,
		Permit: r.permit,
		Begin: func(e *pyenv.Environment) {
			r.say.line("env", "python "+e.Python, "composing %d wheel(s), downloading those that are not here: %s", len(e.Wheels), clip(e.Summary(), 120))
		},
		Done: func(p exec.Prepared) {
			if !p.Locked {
				added = append(added, p.Spec.String())
			}
			r.rec.environment(p)
			r.say.line("env", "python "+p.Python, "%s", prepared(p))
		},
	})
	if err != nil {
		return err
	}
	if len(problems) > 0 {
		return r.reject(problems...)
	}
	if len(added) == 0 {
		return nil
	}
	text := lock.Encode()
	if len(text) > pyenv.MaxLock {
		return r.reject(fmt.Sprintf("%s would have %d bytes, the limit is %d; run headgate lock, which removes what no function declares any more", pyenv.LockFile, len(text), pyenv.MaxLock))
	}
	oid, err := r.q.Put(ctx, objects.Blob, int64(len(text)), bytes.NewReader(text))
	if err != nil {
		return err
	}
	if err := r.edit(ctx, map[string]tree.Edit{pyenv.LockFile: {Mode: gitobj.ModeFile, OID: oid}}); err != nil {
		return err
	}
	r.warn(fmt.Sprintf("%s did not have %s; what was found now is added to it (headgate lock does so before a push)", pyenv.LockFile, strings.Join(added, ", nor ")))
	return nil
}

// permit holds the whole closure of an environment against the policy at the
// target's tip.
func (r *run) permit(e *pyenv.Environment) error {
	for _, w := range e.Wheels {
		if !slices.Contains(r.policy.Python.Deny, w.Package) {
			continue
		}
		if _, declared := e.Packages[w.Package]; declared {
			return fmt.Errorf("package %q is denied by the policy (python.packages.deny)", w.Package)
		}
		return fmt.Errorf("package %q, which %s depends on, is denied by the policy (python.packages.deny)", w.Package, e.Spec)
	}
	return nil
}

// prepared tells what an environment holds and what it took.
func prepared(p exec.Prepared) string {
	text := clip(p.Summary(), 120)
	if p.Made.Wheels == 0 {
		return text
	}
	return fmt.Sprintf("%s; %d wheel(s), %s downloaded, %s", text, p.Made.Wheels, megabytes(p.Made.Bytes), seconds(p.Took))
}

func megabytes(n int64) string {
	if n < 1e5 {
		return fmt.Sprintf("%d kB", (n+999)/1000)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}
