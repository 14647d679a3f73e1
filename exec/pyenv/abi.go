package pyenv

import (
	"fmt"
	"slices"

	version "github.com/aquasecurity/go-pep440-version"
)

// clash is two packages that their metadata lets stand together, although one
// of them then fails when it is imported.
type clash struct {
	pkg, versions     string
	other, otherRange string
	// What to ask instead, best first: specifiers of other, and of pkg.
	otherThen, pkgThen string
	because            string
}

// clashes is all that is known, and short: packages that declare their limits
// need no entry. What a function declares outright is never overruled.
var clashes = []clash{
	{"pandas", "<2.2.2", "numpy", ">=2", "<2", "", "pandas before 2.2.2 was built for the ABI of numpy 1"},
	{"pyarrow", "<16", "numpy", ">=2", "<2", "", "pyarrow before 16 was built for the ABI of numpy 1"},
	{"pyarrow", ">=26", "numpy", "<2", "", "<26", "pyarrow 26 refuses to be imported beside numpy 1"},
}

// limit returns the constraint that keeps apart the first clash of a resolution,
// or "" if there is none or what was declared leaves no choice.
func limit(spec Spec, wheels []Wheel, have []string) string {
	versions := make(map[string]string, len(wheels))
	for _, w := range wheels {
		versions[w.Package] = w.Version
	}
	for _, c := range clashes {
		if !within(versions[c.pkg], c.versions) || !within(versions[c.other], c.otherRange) {
			continue
		}
		for _, want := range []struct{ pkg, then string }{{c.other, c.otherThen}, {c.pkg, c.pkgThen}} {
			if _, declared := spec.Packages[want.pkg]; want.then == "" || declared {
				continue
			}
			line := fmt.Sprintf("%s%s", want.pkg, want.then)
			if !slices.Contains(have, line) {
				return line
			}
		}
	}
	return ""
}

func within(v, specifiers string) bool {
	parsed, err := version.Parse(v)
	if err != nil {
		return false
	}
	all, err := version.NewSpecifiers(specifiers, version.WithPreRelease(true))
	return err == nil && all.Check(parsed)
}
