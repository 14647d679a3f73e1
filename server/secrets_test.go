package server_test

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/server"
)

func TestSecretCommands(t *testing.T) {
	s := newSite(t)
	l, err := s.lakes.Create(t.Context(), "flights")
	check(t, err)
	const value = "correct horse battery"
	for _, c := range []struct {
		user, line, stdin string
		code              int
		want              string
	}{
		{"user", "secret set flights API_KEY", value, 1, "is for administrators; you are ada"},
		{"admin", "secret ls flights", "", 0, "no secrets"},
		{"admin", "secret set flights API_KEY", "short\n", 1, "cannot be kept out of logs"},
		{"admin", "secret set flights API_KEY", strings.Repeat("x", lake.MaxSecret+1), 1, "more than 8192 bytes"},
		{"admin", "secret set flights 'API KEY'", value, 1, "not a name for a secret"},
		{"admin", "secret set absent API_KEY", value, 1, "does not exist"},
		{"admin", "secret set flights API_KEY " + "'" + value + "'", "", 2, "takes 2 arguments"},
		{"admin", "secret set flights API_KEY", value + "\n", 0, "is set"},
		{"admin", "secret set flights LONGEST", strings.Repeat("y", lake.MaxSecret) + "\r\n", 0, "is set"},
		{"user", "secret ls flights", "", 0, "API_KEY"},
		{"user", "secret ls flights --json", "", 0, `"who":"root"`},
		{"user", "secret rm flights API_KEY", "", 1, "is for administrators"},
	} {
		out, errText, code := s.sshWith(c.user, c.line, c.stdin)
		if code != c.code || !strings.Contains(out+errText, c.want) {
			t.Errorf("%s: %s: exit %d, %q %q; want exit %d and %q", c.user, c.line, code, out, errText, c.code, c.want)
		}
		if strings.Contains(out+errText, value) {
			t.Errorf("%s: the answer repeats the value: %q %q", c.line, out, errText)
		}
	}
	if got, err := l.Secrets.Get("API_KEY"); err != nil || got.Value != value {
		t.Errorf("API_KEY is %q, %v; want the value without its newline", got.Value, err)
	}
	if out, _, code := s.ssh("admin", "secret rm flights API_KEY"); code != 0 || !strings.Contains(out, "removed") {
		t.Errorf("remove: exit %d, %q", code, out)
	}
	if _, errText, code := s.ssh("admin", "secret rm flights API_KEY"); code != 1 || !strings.Contains(errText, "has no secret") {
		t.Errorf("remove again: exit %d, %q", code, errText)
	}
}

// Whoever types a secret where it does not belong must not find it in the log.
func TestLogHasNoSecretOfACommandLine(t *testing.T) {
	var log lockedBuffer
	s := newSite(t, func(c *server.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	_, err := s.lakes.Create(t.Context(), "flights")
	check(t, err)
	s.ssh("admin", "secret set flights API_KEY hunter2-hunter2")
	s.ssh("admin", "secret set flights API_KEY=hunter2-hunter2")
	if text := log.String(); strings.Contains(text, "hunter2") || !strings.Contains(text, "secret set flights API_KEY ...") {
		t.Errorf("the log:\n%s", text)
	}
}
