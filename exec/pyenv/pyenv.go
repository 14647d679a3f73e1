// Package pyenv makes the environments that Python functions run in: it resolves
// declared packages to wheels with uv, keeps what it found in a lock file, fetches
// the wheels from the machine's own index, unpacks them within bounds, and composes
// directories of them that never change. Nothing of a package is executed here,
// so only wheels count. It does not know what a function, a lake or a sandbox is.
package pyenv

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"runtime"
	"slices"
	"strings"

	version "github.com/aquasecurity/go-pep440-version"
)

// passer is the package that every environment has: tables are passed as its.
const passer = "pyarrow"

// Spec is what is asked of an environment. Two equal Specs ask for the same one.
type Spec struct {
	Python   string            // "3.11"
	Platform string            // as uv names it: "x86_64-manylinux_2_28"
	Packages map[string]string // normal name -> specifiers as ParseSpecifiers gives them
}

// NewSpec asks for packages on this machine's platform.
func NewSpec(python string, packages map[string]string) Spec {
	return Spec{Python: python, Platform: platform(runtime.GOARCH), Packages: packages}
}

// platform is what wheels must run on. manylinux_2_28 is the baseline that wheels
// are built for today; asking for no more makes one lock serve every machine of
// an architecture.
func platform(goarch string) string {
	arch, ok := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[goarch]
	if !ok {
		arch = goarch
	}
	return arch + "-manylinux_2_28"
}

// Requirements are the declared packages, sorted: "pandas==2.2.2".
func (s Spec) Requirements() []string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(s.Packages)) {
		list = append(list, name+s.Packages[name])
	}
	return list
}

// Group names the environment in a lock: "py3-11-5c1f0d2e9b7a". It follows from
// the rest of the Spec.
func (s Spec) Group() string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%s\n", s.Python, s.Platform)
	for _, r := range s.Requirements() {
		fmt.Fprintln(h, r)
	}
	return "py" + strings.ReplaceAll(s.Python, ".", "-") + "-" + hex.EncodeToString(h.Sum(nil))[:12]
}

// String is for messages: "Python 3.11 with pandas==2.2.2".
func (s Spec) String() string {
	with := s.Requirements()
	if len(with) == 0 {
		with = []string{passer}
	}
	return "Python " + s.Python + " with " + strings.Join(with, ", ")
}

// Wheel is one file of an environment.
type Wheel struct {
	Package string // normal name
	Version string
	File    string // "pandas-1.5.3-cp311-cp311-manylinux_2_17_x86_64.whl"
	URL     string // where it was found, for other tools; it is never asked. "" of a local file
	Size    int64  // bytes; 0 if the index does not tell
	SHA256  string // hex
}

// Environment is a Spec and the wheels that satisfy it, sorted by package.
type Environment struct {
	Spec
	Wheels []Wheel
}

// Digest names the environment's content: the Python that it is for, and the
// hashes of its wheels.
func (e *Environment) Digest() string {
	sums := make([]string, len(e.Wheels))
	for i, w := range e.Wheels {
		sums[i] = w.SHA256
	}
	slices.Sort(sums)
	h := sha256.New()
	fmt.Fprintln(h, e.Python)
	for _, s := range sums {
		fmt.Fprintln(h, s)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Summary names the packages, the declared ones first: "pandas 1.5.3, numpy 1.26.4".
func (e *Environment) Summary() string {
	var declared, others []string
	for _, w := range e.Wheels {
		text := w.Package + " " + w.Version
		if _, ok := e.Packages[w.Package]; ok {
			declared = append(declared, text)
		} else {
			others = append(others, text)
		}
	}
	return strings.Join(append(declared, others...), ", ")
}

// Error says that an environment cannot be had the way it is asked for or locked:
// whoever asked has to change something. Any other error of this package means
// that it could not be made now, by this machine.
type Error struct{ Text string }

func (e *Error) Error() string { return e.Text }

func refusef(format string, args ...any) *Error {
	return &Error{fmt.Sprintf(format, args...)}
}

// UnavailableError says what this machine lacks to make an environment, in words
// that whoever asked may read.
type UnavailableError struct {
	Text string
	Err  error // the cause, for the log; may be nil
}

func (e *UnavailableError) Error() string {
	if e.Err == nil {
		return e.Text
	}
	return fmt.Sprintf("%s: %v", e.Text, e.Err)
}

// Unwrap returns the cause.
func (e *UnavailableError) Unwrap() error { return e.Err }

// Public is the sentence without the cause.
func (e *UnavailableError) Public() string { return e.Text }

const maxSpecifiers = 200 // characters

// ParseSpecifiers reads the version of a declared package: "2.2.2", "2.*", or PEP
// 440 specifiers such as ">=2,<3". It returns them in one spelling: "==2.2.2".
func ParseSpecifiers(text string) (string, error) {
	if len(text) > maxSpecifiers {
		return "", fmt.Errorf("is longer than %d characters", maxSpecifiers)
	}
	if strings.TrimSpace(text) == "" {
		return "", fmt.Errorf(`is empty; want a version such as "2.2.2" or ">=2,<3"`)
	}
	var list []string
	for part := range strings.SplitSeq(text, ",") {
		part = strings.Join(strings.Fields(part), "")
		if part != "" && (part[0] >= '0' && part[0] <= '9' || part[0] == 'v' || part[0] == 'V') {
			part = "==" + part
		}
		m := specifier.FindStringSubmatch(part)
		if m == nil {
			return "", fmt.Errorf(`is no version: want one such as "2.2.2" or ">=2,<3"`)
		}
		if _, err := version.NewSpecifiers(part); err != nil {
			return "", fmt.Errorf("is no version (%q)", part)
		}
		list = append(list, m[1]+strings.ToLower(strings.TrimLeft(m[2], "vV")))
	}
	slices.Sort(list)
	return strings.Join(slices.Compact(list), ","), nil
}

// specifier is an operator and a version, without PEP 440's "===", which compares
// texts. What it matches is safe as a line of a requirements file.
var specifier = regexp.MustCompile(`^(==|!=|<=|>=|~=|<|>)([vV]?[0-9][0-9A-Za-z.!+_-]*(?:\.\*)?)$`)

var (
	normalName  = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	separators  = regexp.MustCompile(`[-_.]+`)
	pythonForm  = regexp.MustCompile(`^3\.[0-9]{1,2}$`)
	platformIs  = regexp.MustCompile(`^[a-z0-9_]{1,20}-[a-z0-9_]{1,30}$`)
	sha256Form  = regexp.MustCompile(`^[0-9a-f]{64}$`)
	versionForm = regexp.MustCompile(`^[0-9A-Za-z.!+_-]{1,100}$`)
)

// normalize spells a package's name as PEP 503 compares it.
func normalize(name string) string {
	return separators.ReplaceAllString(strings.ToLower(name), "-")
}
