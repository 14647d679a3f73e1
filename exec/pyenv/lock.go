package pyenv

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// LockFile is where a commit has its lock.
const LockFile = "headgate.lock"

// Bounds of a lock. A lake with fifty environments of forty packages is at 1% of
// the wheels and 10% of the bytes.
const (
	MaxLock       = 4 << 20 // bytes
	maxGroups     = 500
	maxWheels     = 500     // of one environment
	maxEntries    = 20_000  // wheels of a file
	maxBrackets   = 150_000 // the parser of TOML recurses for each nested one
	maxWheelBytes = 2 << 30
	// maxEnvironment is for all wheels of one, in bytes: twice what a compiler with
	// its CUDA libraries takes.
	maxEnvironment = 8 << 30
	maxFileName    = 250
)

// Lock is the content of a headgate.lock: environments by their groups. The zero
// value is an empty lock.
type Lock struct {
	environments map[string]*Environment
}

// Find returns the environment that the lock has for a Spec, or nil.
func (l *Lock) Find(s Spec) *Environment { return l.environments[s.Group()] }

// Put adds an environment, or replaces the one of the same Spec.
func (l *Lock) Put(e *Environment) {
	if l.environments == nil {
		l.environments = make(map[string]*Environment)
	}
	l.environments[e.Group()] = e
}

// Environments are all of the lock, by group.
func (l *Lock) Environments() []*Environment {
	var list []*Environment
	for _, group := range slices.Sorted(maps.Keys(l.environments)) {
		list = append(list, l.environments[group])
	}
	return list
}

// document is a lock in TOML: PEP 751's fields that a lock of ours has, and no others.
type document struct {
	Version  string     `toml:"lock-version"`
	Creator  string     `toml:"created-by"`
	Groups   []string   `toml:"dependency-groups"`
	Packages []entry    `toml:"packages"`
	Tool     documentOf `toml:"tool"`
}

type documentOf struct {
	Headgate struct {
		Environments map[string]asked `toml:"environments"`
	} `toml:"headgate"`
}

type asked struct {
	Python       string   `toml:"python"`
	Platform     string   `toml:"platform"`
	Requirements []string `toml:"requirements"`
}

type entry struct {
	Name    string      `toml:"name"`
	Version string      `toml:"version"`
	Marker  string      `toml:"marker"`
	Wheels  []lockWheel `toml:"wheels"`
}

type lockWheel struct {
	Name   string `toml:"name"`
	URL    string `toml:"url"`
	Path   string `toml:"path"`
	Size   int64  `toml:"size"`
	Hashes struct {
		SHA256 string `toml:"sha256"`
	} `toml:"hashes"`
}

// ParseLock reads a lock file. It takes what Encode writes, in any order and
// layout, and nothing else: an *Error says what is wrong and in which line.
func ParseLock(data []byte) (*Lock, error) {
	if len(data) > MaxLock {
		return nil, refusef("%s has more than %d bytes", LockFile, MaxLock)
	}
	if bytes.Count(data, []byte("["))+bytes.Count(data, []byte("{")) > maxBrackets {
		return nil, refusef("%s has more than %d brackets", LockFile, maxBrackets)
	}
	var doc document
	dec := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields()
	if err := dec.Decode(&doc); err != nil {
		return nil, refusef("%s%s; make it anew with: headgate lock", LockFile, tomlProblem(err))
	}
	l, err := doc.lock()
	if err != nil {
		return nil, refusef("%s: %v; make it anew with: headgate lock", LockFile, err)
	}
	return l, nil
}

// tomlProblem is where and what is wrong, on one line.
func tomlProblem(err error) string {
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) && len(unknown.Errors) > 0 {
		row, _ := unknown.Errors[0].Position()
		return fmt.Sprintf(":%d: %q is nothing that a lock of Headgate has", row, strings.Join(unknown.Errors[0].Key(), "."))
	}
	var bad *toml.DecodeError
	if errors.As(err, &bad) {
		row, _ := bad.Position()
		return fmt.Sprintf(":%d: %s", row, strings.TrimPrefix(bad.Error(), "toml: "))
	}
	return ": " + err.Error()
}

func (d *document) lock() (*Lock, error) {
	if d.Version != "1.0" {
		return nil, fmt.Errorf("lock-version is %q, this version of Headgate reads \"1.0\"", d.Version)
	}
	if len(d.Tool.Headgate.Environments) > maxGroups || len(d.Packages) > maxEntries {
		return nil, fmt.Errorf("more than %d environments or %d packages", maxGroups, maxEntries)
	}
	l := &Lock{environments: make(map[string]*Environment)}
	for _, group := range slices.Sorted(maps.Keys(d.Tool.Headgate.Environments)) {
		spec, err := d.Tool.Headgate.Environments[group].spec()
		if err != nil {
			return nil, fmt.Errorf("environment %q: %w", group, err)
		}
		if want := spec.Group(); want != group {
			return nil, fmt.Errorf("environment %q is that of other requirements (%s)", group, want)
		}
		l.environments[group] = &Environment{Spec: spec}
	}
	if groups := slices.Sorted(maps.Keys(l.environments)); !slices.Equal(groups, slices.Sorted(slices.Values(d.Groups))) {
		return nil, errors.New("dependency-groups and tool.headgate.environments differ")
	}
	for _, p := range d.Packages {
		w, err := p.wheel()
		if err != nil {
			return nil, fmt.Errorf("package %q: %w", p.Name, err)
		}
		groups, err := groupsOf(p.Marker)
		if err != nil {
			return nil, fmt.Errorf("package %q: %w", p.Name, err)
		}
		for _, group := range groups {
			e := l.environments[group]
			if e == nil {
				return nil, fmt.Errorf("package %q is for group %q, which is not there", p.Name, group)
			}
			if slices.ContainsFunc(e.Wheels, func(o Wheel) bool { return o.Package == w.Package }) {
				return nil, fmt.Errorf("package %q is in group %q twice", p.Name, group)
			}
			if e.Wheels = append(e.Wheels, w); len(e.Wheels) > maxWheels {
				return nil, fmt.Errorf("group %q has more than %d packages", group, maxWheels)
			}
		}
	}
	for group, e := range l.environments {
		e.sort()
		for name := range withPasser(e.Packages) {
			if !slices.ContainsFunc(e.Wheels, func(w Wheel) bool { return w.Package == name }) {
				return nil, fmt.Errorf("group %q has no package %q", group, name)
			}
		}
	}
	return l, nil
}

func (e *Environment) sort() {
	slices.SortFunc(e.Wheels, func(a, b Wheel) int { return strings.Compare(a.Package, b.Package) })
}

// withPasser is packages, and pyarrow of any version unless it is declared.
func withPasser(packages map[string]string) map[string]string {
	all := map[string]string{passer: ""}
	maps.Copy(all, packages)
	return all
}

func (a asked) spec() (Spec, error) {
	s := Spec{Python: a.Python, Platform: a.Platform}
	if !pythonForm.MatchString(a.Python) {
		return s, fmt.Errorf("python is %q, want a version such as \"3.11\"", a.Python)
	}
	if !platformIs.MatchString(a.Platform) {
		return s, fmt.Errorf("platform is %q", a.Platform)
	}
	for _, r := range a.Requirements {
		at := strings.IndexAny(r, "=!<>~")
		if at < 0 || !normalName.MatchString(r[:at]) {
			return s, fmt.Errorf("requirement %q is not a name and a version", r)
		}
		spec, err := ParseSpecifiers(r[at:])
		if err != nil || spec != r[at:] {
			return s, fmt.Errorf("requirement %q is not a name and a version", r)
		}
		if _, twice := s.Packages[r[:at]]; twice {
			return s, fmt.Errorf("requirement %q is there twice", r[:at])
		}
		if s.Packages == nil {
			s.Packages = make(map[string]string)
		}
		s.Packages[r[:at]] = spec
	}
	return s, nil
}

func (p *entry) wheel() (Wheel, error) {
	switch {
	case len(p.Name) > 200 || !normalName.MatchString(p.Name):
		return Wheel{}, errors.New("that is no package's name")
	case !versionForm.MatchString(p.Version):
		return Wheel{}, fmt.Errorf("version %q is none", p.Version)
	case len(p.Wheels) != 1:
		return Wheel{}, fmt.Errorf("has %d wheels, want one for each environment", len(p.Wheels))
	}
	in := p.Wheels[0]
	w := Wheel{Package: p.Name, Version: p.Version, File: in.Name, URL: in.URL, Size: in.Size, SHA256: in.Hashes.SHA256}
	switch {
	case !sha256Form.MatchString(w.SHA256):
		return w, errors.New("its wheel has no sha256 in lower-case hexadecimal digits")
	case w.Size < 0 || w.Size > maxWheelBytes:
		return w, fmt.Errorf("its wheel has %d bytes, the limit is %d", w.Size, maxWheelBytes)
	case (in.URL == "") == (in.Path == ""):
		return w, errors.New("its wheel needs either url or path")
	case in.Path != "" && in.Path != in.Name:
		return w, errors.New("path must be the wheel's name")
	case len(in.URL) > 2000:
		return w, errors.New("its URL has more than 2000 characters")
	}
	if in.URL != "" {
		u, err := url.Parse(in.URL)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.User != nil {
			return w, fmt.Errorf("%q is no address of a wheel", in.URL)
		}
	}
	return w, checkName(w)
}

// groupsOf reads a marker that Encode writes: "'a' in dependency_groups or 'b' in dependency_groups".
func groupsOf(marker string) ([]string, error) {
	var groups []string
	for term := range strings.SplitSeq(marker, " or ") {
		group, ok := strings.CutSuffix(term, "' in dependency_groups")
		group, quoted := strings.CutPrefix(group, "'")
		if !ok || !quoted || slices.Contains(groups, group) {
			return nil, fmt.Errorf("marker %q does not name dependency groups", marker)
		}
		groups = append(groups, group)
	}
	return groups, nil
}

const lockHead = `# Which wheels each environment of this lake is made of. Written by Headgate:
# do not edit it, run "headgate lock". It is a pylock.toml (PEP 751).
`

// Encode writes the lock: equal locks give equal bytes.
func (l *Lock) Encode() []byte {
	type locked struct {
		Wheel
		groups []string
	}
	byHash := make(map[string]*locked)
	list := l.Environments()
	var groups []string
	for _, e := range list {
		groups = append(groups, quote(e.Group()))
		for _, w := range e.Wheels {
			key := w.Package + "\x00" + w.Version + "\x00" + w.File + "\x00" + w.SHA256
			if byHash[key] == nil {
				byHash[key] = &locked{Wheel: w}
			}
			byHash[key].groups = append(byHash[key].groups, e.Group())
		}
	}
	packages := slices.SortedFunc(maps.Values(byHash), func(a, b *locked) int {
		return cmp.Or(strings.Compare(a.Package, b.Package), strings.Compare(a.Version, b.Version),
			strings.Compare(a.File, b.File), strings.Compare(a.SHA256, b.SHA256))
	})
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\nlock-version = \"1.0\"\ncreated-by = \"headgate\"\ndependency-groups = [%s]\n", lockHead, strings.Join(groups, ", "))
	for _, p := range packages {
		var terms []string
		for _, g := range p.groups {
			terms = append(terms, "'"+g+"' in dependency_groups")
		}
		where := "path = " + quote(p.File)
		if p.URL != "" {
			where = "url = " + quote(p.URL)
		}
		size := ""
		if p.Size > 0 {
			size = fmt.Sprintf(", size = %d", p.Size)
		}
		fmt.Fprintf(&b, "\n[[packages]]\nname = %s\nversion = %s\nmarker = %s\nwheels = [{ name = %s, %s%s, hashes = { sha256 = %s } }]\n",
			quote(p.Package), quote(p.Version), quote(strings.Join(terms, " or ")), quote(p.File), where, size, quote(p.SHA256))
	}
	for _, e := range list {
		var requirements []string
		for _, r := range e.Requirements() {
			requirements = append(requirements, quote(r))
		}
		fmt.Fprintf(&b, "\n[tool.headgate.environments.%s]\npython = %s\nplatform = %s\nrequirements = [%s]\n",
			e.Group(), quote(e.Python), quote(e.Platform), strings.Join(requirements, ", "))
	}
	return b.Bytes()
}

// quote is a TOML basic string. What a lock holds has no control characters.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
