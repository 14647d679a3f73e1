package pyenv

import (
	"strings"
	"testing"
)

// What a function declares becomes a line of uv's input, and a part of a digest.
func FuzzParseSpecifiers(f *testing.F) {
	for _, s := range []string{"1.5.3", ">=2,<3", "==2.*", "v1.0RC1", "~=1.4.2", "!=1.0, >0.9", "", "===1", "1.0; python_version<'3'", "1.0\n--index-url=x", "1.0 @ file:///x", "1!2.0+local"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseSpecifiers(s)
		if err != nil {
			return
		}
		if strings.ContainsAny(got, " \t\r\n;@#'\"\\/[]") || strings.HasPrefix(got, "-") || got == "" {
			t.Errorf("%q became %q", s, got)
		}
		if again, err := ParseSpecifiers(got); err != nil || again != got {
			t.Errorf("%q became %q, which becomes %q, %v", s, got, again, err)
		}
	})
}

// Names of wheels are a lock's, and an index's.
func FuzzWheelName(f *testing.F) {
	for _, s := range []string{"pandas-1.5.3-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", "a-1-py3-none-any.whl", "a-1-1-py2.py3-none-any.whl", "a-1-..-.-.whl", "a-1-c-p-any.whl", "-1-py3-none-any.whl", "../a-1-py3-none-any.whl", "a-1-cp3-abi3-linux_x86_64.whl", "a-1-cp399999999999999999999-abi3-any.whl"} {
		f.Add(s)
	}
	spec := NewSpec("3.11", nil)
	f.Fuzz(func(t *testing.T, s string) {
		pkg, version, tags, err := parseName(s)
		if err != nil {
			return
		}
		if strings.ContainsAny(s, "/\\\x00\n ") || len(s) > maxFileName || version == "" || pkg != normalize(pkg) {
			t.Errorf("%q is the wheel of %q, %q", s, pkg, version)
		}
		if err := tags.runs(spec); err == nil && !strings.Contains(s, "py") && !strings.Contains(s, "cp3") {
			t.Errorf("%q runs", s)
		}
		_ = checkName(Wheel{Package: pkg, Version: version, File: s})
	})
}
