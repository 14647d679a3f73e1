package e2e

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdAs is: as USER. What follows connects with that user's key.
func cmdAs(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: as USER")
	}
	key := filepath.Join(ts.Getenv("KEYS"), args[0])
	_, err := os.Stat(key)
	ts.Check(err)
	ts.Setenv("HG_KEY", key)
}

// cmdRepo is: repo DIR [LAKE]. It makes DIR a repository whose origin is the lake
// of the same name, commits what is in it, and goes there.
func cmdRepo(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: repo DIR [LAKE]")
	}
	dir, lake := args[0], args[len(args)-1]
	abs := ts.MkAbs(dir)
	ts.Check(os.MkdirAll(abs, 0o755))
	ts.Check(ts.Chdir(abs))
	for _, cmd := range [][]string{
		{"init", "-q"},
		{"remote", "add", "origin", ts.Getenv("HEADGATE_URL") + "/" + lake},
		{"add", "-A"},
		{"commit", "-q", "--allow-empty", "-m", "First state"},
	} {
		ts.Check(ts.Exec("git", cmd...))
	}
}

// cmdParquet is: parquet FILE 'SELECT ...'. The file is what DuckDB writes.
func cmdParquet(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: parquet FILE QUERY")
	}
	path := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(filepath.Dir(path), 0o755))
	code := `import duckdb, sys
c = duckdb.connect()
c.execute("SET threads=1")
c.execute("COPY (" + sys.argv[2] + ") TO '" + sys.argv[1].replace("'", "''") + "' (FORMAT parquet)")
`
	ts.Check(ts.Exec(ts.Getenv("HEADGATE_PYTHON"), "-c", code, path, args[1]))
}

// environment is what the script's own exec gives to a program.
func environment(ts *testscript.TestScript) []string {
	var env []string
	for _, name := range []string{"HOME", "PATH", "GIT_CONFIG_NOSYSTEM", "GIT_SSH_COMMAND", "GIT_SSH_VARIANT", "HG_KEY", "HG_PORT", "HG_KNOWN_HOSTS", "LC_ALL"} {
		env = append(env, name+"="+ts.Getenv(name))
	}
	return env
}

func program(ts *testscript.TestScript, args []string) *exec.Cmd {
	path := args[0]
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		full := filepath.Join(dir, args[0])
		if info, err := os.Stat(full); err == nil && info.Mode()&0o111 != 0 && !info.IsDir() {
			path = full
			break
		}
	}
	cmd := exec.Command(path, args[1:]...)
	cmd.Dir, cmd.Env = ts.MkAbs("."), environment(ts)
	return cmd
}

// cmdUntil is: until TEXT PROGRAM ARGS... It runs the program again and again
// until its output holds TEXT.
func cmdUntil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until TEXT PROGRAM ARGS...")
	}
	var out []byte
	for deadline := time.Now().Add(untilLimit); time.Now().Before(deadline); {
		out, _ = program(ts, args[1:]).CombinedOutput()
		if bytes.Contains(out, []byte(args[0])) {
			return
		}
	}
	ts.Fatalf("%q did not come within %s; the last output was:\n%s", args[0], untilLimit, out)
}

// cmdCapture is: capture NAME PROGRAM ARGS... The output, without blanks at its
// ends, becomes the variable NAME.
func cmdCapture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: capture NAME PROGRAM ARGS...")
	}
	cmd := program(ts, args[1:])
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		ts.Fatalf("%v: %s", err, stderr.Bytes())
	}
	ts.Setenv(args[0], strings.TrimSpace(string(out)))
}

// cmdSame is: same A B. Values with blanks in them are one word each.
func cmdSame(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: same A B")
	}
	if (args[0] == args[1]) == neg {
		ts.Fatalf("%q and %q: want the same: %t", args[0], args[1], !neg)
	}
}

// cmdNoFile is: nofile PATTERN. No file may match it.
func cmdNoFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: nofile PATTERN")
	}
	found, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(found) > 0 {
		ts.Fatalf("these are there: %q", found)
	}
}

// cmdBadTree is: badtree VAR NAME... A tree that git's own tools would not make,
// with one empty file for each NAME in the order given, is written into the
// repository; VAR becomes its oid.
func cmdBadTree(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: badtree VAR NAME...")
	}
	write := func(kind string, content []byte) string {
		cmd := program(ts, []string{"git", "hash-object", "--literally", "-w", "-t", kind, "--stdin"})
		cmd.Stdin = bytes.NewReader(content)
		out, err := cmd.Output()
		ts.Check(err)
		return strings.TrimSpace(string(out))
	}
	blob, err := hex.DecodeString(write("blob", nil))
	ts.Check(err)
	var tree bytes.Buffer
	for _, name := range args[1:] {
		fmt.Fprintf(&tree, "100644 %s\x00%s", name, blob)
	}
	ts.Setenv(args[0], write("tree", tree.Bytes()))
}

// cmdDamage is: damage FILE cut N | flip N. It cuts the last N bytes off, or
// flips the bits of the byte at N (from the end if negative).
func cmdDamage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: damage FILE cut|flip N")
	}
	path := ts.MkAbs(args[0])
	data, err := os.ReadFile(path)
	ts.Check(err)
	n, err := strconv.Atoi(args[2])
	ts.Check(err)
	switch args[1] {
	case "cut":
		data = data[:len(data)-n]
	case "flip":
		if n < 0 {
			n += len(data)
		}
		data[n] ^= 0xff
	default:
		ts.Fatalf("damage: no such word: %s", args[1])
	}
	ts.Check(os.WriteFile(path, data, 0o644))
}

// cmdRawPush is: rawpush LAKE REF OLD NEW PACK. It speaks git's push protocol
// with these bytes and no others, which no git client would, and prints what the
// server reports. It fails if the server does not report every ref as ok.
func cmdRawPush(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 5 {
		ts.Fatalf("usage: rawpush LAKE REF OLD NEW PACK")
	}
	pack, err := os.ReadFile(ts.MkAbs(args[4]))
	ts.Check(err)
	var request bytes.Buffer
	pkt(&request, fmt.Sprintf("%s %s %s\x00report-status agent=rawpush", args[2], args[3], args[1]))
	request.WriteString("0000")
	request.Write(pack)
	cmd := program(ts, []string{"ask", "git-receive-pack '/" + args[0] + "'"})
	cmd.Stdin = &request
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, _ := cmd.Output()
	report := afterAdvertisement(out)
	_, err = io.WriteString(ts.Stdout(), report)
	ts.Check(err)
	_, err = ts.Stderr().Write(stderr.Bytes())
	ts.Check(err)
	ok := strings.Contains(report, "unpack ok") && strings.Contains(report, "ok "+args[1])
	if ok == neg {
		ts.Fatalf("rawpush: ok is %t; the report: %q; stderr: %s", ok, report, stderr.Bytes())
	}
}

func pkt(w *bytes.Buffer, line string) { fmt.Fprintf(w, "%04x%s", len(line)+4, line) }

// afterAdvertisement returns the pkt-lines behind the first flush, a line each.
func afterAdvertisement(b []byte) string {
	var report strings.Builder
	for flushed := false; len(b) >= 4; {
		n, err := strconv.ParseUint(string(b[:4]), 16, 16)
		if err != nil || int(n) > len(b) {
			break
		}
		if n < 4 {
			flushed = true
			b = b[4:]
			continue
		}
		if flushed {
			report.WriteString(strings.TrimRight(string(b[4:n]), "\n") + "\n")
		}
		b = b[n:]
	}
	return report.String()
}
