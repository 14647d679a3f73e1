package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/pyenv"
	"github.com/headgate/headgate/hooks"
	"github.com/headgate/headgate/hooks/policy"
	"github.com/headgate/headgate/objects/table"
	"github.com/headgate/headgate/sdk"
)

type lockCmd struct {
	Check   bool   `help:"Write nothing; exit with 1 if the lock is not up to date."`
	Upgrade bool   `help:"Resolve again what is locked already, to take newer versions."`
	JSON    bool   `help:"Print one JSON object." name:"json"`
	Python  string `help:"The interpreter that reads the declarations. Functions that name no Python are locked for python.default of headgate.yaml, else for its version." default:"python3" placeholder:"PATH"`
	Lake    string `help:"The checkout's directory." default:"." type:"existingdir" placeholder:"DIR"`
	uvFlag
}

// Help is shown below the command's flags.
func (lockCmd) Help() string {
	return `Examples:
  headgate lock && git add headgate.lock
  headgate lock --check          (in a pre-commit hook, or in CI)
  headgate lock --upgrade

Resolves what @headgate.python(pip={...}) declares with uv, from wheels alone, and
writes headgate.lock (PEP 751): every wheel of every environment by its sha256.
What is locked stays as it is, what no function declares any more is removed. The
gate uses exactly what is locked; without a lock it makes one. Declarations are
read without running the files.`
}

// lockReport is what the command did, for --json.
type lockReport struct {
	Lock         string              `json:"lock"`
	Current      bool                `json:"current"` // nothing was, or would be, changed
	Environments []lockedEnvironment `json:"environments"`
}

type lockedEnvironment struct {
	Group        string            `json:"group"`
	State        string            `json:"state"` // "kept", "added", "upgraded", "removed"; with --check "missing" for "added", "unused" for "removed"
	Python       string            `json:"python"`
	Requirements []string          `json:"requirements"`
	Packages     map[string]string `json:"packages,omitempty"`
	text         string
}

// Run brings headgate.lock up to date.
func (c *lockCmd) Run(ctx context.Context, std streams) error {
	lake, err := findCheckout(c.Lake)
	if err != nil {
		return err
	}
	python, err := exec.LookPath(c.Python)
	if err != nil {
		return fmt.Errorf("declarations are read by Python, and there is no %q; name an interpreter with --python PATH", c.Python)
	}
	path := filepath.Join(lake.root, pyenv.LockFile)
	old, before, err := readLock(path)
	if err != nil {
		return err
	}
	specs, err := lake.specs(ctx, python, old)
	if err != nil {
		return err
	}
	report, lock, err := c.update(ctx, python, specs, old)
	if err != nil {
		return err
	}
	report.Lock = path
	after := lock.Encode()
	if len(lock.Environments()) == 0 {
		after = nil
	}
	if !c.Check && !bytes.Equal(before, after) {
		if err := writeLock(path, after); err != nil {
			return err
		}
		report.Current = false
	}
	if err := c.print(std, report); err != nil {
		return err
	}
	if c.Check && !report.Current {
		return fmt.Errorf("%s is not up to date; run: headgate lock", pyenv.LockFile)
	}
	return nil
}

func readLock(path string) (*pyenv.Lock, []byte, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &pyenv.Lock{}, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	lock, err := pyenv.ParseLock(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%w (remove the file first)", err)
	}
	return lock, data, nil
}

// writeLock replaces the file at once; without content it is removed.
func writeLock(path string, content []byte) error {
	if content == nil {
		return os.Remove(path)
	}
	if err := os.WriteFile(path+".new", content, 0o666); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// update makes the lock of specs, with what old has of them.
func (c *lockCmd) update(ctx context.Context, python string, specs []pyenv.Spec, old *pyenv.Lock) (*lockReport, *pyenv.Lock, error) {
	uv := &pyenv.UV{Path: c.UV, Python: func(string) string { return python }}
	if uv.Path == "" {
		uv.Path = pyenv.FindUV(python)
	}
	lock := &pyenv.Lock{}
	report := &lockReport{Current: true, Environments: []lockedEnvironment{}}
	add := func(e *pyenv.Environment, state string) {
		l := lockedEnvironment{Group: e.Group(), State: state, Python: e.Python, Requirements: e.Requirements(), Packages: make(map[string]string), text: e.Spec.String()}
		if l.Requirements == nil {
			l.Requirements = []string{}
		}
		for _, w := range e.Wheels {
			l.Packages[w.Package] = w.Version
		}
		if len(e.Wheels) > 0 {
			l.text += ": " + e.Summary()
		}
		report.Environments = append(report.Environments, l)
		report.Current = report.Current && state == "kept"
	}
	for _, spec := range specs {
		have := old.Find(spec)
		switch {
		case have != nil && !c.Upgrade:
			lock.Put(have)
			add(have, "kept")
		case have == nil && c.Check:
			add(&pyenv.Environment{Spec: spec}, "missing")
		default:
			e, err := uv.Resolve(ctx, spec)
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %w", spec, err)
			}
			state := "added"
			if have != nil {
				state = "upgraded"
				if have.Digest() == e.Digest() {
					e, state = have, "kept"
				}
			}
			lock.Put(e)
			add(e, state)
		}
	}
	for _, e := range old.Environments() {
		if lock.Find(e.Spec) != nil {
			continue
		}
		// Servers of other machines have environments of their own in the same lock.
		here := pyenv.NewSpec(e.Python, e.Packages)
		switch {
		case slices.ContainsFunc(specs, func(s pyenv.Spec) bool { return s.Group() == here.Group() }):
			lock.Put(e)
			add(e, "kept")
		case c.Check:
			lock.Put(e)
			add(e, "unused")
		default:
			add(e, "removed")
		}
	}
	return report, lock, nil
}

func (c *lockCmd) print(std streams, report *lockReport) error {
	if c.JSON {
		return printJSON(std.out, report)
	}
	for _, e := range report.Environments {
		fmt.Fprintf(std.out, "%-8s  %s\n", e.State, visible(e.text))
	}
	what := "is up to date"
	switch {
	case len(report.Environments) == 0:
		what = "is not needed: no function declares packages"
	case !report.Current && !c.Check:
		what = "is written; commit it"
	case !report.Current:
		return nil // the error says it
	}
	_, err := fmt.Fprintf(std.out, "%s %s\n", pyenv.LockFile, what)
	return err
}

// specs are the environments that the checkout's functions need, sorted by group.
func (c *checkout) specs(ctx context.Context, python string, old *pyenv.Lock) ([]pyenv.Spec, error) {
	settings := policy.Default()
	text, err := os.ReadFile(filepath.Join(c.root, hooks.PolicyFile))
	if err == nil {
		settings, err = policy.Parse(hooks.PolicyFile, text)
	} else if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return nil, err
	}
	sources, err := c.pythonFiles()
	if err != nil {
		return nil, err
	}
	functions, err := plan.Functions(ctx, sources, settings.PlanSettings(), &localPython{python})
	if err != nil {
		return nil, err
	}
	own, err := versionOf(ctx, python)
	if err != nil {
		return nil, err
	}
	specs := make(map[string]pyenv.Spec)
	for _, f := range functions {
		version := f.Declared.Python
		if version == "" {
			version = own
		}
		spec := pyenv.NewSpec(version, f.Packages)
		// A function without packages may do with those of a server's interpreter;
		// where one has none of its own, the gate has locked what it took instead.
		if len(f.Packages) > 0 || old.Find(spec) != nil {
			specs[spec.Group()] = spec
		}
	}
	var list []pyenv.Spec
	for _, spec := range specs {
		list = append(list, spec)
	}
	slices.SortFunc(list, func(a, b pyenv.Spec) int { return strings.Compare(a.Group(), b.Group()) })
	return list, nil
}

// pythonFiles reads the files that the gate reads, too: those that functions may
// be in or import.
func (c *checkout) pythonFiles() ([]protocol.Source, error) {
	var sources []protocol.Source
	err := filepath.WalkDir(c.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == c.root {
			return err
		}
		rel, err := filepath.Rel(c.root, path)
		if err != nil {
			return err
		}
		switch {
		case strings.HasPrefix(d.Name(), "."), rel == table.Root:
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case !d.Type().IsRegular() || filepath.Ext(rel) != ".py" && !slices.Contains(plan.ProjectFiles, d.Name()):
			return nil
		}
		info, err := d.Info()
		if err != nil || info.Size() > plan.MaxFileBytes {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		text = bytes.TrimPrefix(text, []byte("\uFEFF"))
		if utf8.Valid(text) {
			sources = append(sources, protocol.Source{Path: filepath.ToSlash(rel), Text: string(text)})
		}
		return nil
	})
	return sources, err
}

// localPython reads declarations with an interpreter of the user's own.
type localPython struct{ path string }

// Tables implements plan.Declarer; nobody asks for it here.
func (*localPython) Tables(context.Context, []protocol.Query) ([]protocol.QueryTables, error) {
	return nil, errors.New("no query is read here")
}

// Declare implements plan.Declarer. No line of the files is run.
func (p *localPython) Declare(ctx context.Context, sources []protocol.Source) ([]protocol.Declaration, error) {
	dir, err := os.MkdirTemp("", "headgate-sdk-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	library, err := sdk.Unpack(dir)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(p.path, "-m", "headgate._sandbox")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PYTHONPATH="+library, "PYTHONDONTWRITEBYTECODE=1", "HEADGATE_PREIMPORT=")
	answer, err := runOrder(ctx, cmd, p.path, &protocol.Order{Op: protocol.OpDeclare, Sources: sources}, nil, nil)
	if err != nil {
		return nil, err
	}
	return answer.Declared, nil
}

// versionOf asks an interpreter for its version: "3.11".
func versionOf(ctx context.Context, python string) (string, error) {
	out, err := exec.CommandContext(ctx, python, "-I", "-c", "import json, sys; print(json.dumps('%d.%d' % sys.version_info[:2]))").Output()
	if err != nil {
		return "", fmt.Errorf("%s does not say its version: %w", python, err)
	}
	var version string
	if err := json.Unmarshal(out, &version); err != nil {
		return "", fmt.Errorf("%s says that its version is %q", python, out)
	}
	return version, nil
}
