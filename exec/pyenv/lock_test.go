package pyenv

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

const (
	sumA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	sumB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	sumC = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
)

func twoEnvironments() *Lock {
	arrow := Wheel{Package: "pyarrow", Version: "25.0.0", File: "pyarrow-25.0.0-cp311-cp311-manylinux_2_28_x86_64.whl", URL: "https://index.example/p/pyarrow.whl", Size: 7, SHA256: sumA}
	l := &Lock{}
	for _, v := range []struct{ version, sum string }{{"1.5.3", sumB}, {"2.2.2", sumC}} {
		s := Spec{Python: "3.11", Platform: "x86_64-manylinux_2_28", Packages: map[string]string{"pandas": "==" + v.version}}
		l.Put(&Environment{Spec: s, Wheels: []Wheel{
			{Package: "pandas", Version: v.version, File: "pandas-" + v.version + "-cp311-cp311-manylinux_2_17_x86_64.whl", SHA256: v.sum}, arrow,
		}})
	}
	return l
}

func TestLockIsReadAsWritten(t *testing.T) {
	l := twoEnvironments()
	text := l.Encode()
	// PEP 751: one file, an environment for each dependency group, shared wheels once.
	if n := bytes.Count(text, []byte("[[packages]]")); n != 3 {
		t.Errorf("%d packages, want 3: the two of pandas, and pyarrow once\n%s", n, text)
	}
	if !bytes.Contains(text, []byte(`path = "pandas-1.5.3-cp311`)) || bytes.Contains(text, []byte("size = 0")) {
		t.Errorf("a wheel of a local directory:\n%s", text)
	}
	again, err := ParseLock(text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if !bytes.Equal(again.Encode(), text) {
		t.Errorf("written again:\n%s\nwas:\n%s", again.Encode(), text)
	}
	s := Spec{Python: "3.11", Platform: "x86_64-manylinux_2_28", Packages: map[string]string{"pandas": "==2.2.2"}}
	e := again.Find(s)
	if e == nil || len(e.Wheels) != 2 || e.Wheels[0].SHA256 != sumC || e.Wheels[1].SHA256 != sumA || e.Wheels[1].Size != 7 {
		t.Errorf("environment of pandas 2.2.2: %+v", e)
	}
	s.Python = "3.12"
	if again.Find(s) != nil {
		t.Error("the lock has an environment for another Python")
	}
	if _, err := ParseLock((&Lock{}).Encode()); err != nil {
		t.Errorf("an empty lock: %v", err)
	}
}

func TestLockRefuses(t *testing.T) {
	good := string(twoEnvironments().Encode())
	for _, c := range []struct{ old, new, want string }{
		{"lock-version = \"1.0\"", "lock-version = \"2.0\"", "lock-version"},
		{"lock-version = \"1.0\"", "lock-version = ", "headgate.lock:4"},
		{"created-by", "extras = []\ncreated-by", `headgate.lock:5: "extras"`},
		{sumB, strings.ToUpper(sumB), "sha256"},
		{sumB, "beef", "sha256"},
		{"size = 7", "size = -7", "bytes"},
		{"size = 7", "size = 99999999999", "bytes"},
		{"https://index.example", "file:///etc", "no address"},
		{"https://index.example", "https://me:secret@index.example", "no address"},
		{`path = "pandas-1.5.3`, `path = "../pandas-1.5.3`, "path must be"},
		{`name = "pandas-1.5.3-cp311`, `name = "../pandas-1.5.3-cp311`, "name"},
		{`version = "1.5.3"`, `version = "1.5.4"`, "not a wheel of version 1.5.4"},
		{`name = "pandas"`, `name = "numpy"`, "is not a wheel"},
		{`name = "pandas"`, `name = "Pandas"`, "no package's name"},
		{`requirements = ["pandas==1.5.3"]`, `requirements = ["pandas==1.5.4"]`, "of other requirements"},
		{`requirements = ["pandas==1.5.3"]`, `requirements = ["pandas @ https://evil.example"]`, "not a name and a version"},
		{`requirements = ["pandas==1.5.3"]`, `requirements = ["pandas==1.5.3", "pandas==1.5.3"]`, "twice"},
		{`python = "3.11"`, `python = "2.7"`, "python is"},
		{"' in dependency_groups\"", "' not in dependency_groups\"", "marker"},
		{"' in dependency_groups\"", "' in dependency_groups or sys_platform == 'x'\"", "marker"},
		{"marker = \"'py3", "marker = \"'py4", "not there"},
		{"dependency-groups = [", "dependency-groups = [\"other\", ", "differ"},
		{"[[packages]]\nname = \"pyarrow\"", "[[packages]]\nname = \"arrow\"", "is not a wheel"},
	} {
		if !strings.Contains(good, c.old) {
			t.Fatalf("the lock has no %q", c.old)
		}
		_, err := ParseLock([]byte(strings.Replace(good, c.old, c.new, 1)))
		var refused *Error
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "headgate lock") {
			t.Errorf("%q for %q: error %v, want one with %q that says what to do", c.new, c.old, err, c.want)
		}
	}
	at := strings.Index(good, "[[packages]]\nname = \"pyarrow\"")
	end := at + strings.Index(good[at:], "[tool")
	if _, err := ParseLock([]byte(good[:at] + good[end:])); err == nil || !strings.Contains(err.Error(), `has no package "pyarrow"`) {
		t.Errorf("without pyarrow: %v", err)
	}
	if _, err := ParseLock(bytes.Repeat([]byte("#"), MaxLock+1)); err == nil {
		t.Error("a lock of any size is read")
	}
	if _, err := ParseLock([]byte("a = " + strings.Repeat("[", 1_000_000))); err == nil {
		t.Error("a lock of any depth is read")
	}
	if _, err := ParseLock([]byte("a = " + strings.Repeat("[", maxBrackets))); err == nil {
		t.Error("a lock that is nested and never closed is read")
	}
}

func FuzzParseLock(f *testing.F) {
	f.Add(twoEnvironments().Encode())
	f.Add([]byte("lock-version = \"1.0\"\n"))
	f.Add([]byte("[[packages]]\nwheels = [{hashes = {}}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := ParseLock(data)
		if err != nil {
			var refused *Error
			if !errors.As(err, &refused) {
				t.Fatalf("error %T", err)
			}
			return
		}
		text := l.Encode()
		again, err := ParseLock(text)
		if err != nil {
			t.Fatalf("what is written cannot be read: %v\n%s", err, text)
		}
		if !bytes.Equal(again.Encode(), text) {
			t.Fatalf("written twice:\n%s\n%s", text, again.Encode())
		}
	})
}

func TestParseSpecifiers(t *testing.T) {
	for in, want := range map[string]string{
		"2.2.2": "==2.2.2", " 1.5.3 ": "==1.5.3", "==2.2.2": "==2.2.2", "== 2.2.2": "==2.2.2", "v2.0": "==2.0", "2.*": "==2.*",
		">=2,<3": "<3,>=2", "<3 , >=2": "<3,>=2", "~=2.2": "~=2.2", "!=2.1,>2": "!=2.1,>2", "1.0rc1": "==1.0rc1", "2.0+cpu": "==2.0+cpu",
		"": "", "latest": "", "*": "", "===2.2": "", ">=": "", "2.2.2 ; python_version > '3'": "", "@ https://evil.example/x.whl": "",
		"2.2\n--index-url https://evil.example": "", ">=2,": "", "1.5.3 --hash=x": "", "[extra]==1": "", "==1.0,-r": "",
	} {
		got, err := ParseSpecifiers(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("ParseSpecifiers(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestTags(t *testing.T) {
	s := Spec{Python: "3.11", Platform: "x86_64-manylinux_2_28"}
	for tag, want := range map[string]bool{
		"py3-none-any": true, "py2.py3-none-any": true, "cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64": true, "cp38-abi3-linux_x86_64": true,
		"py310-none-any": true, "cp311-none-manylinux_2_28_x86_64": true,
		"cp310-cp310-manylinux_2_17_x86_64": false, "cp312-abi3-linux_x86_64": false, "cp311-cp311-win_amd64": false, "cp311-cp311-macosx_11_0_x86_64": false,
		"cp311-cp311-manylinux_2_17_aarch64": false, "py2-none-any": false, "pp311-pypy311_pp73-manylinux_2_28_x86_64": false,
	} {
		_, _, parsed, err := parseName("foo-1.0-" + tag + ".whl")
		if err != nil {
			t.Fatal(err)
		}
		if err := parsed.runs(s); (err == nil) != want {
			t.Errorf("%s runs on %v: %v, want %t", tag, s, err, want)
		}
	}
}
