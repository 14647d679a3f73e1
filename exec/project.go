package exec

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/sandbox"
)

// projections are the inputs of one session that were cut down to the columns
// and rows that functions declare, each once, by what they are cut from and to.
// Its files live as long as the session.
type projections struct {
	dir  string
	made map[Key]*projection // under Session.mu
}

// projection is one cut input, or one that is being cut.
type projection struct {
	done    chan struct{} // closed at the end; what follows is set by then
	ok      bool          // false: it is not in projections any more, and whoever needs it tries
	path    string
	columns []protocol.Column
}

// projected reports whether a function may see less of an input than all of it.
func projected(b Bound) bool {
	if b.Filter != "" {
		return true
	}
	if len(b.Columns) == 0 {
		return false
	}
	asked := make(map[string]bool, len(b.Columns))
	for _, c := range b.Columns {
		asked[strings.ToLower(c)] = true
	}
	for _, c := range b.Table.Meta.Columns {
		if !asked[strings.ToLower(c.Name)] {
			return true
		}
		delete(asked, strings.ToLower(c.Name))
	}
	return len(asked) > 0 // a column that is not there is an error of the cut
}

func projectionKey(b Bound) (Key, error) {
	doc, err := json.Marshal(struct {
		actionInput
		variables
	}{actionInput{Name: b.Input.Table, Tree: b.Table.Tree.String(), Columns: b.Columns, Filter: b.Filter}, b.variables})
	return sha256.Sum256(doc), err
}

// stageProjected stages the inputs of a Python function. One that declares
// columns or a filter is first cut down by a worker, all of them in one sandbox
// of our own code, so that what the function did not declare is not there to be
// read. What another function of the session has cut is taken from there.
func (s *Session) stageProjected(ctx context.Context, job *sandbox.Job, bound []Bound, u *Usage) error {
	var plain, cut []Bound
	for _, b := range bound {
		if projected(b) {
			cut = append(cut, b)
		} else {
			plain = append(plain, b)
		}
	}
	s.stage(ctx, job, plain)
	ready, err := s.project(ctx, cut, job.Limits, u)
	if err != nil {
		return err
	}
	for i, b := range cut {
		path := fmt.Sprintf("projected/%d.parquet", i)
		job.Inputs = append(job.Inputs, linkFile(path, ready[i].path))
		job.Order.Inputs = append(job.Order.Inputs, protocol.Table{
			Name: b.Input.Table, Param: b.Param, Columns: ready[i].columns, Files: []string{inputRoot + path},
		})
	}
	return nil
}

// project returns the projection of each input. It cuts those that nobody has
// claimed before it waits for those of others, so that no two functions wait for
// each other.
func (s *Session) project(ctx context.Context, bound []Bound, lim sandbox.Limits, u *Usage) ([]*projection, error) {
	ready := make([]*projection, len(bound))
	for {
		var own []Bound
		var claimed []Key
		var wait []*projection
		missing := false
		s.mu.Lock()
		for i, b := range bound {
			if ready[i] != nil && ready[i].ok {
				continue
			}
			key, err := projectionKey(b)
			if err != nil {
				s.mu.Unlock()
				return nil, err
			}
			missing = true
			p := s.projections.made[key]
			if p == nil {
				p = &projection{done: make(chan struct{})}
				s.projections.made[key] = p
				own, claimed = append(own, b), append(claimed, key)
			} else {
				wait = append(wait, p)
			}
			ready[i] = p
		}
		s.mu.Unlock()
		if !missing {
			return ready, nil
		}
		if len(own) > 0 {
			if err := s.cutInputs(ctx, own, claimed, lim, u); err != nil {
				return nil, err
			}
		}
		for _, p := range wait {
			select {
			case <-p.done:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		// One that another function failed to cut is nil in the next round: its
		// failure may have been due to the other inputs of that function.
	}
}

// cutInputs makes the projections that the caller has claimed.
func (s *Session) cutInputs(ctx context.Context, own []Bound, keys []Key, lim sandbox.Limits, u *Usage) (err error) {
	s.mu.Lock()
	claimed := make([]*projection, len(keys))
	for i, k := range keys {
		claimed[i] = s.projections.made[k]
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i, p := range claimed {
			if p.ok = err == nil; !p.ok {
				delete(s.projections.made, keys[i])
			}
			close(p.done)
		}
	}()
	dir, err := s.projectionDir()
	if err != nil {
		return err
	}
	defer func() {
		if err == nil {
			return
		}
		if rerr := os.RemoveAll(dir); rerr != nil {
			s.rt.log.Warn("remove inputs", "dir", dir, "err", rerr)
		}
	}()
	order := &protocol.Order{Op: protocol.OpProject, Params: make(map[string]any), ParamTypes: make(map[string]string)}
	for _, b := range own {
		maps.Copy(order.Params, b.variables.Values)
		maps.Copy(order.ParamTypes, b.variables.Types)
	}
	job := s.job(sandbox.KindWorker, "", s.ours(lim), order)
	paths := make(map[string]string, len(keys)) // by the name of the file frame, of those that are to come
	for i := range keys {
		name := fmt.Sprintf("%d.parquet", i)
		paths[name] = filepath.Join(dir, name)
	}
	job.Files = func(name string, n int64, r io.Reader) error {
		path, ok := paths[name]
		if !ok {
			return noFiles(name, n, r)
		}
		delete(paths, name)
		return s.spool(path)(name, n, r)
	}
	s.stage(ctx, &job, own)
	answer, err := s.run(ctx, job, u)
	if err != nil {
		return err
	}
	if len(answer.Projected) != len(own) || len(paths) > 0 {
		return fmt.Errorf("worker cut %d inputs of %d", len(answer.Projected), len(own))
	}
	for i, p := range claimed {
		p.path, p.columns = filepath.Join(dir, fmt.Sprintf("%d.parquet", i)), answer.Projected[i].Columns
	}
	return nil
}

// projectionDir makes a directory for what one job cuts.
func (s *Session) projectionDir() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.projections.dir == "" {
		dir, err := os.MkdirTemp(s.opt.TempDir, "inputs-")
		if err != nil {
			return "", err
		}
		s.projections.dir = dir
	}
	return os.MkdirTemp(s.projections.dir, "cut-")
}

// Close removes what the session kept for its functions, and lets go of their
// environments. No function may run.
func (s *Session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, release := range s.held {
		release()
	}
	s.held = nil
	dir := s.projections.dir
	s.projections = projections{made: make(map[Key]*projection)}
	if dir == "" {
		return nil
	}
	return os.RemoveAll(dir)
}
