package sandbox

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/headgate/headgate/exec/protocol"
)

// What every test needs: gVisor in the built server binary, and the probe as
// worker. There is no test without gVisor.
var runscBinary, probeBinary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if os.Getenv("SANDBOX_TEST_SERVER") != "" {
			return actAsServer()
		}
		runscBinary = os.Getenv("HEADGATE_BIN")
		if runscBinary == "" {
			runscBinary = filepath.Join("..", "..", "bin", "headgate")
		}
		var err error
		if runscBinary, err = filepath.Abs(runscBinary); err == nil {
			_, err = os.Stat(runscBinary)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "no gVisor to test with: %v; run make build\n", err)
			return 1
		}
		dir, err := os.MkdirTemp("", "sandbox-probe-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		probeBinary = filepath.Join(dir, "probe")
		build := exec.Command("go", "build", "-o", probeBinary, "./testdata/probe")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build probe: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// quiet is a configuration without warm sandboxes, for tests that count.
func quiet(tb testing.TB) Config {
	return Config{
		Dir: filepath.Join(tb.TempDir(), "state"), Runsc: runscBinary, Worker: probeBinary,
		WarmWorkers: -1, WarmPython: -1, Logger: slog.New(slog.NewTextHandler(testWriter{tb}, nil)),
	}
}

type testWriter struct{ tb testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.tb.Logf("%s", bytes.TrimSpace(p))
	return len(p), nil
}

func open(tb testing.TB, cfg Config) *Manager {
	tb.Helper()
	m, err := New(context.Background(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := m.Close(); err != nil {
			tb.Error(err)
		}
	})
	return m
}

// result is a report with what came out.
type result struct {
	*Report
	files map[string]string
	log   string
}

func (r *result) out() string { return r.files["out"] }

// userError is what the probe's verb failed with.
func (r *result) userError() string {
	if r.Answer == nil || r.Answer.Error == nil {
		return ""
	}
	return r.Answer.Error.Message
}

func do(tb testing.TB, m *Manager, job Job) (*result, error) {
	tb.Helper()
	r := &result{files: make(map[string]string)}
	var log bytes.Buffer
	job.Log = &log
	if job.Kind == "" {
		job.Kind = KindWorker
	}
	if job.Files == nil {
		job.Files = func(name string, size int64, body io.Reader) error {
			b, err := io.ReadAll(body)
			r.files[name] = string(b)
			return err
		}
	}
	var err error
	r.Report, err = m.Run(context.Background(), job)
	r.log = log.String()
	return r, err
}

// must runs a verb of the probe that is to end with an answer.
func must(tb testing.TB, m *Manager, verb string, inputs ...Input) *result {
	tb.Helper()
	r, err := do(tb, m, Job{Order: &protocol.Order{SQL: verb}, Inputs: inputs})
	if err != nil {
		tb.Fatalf("%s: %v", verb, err)
	}
	if r.Answer == nil {
		tb.Fatalf("%s: no answer: %+v\n%s", verb, r.Report, r.log)
	}
	return r
}

// content is an input with the given text.
func content(path, text string) Input {
	return Input{Path: path, Link: func(host string) error { return os.WriteFile(host, []byte(text), 0o444) }}
}
