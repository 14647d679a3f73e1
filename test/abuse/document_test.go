package abuse

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// row is a case as docs/threat-model.md must tell it.
type row struct {
	name     string
	test     string
	recorded []string
}

// rows are all cases of this package.
func rows() []row {
	var all []row
	for test, tries := range map[string][]try{
		"TestNetwork": networkTries, "TestFiles": fileTries, "TestEnvironment": environmentTries, "TestPrivileges": privilegeTries,
		"TestProcesses": processTries, "TestLakeFiles": lakeTries, "TestSQL": sqlTries, "TestSQLFilter": filterTries,
		"TestDeclarations": declareTries, "TestMeeting": meetingTries,
	} {
		for _, c := range tries {
			all = append(all, row{c.name, test, c.recorded})
		}
	}
	for test, deeds := range map[string][]deed{
		"TestExhaustion": exhaustionDeeds, "TestEnds": endDeeds, "TestOutput": outputDeeds, "TestValues": valueDeeds, "TestSQLExhaustion": sqlDeeds, "TestStarts": startDeeds,
	} {
		for _, d := range deeds {
			all = append(all, row{d.name, test, d.recorded})
		}
	}
	for _, f := range forgeries {
		all = append(all, row{f.name, "TestForgedParquet", nil})
	}
	return all
}

// TestDocumentListsEveryCase holds docs/threat-model.md to the cases: each has
// its row, each row its test, here or where it says.
func TestDocumentListsEveryCase(t *testing.T) {
	text, err := os.ReadFile("../../docs/threat-model.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := make(map[string][]string) // attack -> its cells
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if len(cells) != 4 || !strings.HasPrefix(line, "| ") {
			continue
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if name := cells[0]; name == "attack" || name == "---" {
			continue
		} else if listed[name] != nil {
			t.Errorf("%q is listed twice", name)
		}
		if cells[1] == "" || cells[2] == "" {
			t.Errorf("%q: nothing is said of what stops it, or what is recorded", cells[0])
		}
		listed[cells[0]] = cells
	}
	if len(rows()) < 60 || len(listed) < len(rows()) {
		t.Errorf("%d cases, %d rows", len(rows()), len(listed))
	}
	for _, r := range rows() {
		cells := listed[r.name]
		if cells == nil {
			t.Errorf("a row is missing:\n| %s | | %s | `%s` |", r.name, strings.Join(r.recorded, ", "), r.test)
			continue
		}
		delete(listed, r.name)
		if cells[3] != "`"+r.test+"`" {
			t.Errorf("%q is tested by %s, not by %s", r.name, r.test, cells[3])
		}
		for _, v := range r.recorded {
			if !strings.Contains(cells[2], "`"+v+"`") {
				t.Errorf("%q: %q is recorded, and the row says %s", r.name, v, cells[2])
			}
		}
	}
	for name, cells := range listed {
		dir := ""
		for test := range strings.SplitSeq(cells[3], ", ") { // several of one package: its name is said once
			test = strings.Trim(test, "`")
			if in, _, named := strings.Cut(test, " "); named {
				dir = in + " "
			} else if strings.HasPrefix(test, "Test") || strings.HasPrefix(test, "Fuzz") {
				test = dir + test // not a story of test/e2e
			}
			if err := elsewhere(test); err != nil {
				t.Errorf("%q: %v", name, err)
			}
		}
	}
}

// elsewhere checks that a test of another package ("exec/pyenv TestUnpack") or a
// story of test/e2e exists.
func elsewhere(test string) error {
	dir, name, ok := strings.Cut(test, " ")
	if !ok {
		_, err := os.Stat(filepath.Join("../e2e/testdata", test+".txtar"))
		return err
	}
	files, err := filepath.Glob(filepath.Join("../..", dir, "*_test.go"))
	if err != nil {
		return err
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		if regexp.MustCompile(`(?m)^func ` + regexp.QuoteMeta(name) + `\(`).Match(text) {
			return nil
		}
	}
	return fmt.Errorf("there is no test %q in %s", name, dir)
}
