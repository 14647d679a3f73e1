package pyenv

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	version "github.com/aquasecurity/go-pep440-version"
)

var fileForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+!]*(-[A-Za-z0-9._+!]+){4,5}\.whl$`)

// tags are what the name of a wheel says that it runs on; each part may list several.
type tags struct{ python, abi, platform []string }

// parseName reads the file name of a wheel (binary distribution format).
func parseName(file string) (pkg, ver string, t tags, err error) {
	if len(file) > maxFileName || !fileForm.MatchString(file) {
		return "", "", t, fmt.Errorf("%q is no name of a wheel", file)
	}
	parts := strings.Split(strings.TrimSuffix(file, ".whl"), "-")
	n := len(parts)
	return normalize(parts[0]), parts[1], tags{
		python: strings.Split(parts[n-3], "."), abi: strings.Split(parts[n-2], "."), platform: strings.Split(parts[n-1], "."),
	}, nil
}

// checkName holds a wheel's file name against its package and version.
func checkName(w Wheel) error {
	pkg, ver, _, err := parseName(w.File)
	if err != nil {
		return err
	}
	if pkg != w.Package || !sameVersion(ver, w.Version) {
		return fmt.Errorf("%q is not a wheel of version %s", w.File, w.Version)
	}
	return nil
}

func sameVersion(a, b string) bool {
	va, err := version.Parse(a)
	vb, err2 := version.Parse(b)
	return err == nil && err2 == nil && va.Equal(vb)
}

// runs reports whether a wheel of these tags may run on s: a lock that somebody
// edited might name one for another machine, which would fail at its first import.
func (t tags) runs(s Spec) error {
	arch, _, _ := strings.Cut(s.Platform, "-")
	if !slices.ContainsFunc(t.platform, func(p string) bool {
		return p == "any" || strings.HasSuffix(p, "_"+arch) && strings.Contains(p, "linux")
	}) {
		return fmt.Errorf("is for %s, not for Linux on %s", strings.Join(t.platform, " and "), arch)
	}
	minor, err := strconv.Atoi(strings.TrimPrefix(s.Python, "3."))
	if err != nil {
		return errors.New("is for no Python that is known")
	}
	stable := slices.Contains(t.abi, "abi3") || slices.Contains(t.abi, "none")
	for _, tag := range t.python {
		kind := tag[:min(2, len(tag))]
		rest := tag[min(3, len(tag)):]
		if (kind != "py" && kind != "cp") || !strings.HasPrefix(tag[2:], "3") {
			continue
		}
		if rest == "" {
			return nil // py3
		}
		n, err := strconv.Atoi(rest)
		if err == nil && (n == minor || n < minor && (kind == "py" || stable)) {
			return nil
		}
	}
	return fmt.Errorf("is for %s, not for Python %s", strings.Join(t.python, " and "), s.Python)
}
