package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// invoke runs a command line as a process would.
func invoke(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	code = run(context.Background(), args, streams{&out, &errOut})
	return code, out.String(), errOut.String()
}

func TestExitCodesAndHelp(t *testing.T) {
	for _, c := range []struct {
		args   string
		code   int
		stdout string
		stderr string
	}{
		{"", exitOK, "headgate serve", ""},
		{"--help", exitOK, "Exit codes: 0 done, 1 failed or refused, 2 wrong usage", ""},
		{"serve --help", exitOK, "--authorized-keys", ""},
		{"init --help", exitOK, "Examples", ""},
		{"import --help", exitOK, "Examples", ""},
		{"query --help", exitOK, "Examples", ""},
		{"log --help", exitOK, "Examples", ""},
		{"version", exitOK, "headgate dev", ""},
		{"version --json", exitOK, `"version": "dev"`, ""},
		{"frob", exitUsage, "", "frob"},
		{"serve --frob", exitUsage, "", "serve --help"},
		{"import x.csv", exitUsage, "", "--table"},
		{"import x.csv --table a/b", exitUsage, "", "table name"},
		{"import x.csv --table a --append --replace", exitUsage, "", "--append"},
		{"import nowhere.csv --table a", exitFailed, "", "nowhere.csv"},
		{"import x.xlsx --table a", exitFailed, "", "x.xlsx"},
	} {
		t.Run(c.args, func(t *testing.T) {
			code, stdout, stderr := invoke(t, strings.Fields(c.args)...)
			if code != c.code || !strings.Contains(stdout, c.stdout) || !strings.Contains(stderr, c.stderr) {
				t.Errorf("exit code %d, want %d\nstdout: %s\nstderr: %s", code, c.code, stdout, stderr)
			}
		})
	}
}

func TestInitMakesAllOrNothing(t *testing.T) {
	t.Run("all", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "deep", "lake")
		if code, _, stderr := invoke(t, "init", dir); code != exitOK {
			t.Fatal(stderr)
		}
		for _, f := range []string{"headgate.yaml", ".gitattributes", "README.md", "models/calendar.sql", "verifiers/calendar_has_no_gap.sql", ".git/HEAD"} {
			if _, err := os.Stat(filepath.Join(dir, f)); err != nil {
				t.Error(err)
			}
		}
		code, _, stderr := invoke(t, "init", dir)
		if code != exitFailed || !strings.Contains(stderr, "there already") {
			t.Errorf("a second init: exit code %d, %s", code, stderr)
		}
	})
	t.Run("one file in the way", func(t *testing.T) {
		dir := t.TempDir()
		own := filepath.Join(dir, "README.md")
		if err := os.WriteFile(own, []byte("mine"), 0o644); err != nil {
			t.Fatal(err)
		}
		if code, _, _ := invoke(t, "init", dir); code != exitFailed {
			t.Errorf("exit code %d", code)
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if text, err := os.ReadFile(own); len(entries) != 1 || string(text) != "mine" || err != nil {
			t.Errorf("left %v, README %q, %v", entries, text, err)
		}
	})
	t.Run("a file where a directory must be", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "verifiers"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if code, _, _ := invoke(t, "init", dir); code != exitFailed {
			t.Errorf("exit code %d", code)
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 1 {
			t.Errorf("left %v, %v", entries, err)
		}
	})
}

func TestServeNeedsSomebodyWhoMayConnect(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	worker := filepath.Join(t.TempDir(), workerName)
	if err := os.WriteFile(worker, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(t.TempDir(), "data")
	code, _, stderr := invoke(t, "serve", "--data", data, "--worker", worker)
	if code != exitFailed || !strings.Contains(stderr, "ssh-keygen") {
		t.Errorf("exit code %d, %s", code, stderr)
	}
	if _, err := os.Stat(data); err == nil {
		t.Error("a server that cannot serve made its data directory")
	}
}

func TestConfigFileKeysAreFlags(t *testing.T) {
	file := filepath.Join(t.TempDir(), "headgate.yaml")
	if err := os.WriteFile(file, []byte("ssh-addr: 127.0.0.1:0\nsssh-addr: x\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := invoke(t, "serve", "--config", file)
	if code != exitUsage || !strings.Contains(stderr, `"sssh-addr"`) {
		t.Errorf("exit code %d, %s", code, stderr)
	}
}

func TestAnnounceIsForPeopleAndForPrograms(t *testing.T) {
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJd6TYDxWcpkRiPbDVKbkPhk0Ksms0lAlAAxRVDWp9oK"
	var banner bytes.Buffer
	cfg := serveConfig{Data: t.TempDir(), Banner: &banner}
	if err := cfg.announce(readiness{SSHAddr: "0.0.0.0:2222", HTTPAddr: "127.0.0.1:8080", PID: 7, Version: "v1", HostKey: key, GateKey: key}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"headgate v1 is ready\n", "ssh://localhost:2222/LAKE", "SHA256:", cfg.Data, "ssh -p 2222 localhost help", "/healthz"} {
		if !strings.Contains(banner.String(), want) {
			t.Errorf("the banner lacks %q:\n%s", want, &banner)
		}
	}
	doc, err := os.ReadFile(filepath.Join(cfg.Data, serverFile))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(doc, &got); err != nil || got["ssh_addr"] != "0.0.0.0:2222" || got["pid"] != 7.0 {
		t.Errorf("%s: %v", doc, err)
	}
	cfg.withdraw()
	if _, err := os.Stat(filepath.Join(cfg.Data, serverFile)); err == nil {
		t.Error("server.json of a server that has ended is still there")
	}
}

func TestLogReadsWhatCommitsSay(t *testing.T) {
	oid := strings.Repeat("a", 40)
	message := "Publish to main: x\n\nRun-Id: 01J9ZQ4T3N8Y6W2K5D7F0H1M9C\nBase: " + oid + "\nProposal: " + oid + "\nPushed-By: ada%0A\n" +
		"Model: m code=c env=e in=t@s,u@s out=o rows=1234 cached=true\nVerifier: v%20w pass\n"
	p := readCommit(oid + "\n2026-01-02T03:04:05Z\nAda\n" + message)
	var out bytes.Buffer
	p.print(&out, nil, "", "")
	for _, want := range []string{"Publish to main: x", "pushed by ada?", "1,234 rows, cached  <- t, u", "v w", "pass"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("lacks %q:\n%s", want, &out)
		}
	}
	for text, want := range map[string]string{
		"Mine\n": "not a gate commit",
		strings.Replace(message, "rows=1", "", 1): "cannot be read",
	} {
		p := readCommit(oid + "\n2026-01-02T03:04:05Z\nAda\n" + text)
		out.Reset()
		p.print(&out, nil, "", "")
		if !strings.Contains(out.String(), want) {
			t.Errorf("lacks %q:\n%s", want, &out)
		}
	}
}

func TestFormats(t *testing.T) {
	for name, want := range map[string]string{"a.parquet": "parquet", "A.CSV": "csv", "x.csv.gz": "csv", "l.jsonl": "json", "l.ndjson.gz": "json", "b.xlsx": "", "c": ""} {
		if got := formatOf(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", -1234567: "-1,234,567"} {
		if got := thousands(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
	for n, want := range map[int64]string{12: "12 bytes", 1536: "1.5 KiB", 5 << 30: "5.0 GiB"} {
		if got := byteSize(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}
