package e2e

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdWheel is: wheel DIR NAME VERSION [requires=NAME]... [file=NAME:FILE]... [zeros=BYTES] [sdist].
// It puts a wheel of a package into DIR: a module of its name that has a VERSION,
// and with zeros a file of as many zero bytes. With sdist it is a source package,
// whose build would say that it ran.
func cmdWheel(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: wheel DIR NAME VERSION [requires=NAME]... [file=NAME:FILE]... [zeros=BYTES] [sdist]")
	}
	dir, name, version := ts.MkAbs(args[0]), args[1], args[2]
	ts.Check(os.MkdirAll(dir, 0o755))
	info := name + "-" + version + ".dist-info/"
	meta := "Metadata-Version: 2.1\nName: " + name + "\nVersion: " + version + "\n"
	files := [][2]string{{name + ".py", fmt.Sprintf("VERSION = %q\n", version)}}
	for _, option := range args[3:] {
		key, value, _ := strings.Cut(option, "=")
		switch key {
		case "requires":
			meta += "Requires-Dist: " + value + "\n"
		case "file":
			at, from, _ := strings.Cut(value, ":")
			files = append(files, [2]string{at, ts.ReadFile(from)})
		case "zeros":
			var n int
			_, err := fmt.Sscan(value, &n)
			ts.Check(err)
			files = append(files, [2]string{name + ".bin", strings.Repeat("\x00", n)})
		case "sdist":
			ts.Check(os.WriteFile(filepath.Join(dir, name+"-"+version+".tar.gz"), []byte("not even a tar file: nobody may open it"), 0o644))
			return
		default:
			ts.Fatalf("wheel: no such option: %s", option)
		}
	}
	files = append(files, [2]string{info + "METADATA", meta}, [2]string{info + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"})
	record := ""
	for _, f := range files {
		sum := sha256.Sum256([]byte(f[1]))
		record += fmt.Sprintf("%s,sha256=%s,%d\n", f[0], base64.RawURLEncoding.EncodeToString(sum[:]), len(f[1]))
	}
	files = append(files, [2]string{info + "RECORD", record + info + "RECORD,,\n"})
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, f := range files {
		w, err := z.Create(f[0])
		ts.Check(err)
		_, err = io.WriteString(w, f[1])
		ts.Check(err)
	}
	ts.Check(z.Close())
	ts.Check(os.WriteFile(filepath.Join(dir, name+"-"+version+"-py3-none-any.whl"), b.Bytes(), 0o644))
}
