package hooks

import (
	"cmp"
	"context"
	"slices"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/pyenv"
	"github.com/headgate/headgate/hooks/policy"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/table"
	"github.com/headgate/headgate/objects/tree"
)

// guarded are the names at the root of a lake that mean something to the gate. A
// name that is one of them in somebody's checkout is held against the same grants.
var guarded = []string{PolicyFile, pyenv.LockFile, plan.ModelsDir, plan.VerifiersDir, table.Root}

// maxTwins bounds how many other spellings of one path are held against grants.
const maxTwins = 100

// edit is a path in which two states differ.
type edit struct {
	path string
	// twins are other paths that are this one where names are not told apart by
	// case, normal form or invisible characters.
	twins []string
}

// differ finds the paths of files, links and submodules in which two trees differ,
// by what the trees hold and not by how a commit came to it: a rename is a
// removal and an addition.
type differ struct {
	r     objects.Reader
	skip  func(path string) bool // leaves a directory or a file out; nil leaves out none
	found []edit
}

func (d *differ) walk(ctx context.Context, was, is objects.OID, at string, twins []string) error {
	if was == is {
		return nil
	}
	before, err := tree.List(ctx, d.r, was)
	if err != nil {
		return err
	}
	after, err := tree.List(ctx, d.r, is)
	if err != nil {
		return err
	}
	pairs := make(map[string][2]gitobj.Entry, len(before)+len(after))
	spellings := make(map[string][]string) // fold -> names
	add := func(name string) {
		fold := policy.Fold(name)
		spellings[fold] = append(spellings[fold], name)
	}
	for side, entries := range [][]gitobj.Entry{before, after} {
		for _, e := range entries {
			pair, seen := pairs[e.Name]
			if !seen {
				add(e.Name)
			}
			pair[side] = e
			pairs[e.Name] = pair
		}
	}
	if at == "" {
		for _, name := range guarded {
			if _, there := pairs[name]; !there {
				add(name)
			}
		}
	}
	for name, pair := range pairs {
		if pair[0] == pair[1] || d.skip != nil && d.skip(at+name) {
			continue
		}
		var others []string
		for _, twin := range twins {
			others = append(others, twin+name)
		}
		for _, other := range spellings[policy.Fold(name)] {
			if other != name {
				others = append(others, at+other)
			}
		}
		others = others[:min(len(others), maxTwins)]
		var dirs [2]objects.OID
		file := false
		for side, e := range pair {
			switch {
			case e.Mode == gitobj.ModeTree:
				dirs[side] = e.OID
			case e.Name != "":
				file = true
			}
		}
		if file {
			d.found = append(d.found, edit{at + name, others})
		}
		below := make([]string, len(others))
		for i, other := range others {
			below[i] = other + "/"
		}
		if err := d.walk(ctx, dirs[0], dirs[1], at+name+"/", below); err != nil {
			return err
		}
	}
	return nil
}

// edits returns what the proposal changes of what the target has, sorted by path.
// What a model makes is left out: the gate writes it. A file that changes what a
// model or a verifier is, wherever it lies, is a change of theirs.
func (r *run) edits(ctx context.Context) ([]edit, error) {
	made := make(map[string]bool)
	for _, m := range r.plan.Models {
		dir, err := table.Dir(m.Name)
		if err != nil {
			return nil, err
		}
		made[dir] = true
	}
	taken, err := r.takenOver(ctx)
	if err != nil {
		return nil, err
	}
	d := &differ{r: r.q, skip: func(path string) bool { return made[path] }}
	if err := d.walk(ctx, r.baseTree, r.pushed, "", nil); err != nil {
		return nil, err
	}
	for _, dir := range taken { // whoever puts a model in its place decides its rows
		d.found = append(d.found, edit{path: dir + "/" + table.FileName})
	}
	if r.standing != nil {
		for _, path := range r.standing.touched {
			d.found = append(d.found, edit{path: path})
		}
	}
	slices.SortFunc(d.found, func(a, b edit) int { return cmp.Compare(a.path, b.path) })
	return slices.CompactFunc(d.found, func(a, b edit) bool { return a.path == b.path && slices.Equal(a.twins, b.twins) }), nil
}

// takenOver returns the directories of tables that no model of the base makes
// and one of the proposal does.
func (r *run) takenOver(ctx context.Context) ([]string, error) {
	atBase, err := r.baseTables(ctx)
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, m := range r.plan.Models {
		if _, there := atBase[m.Name]; !there || r.standing != nil && r.standing.made[m.Name] {
			continue
		}
		dir, err := table.Dir(m.Name)
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, dir)
	}
	return dirs, nil
}
