package pyenv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// UV resolves with the program uv, which asks the index that this machine is
// configured for. It is safe for concurrent use.
type UV struct {
	// Path is the program. If it is "", every resolution fails and says so.
	Path string
	// Cache is uv's cache directory.
	Cache string
	// Python is an interpreter for uv to run: of the version that is asked for, if
	// there is one. uv executes it, and nothing of a package.
	Python func(version string) string
}

// FindUV looks for uv beside the given programs, then on PATH. It returns "" if
// it is nowhere.
func FindUV(beside ...string) string {
	for _, p := range beside {
		candidate := filepath.Join(filepath.Dir(p), "uv")
		if info, err := os.Stat(candidate); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return candidate
		}
	}
	found, err := exec.LookPath("uv")
	if err != nil {
		return ""
	}
	return found
}

const (
	uvTimeout   = 5 * time.Minute
	maxUVOutput = 16 << 20
	maxUVReason = 600 // characters of what uv says
)

// found is a wheel and where this machine's own index has it: an http(s) or file URL.
type found struct {
	Wheel
	source string
}

// Resolve finds the wheels that satisfy s: what it declares, what that depends on,
// and pyarrow.
func (u *UV) Resolve(ctx context.Context, s Spec) (*Environment, error) {
	var constraints []string
	for {
		list, err := u.compile(ctx, s, constraints)
		if err != nil {
			return nil, err
		}
		e := &Environment{Spec: s}
		for _, f := range list {
			e.Wheels = append(e.Wheels, f.Wheel)
		}
		e.sort()
		more := limit(s, e.Wheels, constraints)
		if more == "" {
			return e, nil
		}
		constraints = append(constraints, more)
	}
}

// locate asks the index for the wheels of a locked environment, and for no others:
// it is an *Error if the lock holds a package that the declared ones do not lead
// to, lacks one, or knows a wheel by another hash than the index does.
func (u *UV) locate(ctx context.Context, e *Environment) ([]found, error) {
	pins := make([]string, len(e.Wheels))
	for i, w := range e.Wheels {
		pins[i] = w.Package + "==" + w.Version
	}
	list, err := u.compile(ctx, e.Spec, pins)
	var refused *Error
	if errors.As(err, &refused) {
		return nil, refusef("%s does not hold: %s", LockFile, refused.Text)
	}
	if err != nil {
		return nil, err
	}
	var at []found
	for _, w := range e.Wheels {
		i := slices.IndexFunc(list, func(f found) bool { return f.Package == w.Package })
		if i < 0 {
			return nil, refusef("%s has package %q in the environment of %s, and nothing there needs it; run headgate lock", LockFile, w.Package, e.Spec)
		}
		f := list[i]
		if f.SHA256 != w.SHA256 {
			return nil, refusef("%s says that %s has sha256 %s, the index has %s with sha256 %s; if you did not change it, somebody did: run headgate lock",
				LockFile, w.File, w.SHA256, f.File, f.SHA256)
		}
		if f.Size > 0 && w.Size > 0 && f.Size != w.Size {
			return nil, refusef("%s says that %s has %d bytes, the index says %d; run headgate lock", LockFile, w.File, w.Size, f.Size)
		}
		at = append(at, f)
	}
	for _, f := range list {
		if !slices.ContainsFunc(e.Wheels, func(w Wheel) bool { return w.Package == f.Package }) {
			return nil, refusef("%s lacks package %q, which the environment of %s needs; run headgate lock", LockFile, f.Package, e.Spec)
		}
	}
	return at, nil
}

// compile resolves a Spec under constraints.
func (u *UV) compile(ctx context.Context, s Spec, constraints []string) ([]found, error) {
	if u.Path == "" {
		return nil, &UnavailableError{Text: "uv, which resolves Python packages, is not installed here: install it (pip install uv) beside the interpreter or on PATH, or name it with --uv PATH"}
	}
	// A directory of its own, so that nobody's pyproject.toml or uv.toml counts.
	dir, err := os.MkdirTemp("", "headgate-uv-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	var requirements []string
	for name, specifiers := range withPasser(s.Packages) {
		requirements = append(requirements, name+specifiers)
	}
	slices.Sort(requirements)
	for name, lines := range map[string][]string{"requirements.in": requirements, "constraints.txt": constraints} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			return nil, err
		}
	}
	args := []string{"pip", "compile", "requirements.in", "--constraints", "constraints.txt",
		"--only-binary", ":all:", "--no-sources", "--python-version", s.Python, "--python-platform", s.Platform,
		"--generate-hashes", "--format", "pylock.toml", "--no-header", "--no-progress", "--color", "never", "--no-python-downloads"}
	if u.Cache != "" {
		args = append(args, "--cache-dir", u.Cache)
	}
	if u.Python != nil {
		if p := u.Python(s.Python); p != "" {
			args = append(args, "--python", p)
		}
	}
	out, err := u.run(ctx, dir, args)
	if err != nil {
		return nil, err
	}
	return readCompiled(out, s)
}

// run runs uv. An exit code of 1 is uv's "no": the requirements have no solution.
func (u *UV) run(ctx context.Context, dir string, args []string) ([]byte, error) {
	limited, cancel := context.WithTimeout(ctx, uvTimeout)
	defer cancel()
	cmd := exec.CommandContext(limited, u.Path, args...)
	cmd.Dir = dir
	cmd.Env = os.Environ()
	if os.Getenv("UV_SYSTEM_CERTS") == "" && os.Getenv("UV_NATIVE_TLS") == "" {
		// Whom the machine trusts, as what fetches the wheels does, and not the list
		// that comes with uv.
		cmd.Env = append(cmd.Env, "UV_SYSTEM_CERTS=true")
	}
	cmd.WaitDelay = time.Second
	out, said := &capped{most: maxUVOutput}, &capped{most: 64 << 10}
	cmd.Stdout, cmd.Stderr = out, said
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil && out.over:
		return nil, fmt.Errorf("uv wrote more than %d bytes", maxUVOutput)
	case err == nil:
		return out.Bytes(), nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case limited.Err() != nil:
		return nil, &UnavailableError{Text: fmt.Sprintf("the package index did not answer within %s", uvTimeout)}
	case errors.As(err, &exit) && exit.ExitCode() == 1:
		return nil, &Error{uvReason(said.String())}
	case errors.As(err, &exit):
		return nil, &UnavailableError{Text: "the package index of this server could not be asked; try again later", Err: fmt.Errorf("uv: %w: %s", err, strings.TrimSpace(said.String()))}
	}
	return nil, &UnavailableError{Text: "uv, which resolves Python packages, does not run here", Err: err}
}

// uvReason makes one sentence of what uv says when there is no solution.
func uvReason(text string) string {
	noWheels := strings.Contains(text, "no usable wheels") || strings.Contains(text, "no wheels")
	var causes []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if cause, ok := strings.CutPrefix(line, "cause: "); ok {
			causes = append(causes, cause)
		} else if len(causes) > 0 && line != "" && !strings.HasPrefix(line, "hint:") {
			causes[len(causes)-1] += " " + line
		} else if len(causes) > 0 {
			break
		}
	}
	reason := strings.Join(causes, "; ")
	if reason == "" {
		reason = strings.Join(strings.Fields(text), " ")
	}
	reason = strings.NewReplacer("you require", "the environment requires", "your requirements are", "that is").Replace(reason)
	reason = strings.TrimSuffix(reason, ", we can conclude that that is unsatisfiable.")
	if r := []rune(reason); len(r) > maxUVReason {
		reason = string(r[:maxUVReason]) + "..."
	}
	if noWheels {
		reason += " (a package that has only sources for this Python and platform would have to be built, which runs its code, and that is not allowed)"
	}
	if after, ok := strings.CutPrefix(reason, "Because "); ok {
		reason = after
	}
	return "the packages cannot be resolved: " + strings.TrimSuffix(reason, ".")
}

// capped keeps the first bytes that are written to it.
type capped struct {
	bytes.Buffer
	most int
	over bool
}

func (c *capped) Write(p []byte) (int, error) {
	if room := c.most - c.Len(); len(p) > room {
		c.over = true
		c.Buffer.Write(p[:room])
		return len(p), nil
	}
	return c.Buffer.Write(p)
}

// compiled is what is read of the pylock.toml that uv writes.
type compiled struct {
	Packages []struct {
		Name    string          `toml:"name"`
		Version string          `toml:"version"`
		Wheels  []compiledWheel `toml:"wheels"`
	} `toml:"packages"`
}

type compiledWheel struct {
	Name   string `toml:"name"`
	URL    string `toml:"url"`
	Path   string `toml:"path"`
	Size   int64  `toml:"size"`
	Hashes struct {
		SHA256 string `toml:"sha256"`
	} `toml:"hashes"`
}

func readCompiled(out []byte, s Spec) ([]found, error) {
	var doc compiled
	if err := toml.Unmarshal(out, &doc); err != nil {
		return nil, fmt.Errorf("read what uv wrote: %w", err)
	}
	if len(doc.Packages) > maxWheels {
		return nil, refusef("%s needs %d packages, the limit is %d", s, len(doc.Packages), maxWheels)
	}
	var list []found
	for _, p := range doc.Packages {
		var best *found
		for _, w := range p.Wheels {
			f, err := w.found(normalize(p.Name), p.Version)
			if err != nil {
				return nil, fmt.Errorf("what uv wrote of package %q: %w", p.Name, err)
			}
			if best == nil {
				best = &f
			}
		}
		if best == nil {
			return nil, refusef("package %s %s has no wheel for %s", p.Name, p.Version, s)
		}
		list = append(list, *best)
	}
	return list, nil
}

func (w compiledWheel) found(pkg, ver string) (found, error) {
	f := found{Wheel: Wheel{Package: pkg, Version: ver, Size: w.Size, SHA256: w.Hashes.SHA256}, source: w.URL}
	if w.Path != "" {
		f.source = (&url.URL{Scheme: "file", Path: w.Path}).String()
	}
	u, err := url.Parse(f.source)
	if err != nil {
		return f, err
	}
	if f.File = w.Name; f.File == "" {
		f.File = path.Base(u.Path)
	}
	switch {
	case u.Scheme == "file":
		info, err := os.Stat(u.Path)
		if err != nil {
			return f, err
		}
		f.Size = info.Size()
	case u.Scheme == "https" || u.Scheme == "http":
		shown := *u
		shown.User, shown.Fragment = nil, ""
		f.URL = shown.String()
	default:
		return f, fmt.Errorf("its address %q is neither http nor file", f.source)
	}
	if !sha256Form.MatchString(f.SHA256) {
		return f, refusef("the index tells no sha256 of %s", f.File)
	}
	return f, checkName(f.Wheel)
}
