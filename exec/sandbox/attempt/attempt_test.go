package attempt

import (
	"strings"
	"testing"
)

func TestCutArgv(t *testing.T) {
	short := []string{"pip", "install", "x"}
	if got := CutArgv(short); strings.Join(got, " ") != "pip install x" {
		t.Errorf("%q", got)
	}
	for _, argv := range [][]string{
		{strings.Repeat("x", 2<<20)},
		append([]string{"busybox"}, strings.Repeat("y", maxArgv)),
		strings.Split(strings.Repeat("z ", 1<<20), " "),
		make([]string, 1<<20), // empty ones cost something too
	} {
		got := CutArgv(argv)
		if n := len(strings.Join(got, " ")); n > maxArgv || len(got) > maxArgv+1 || n < maxArgv/2 && len(got) < maxArgv/2 {
			t.Errorf("%d arguments became %d, of %d bytes", len(argv), len(got), n)
		}
		for i, arg := range got {
			if !strings.HasPrefix(argv[i], arg) {
				t.Errorf("argument %d is not the one that was given", i)
			}
		}
	}
	if len(CutArgv(nil)) != 0 {
		t.Error("nothing became something")
	}
}

// A point that is listed twice keeps every sandbox from starting.
func TestPointsAreDistinct(t *testing.T) {
	seen := make(map[string]bool)
	for _, p := range Points() {
		if seen[p] {
			t.Errorf("%s is listed twice", p)
		}
		seen[p] = true
	}
}

func TestAt(t *testing.T) {
	at := map[string]bool{"mkdirat": true, "renameat2": true, "openat2": true, "symlinkat": true, "utimensat": true}
	for name, want := range map[string]bool{"mkdir": false, "rename": false, "truncate": false, "setxattr": false, "utimes": false} {
		at[name] = want
	}
	for _, c := range append([]Call{Openat2}, Changes...) {
		if want, ok := at[c.Name]; ok && c.At() != want {
			t.Errorf("%s: %t", c.Name, c.At())
		}
		for _, i := range c.Paths {
			if c.At() && i == 0 {
				t.Errorf("%s: no argument before its path", c.Name)
			}
		}
	}
}
