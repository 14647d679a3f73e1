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

// pair is what a name is on both sides; a zero entry is nothing.
type pair [2]gitobj.Entry

// dirs are the trees of a pair, zero where there is none.
func (p pair) dirs() (trees [2]objects.OID) {
	for side, e := range p {
		if e.Mode == gitobj.ModeTree {
			trees[side] = e.OID
		}
	}
	return trees
}

// file tells whether the pair is on some side anything but a directory.
func (p pair) file() bool {
	return p[0].Name != "" && p[0].Mode != gitobj.ModeTree || p[1].Name != "" && p[1].Mode != gitobj.ModeTree
}

// twin is a directory, or what might be one, that folds to the one that is walked.
type twin struct {
	path  string // ends with a slash
	trees [2]objects.OID
}

// list returns what is in a directory on either side, by name.
func (d *differ) list(ctx context.Context, trees [2]objects.OID) (map[string]pair, error) {
	pairs := make(map[string]pair)
	for side, oid := range trees {
		entries, err := tree.List(ctx, d.r, oid)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			p := pairs[e.Name]
			p[side] = e
			pairs[e.Name] = p
		}
	}
	return pairs, nil
}

func (d *differ) walk(ctx context.Context, trees [2]objects.OID, at string, twins []twin) error {
	if trees[0] == trees[1] {
		return nil
	}
	here, err := d.list(ctx, trees)
	if err != nil {
		return err
	}
	spellings := make(map[string][]twin) // fold of a name -> what folds to it, here and in the twins; without the last slash
	add := func(dir, name string, p pair) {
		fold := policy.Fold(name)
		spellings[fold] = append(spellings[fold], twin{dir + name, p.dirs()})
	}
	for name, p := range here {
		add(at, name, p)
	}
	for _, tw := range twins {
		there, err := d.list(ctx, tw.trees)
		if err != nil {
			return err
		}
		for name, p := range there {
			add(tw.path, name, p)
		}
	}
	if at == "" {
		for _, name := range guarded {
			if _, there := here[name]; !there {
				add("", name, pair{})
			}
		}
	}
	for name, p := range here {
		if p[0] == p[1] || d.skip != nil && d.skip(at+name) {
			continue
		}
		var paths []string
		var below []twin
		note := func(tw twin) {
			if tw.path != at+name && !slices.Contains(paths, tw.path) && len(paths) < maxTwins {
				paths = append(paths, tw.path)
				below = append(below, twin{tw.path + "/", tw.trees})
			}
		}
		for _, tw := range spellings[policy.Fold(name)] {
			note(tw)
		}
		for _, tw := range twins { // where the same name would be
			note(twin{path: tw.path + name})
		}
		if p.file() {
			d.found = append(d.found, edit{at + name, paths})
		}
		if err := d.walk(ctx, p.dirs(), at+name+"/", below); err != nil {
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
	if err := d.walk(ctx, [2]objects.OID{r.baseTree, r.pushed}, "", nil); err != nil {
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
