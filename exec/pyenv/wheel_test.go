package pyenv

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// aWheel builds wheels, good ones and others.
type aWheel struct {
	pkg, version string
	requires     []string
	tag          string            // "py3-none-any" if empty
	files        map[string]string // by name in the archive
	recorded     map[string]string // RECORD says these contents instead
	unrecorded   []string          // not in RECORD
	extra        []zip.FileHeader  // entries without content, as they are
	comment      string
}

func (w aWheel) name() string {
	tag := w.tag
	if tag == "" {
		tag = "py3-none-any"
	}
	return fmt.Sprintf("%s-%s-%s.whl", strings.ReplaceAll(w.pkg, "-", "_"), w.version, tag)
}

func (w aWheel) bytes(t testing.TB) []byte {
	t.Helper()
	info := strings.ReplaceAll(w.pkg, "-", "_") + "-" + w.version + ".dist-info/"
	meta := fmt.Sprintf("Metadata-Version: 2.1\nName: %s\nVersion: %s\n", w.pkg, w.version)
	for _, r := range w.requires {
		meta += "Requires-Dist: " + r + "\n"
	}
	files := map[string]string{info + "METADATA": meta, info + "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
	for name, text := range w.files {
		files[name] = text
	}
	var names []string
	record := ""
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names) // equal wheels have equal bytes
	for _, name := range names {
		text := files[name]
		if other, ok := w.recorded[name]; ok {
			text = other
		}
		if !slices.Contains(w.unrecorded, name) {
			sum := sha256.Sum256([]byte(text))
			record += fmt.Sprintf("%s,sha256=%s,%d\n", name, base64.RawURLEncoding.EncodeToString(sum[:]), len(text))
		}
	}
	files[info+"RECORD"] = record + info + "RECORD,,\n"
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, name := range append(names, info+"RECORD") {
		e, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate})
		if err == nil {
			_, err = io.WriteString(e, files[name])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range w.extra {
		if _, err := z.CreateHeader(&w.extra[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(z.SetComment(w.comment), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// in writes the wheel into a directory and returns its sha256.
func (w aWheel) in(t testing.TB, dir string) string {
	t.Helper()
	data := w.bytes(t)
	if err := os.WriteFile(filepath.Join(dir, w.name()), data, 0o600); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

type sink struct {
	bytes.Buffer
	done func(string)
}

func (s *sink) Close() error { s.done(s.String()); return nil }

// unpacked is what unpack makes of an archive.
func unpacked(data []byte, pkg string, b bounds) (map[string]string, error) {
	files := make(map[string]string)
	err := unpack(bytes.NewReader(data), int64(len(data)), pkg, b, anyRoom, func(name string) (io.WriteCloser, error) {
		if _, twice := files[name]; twice || !fs.ValidPath(name) {
			return nil, fmt.Errorf("%q is created twice or is no path", name)
		}
		files[name] = ""
		return &sink{done: func(text string) { files[name] = text }}, nil
	})
	return files, err
}

func TestUnpack(t *testing.T) {
	w := aWheel{pkg: "foo-bar", version: "1.0", files: map[string]string{
		"foo/__init__.py":                          "x = 1\n",
		"foo/__pycache__/__init__.cpython-311.pyc": "other code",
		"foo_bar-1.0.data/purelib/pure.py":         "pure",
		"foo_bar-1.0.data/platlib/foo/native.so":   "elf",
		"foo_bar-1.0.data/scripts/run":             "#!/bin/sh",
		"foo_bar-1.0.data/data/etc/passwd":         "root",
		"foo_bar-1.0.data/headers/foo.h":           "int",
	}}
	files, err := unpacked(w.bytes(t), "foo-bar", wheelBounds)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	want := []string{"foo/__init__.py", "foo/native.so", "foo_bar-1.0.dist-info/METADATA", "foo_bar-1.0.dist-info/RECORD", "foo_bar-1.0.dist-info/WHEEL", "pure.py"}
	if !slices.Equal(names, want) {
		t.Errorf("unpacked %q, want %q", names, want)
	}
	if files["foo/__init__.py"] != "x = 1\n" || files["foo/native.so"] != "elf" {
		t.Errorf("content: %q", files)
	}
}

func TestUnpackRefuses(t *testing.T) {
	with := func(name, text string) aWheel {
		return aWheel{pkg: "foo", version: "1", files: map[string]string{name: text}}
	}
	link := zip.FileHeader{Name: "foo/link"}
	link.SetMode(fs.ModeSymlink | 0o777)
	device := zip.FileHeader{Name: "foo/null"}
	device.SetMode(fs.ModeDevice | 0o666)
	small := wheelBounds
	small.bytes, small.floor = 1<<20, 64<<10
	few := wheelBounds
	few.files = 3
	shallow := wheelBounds
	shallow.files = 20
	good := with("foo.py", "x").bytes(t)
	for _, c := range []struct {
		name string
		data []byte
		b    bounds
		want string
	}{
		{"parent", with("../evil.py", "x").bytes(t), wheelBounds, "not below"},
		{"parent in the middle", with("foo/../../evil.py", "x").bytes(t), wheelBounds, "not below"},
		{"absolute", with("/etc/passwd", "x").bytes(t), wheelBounds, "not below"},
		{"dot", with("./foo.py", "x").bytes(t), wheelBounds, "not below"},
		{"backslash", with(`..\evil.py`, "x").bytes(t), wheelBounds, "backslash"},
		{"control character", with("foo\n.py", "x").bytes(t), wheelBounds, "control"},
		{"long name", with(strings.Repeat("a", 256), "x").bytes(t), wheelBounds, "not below"},
		{"parent by .data", with("foo-1.data/purelib/../../x.py", "x").bytes(t), wheelBounds, "not below"},
		{"link", aWheel{pkg: "foo", version: "1", extra: []zip.FileHeader{link}}.bytes(t), wheelBounds, "is a link"},
		{"device", aWheel{pkg: "foo", version: "1", extra: []zip.FileHeader{device}}.bytes(t), wheelBounds, "is a link or something else"},
		{"twice", aWheel{pkg: "foo", version: "1", files: map[string]string{"a.py": "1"}, extra: []zip.FileHeader{{Name: "a.py"}}}.bytes(t), wheelBounds, "twice"},
		{"case", aWheel{pkg: "foo", version: "1", files: map[string]string{"a/b.py": "1", "A/c.py": "2", "a/B.py": "3"}}.bytes(t), wheelBounds, "case"},
		{"twice by .data", aWheel{pkg: "foo", version: "1", files: map[string]string{"a.py": "1", "foo-1.data/platlib/a.py": "2"}}.bytes(t), wheelBounds, "twice"},
		{"file and directory", aWheel{pkg: "foo", version: "1", files: map[string]string{"a": "1", "a/b": "2"}}.bytes(t), wheelBounds, "twice"},
		{"zip bomb", with("zeros", strings.Repeat("\x00", 1<<20-8000)).bytes(t), small, "a zip bomb"},
		{"too large", with("zeros", strings.Repeat("\x00", 2<<20)).bytes(t), small, "unpacks to more"},
		{"too many", with("foo.py", "x").bytes(t), few, "4 files"},
		{"too many directories", with(strings.Repeat("d/", 20)+"foo.py", "x").bytes(t), shallow, "20 files and directories"},
		{"other content than recorded", aWheel{pkg: "foo", version: "1", files: map[string]string{"a.py": "1"}, recorded: map[string]string{"a.py": "2"}}.bytes(t), wheelBounds, "other content"},
		{"not recorded", aWheel{pkg: "foo", version: "1", files: map[string]string{"a.py": "1"}, unrecorded: []string{"a.py"}}.bytes(t), wheelBounds, "not in its RECORD"},
		{"another package", aWheel{pkg: "bar", version: "1"}.bytes(t), wheelBounds, `no metadata of package "foo"`},
		{"two packages", aWheel{pkg: "foo", version: "1", files: map[string]string{"bar-1.dist-info/RECORD": ""}}.bytes(t), wheelBounds, "two files of records"},
		{"comment", aWheel{pkg: "foo", version: "1", comment: "hello"}.bytes(t), wheelBounds, "without a comment"},
		{"something before it", append([]byte("#!/bin/sh\n"), good...), wheelBounds, "not where it says"},
		{"cut", good[:len(good)-30], wheelBounds, "is no wheel"},
		{"empty", nil, wheelBounds, "is no wheel"},
		{"wheel version", aWheel{pkg: "foo", version: "1", files: map[string]string{"foo-1.dist-info/WHEEL": "Wheel-Version: 2.0\n"}}.bytes(t), wheelBounds, "wheel version"},
	} {
		_, err := unpacked(c.data, "foo", c.b)
		var refused *Error
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want a refusal with %q", c.name, err, c.want)
		}
	}
}

// A directory that claims few entries and holds many, or a file that claims to be
// small and is not, is cut off where the claim ends.
func TestUnpackHoldsToClaims(t *testing.T) {
	data := aWheel{pkg: "foo", version: "1", files: map[string]string{"a.py": strings.Repeat("x", 5000)}}.bytes(t)
	at := bytes.LastIndex(data, []byte("PK\x01\x02")) // the last entry is RECORD; find a.py's
	for at >= 0 && !bytes.HasPrefix(data[at+46:], []byte("a.py")) {
		at = bytes.LastIndex(data[:at], []byte("PK\x01\x02"))
	}
	lying := bytes.Clone(data)
	copy(lying[at+24:], []byte{10, 0, 0, 0}) // uncompressed size
	if _, err := unpacked(lying, "foo", wheelBounds); err == nil {
		t.Error("a file of 5000 bytes that claims 10 is taken")
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(aWheel{pkg: "foo", version: "1", files: map[string]string{"foo/a.py": "x", "foo-1.data/purelib/b.py": "y"}}.bytes(f))
	f.Add(aWheel{pkg: "foo", version: "1", files: map[string]string{"../x": "x"}}.bytes(f))
	f.Add([]byte("PK\x05\x06" + strings.Repeat("\x00", 18)))
	b := bounds{files: 100, directory: 64 << 10, bytes: 1 << 20, ratio: 60, floor: 64 << 10, record: 64 << 10}
	f.Fuzz(func(t *testing.T, data []byte) {
		files, err := unpacked(data, "foo", b)
		var total int64
		for name, text := range files {
			total += int64(len(text))
			if !fs.ValidPath(name) || strings.Contains(name, `\`) {
				t.Errorf("unpacked to %q", name)
			}
		}
		if total > b.bytes {
			t.Errorf("unpacked %d bytes", total)
		}
		var refused *Error
		if err != nil && !errors.As(err, &refused) {
			t.Errorf("what is wrong with an archive is not a failure of this machine: %v", err)
		}
	})
}

// anyRoom is for wheels that are alone.
func anyRoom(int, int64) error { return nil }
