package uploadpack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/backend"
	"github.com/headgate/headgate/refs"
	"github.com/headgate/headgate/server/pktline"
)

// ask speaks one v2 command with a server and returns the lines of its answer.
func ask(t *testing.T, s *Server, command string, args ...string) ([]string, error) {
	t.Helper()
	var in, out bytes.Buffer
	w := pktline.NewWriter(&in)
	_ = w.Line("command=%s", command)
	_ = w.Delim()
	for _, arg := range args {
		_ = w.Line("%s", arg)
	}
	_ = w.Flush()
	if err := errors.Join(w.Flush(), w.Err()); err != nil { // a second flush ends the conversation
		t.Fatal(err)
	}
	err := s.Serve(context.Background(), 2, &in, &out)
	r := pktline.NewReader(&out)
	var lines []string
	offered := false
	for flushes := 0; flushes < 2; {
		kind, line, readErr := r.Line()
		if readErr != nil {
			if err == nil {
				t.Fatal(readErr)
			}
			break
		}
		switch {
		case kind == pktline.Flush:
			flushes++
		case flushes == 0:
			offered = offered || line == command || strings.HasPrefix(line, command+"=")
		default:
			lines = append(lines, line)
		}
	}
	if !offered {
		t.Errorf("%s is not among the capabilities", command)
	}
	return lines, err
}

func TestObjectInfo(t *testing.T) {
	ctx := context.Background()
	store, err := objects.OpenStore(backend.NewMemory(), t.TempDir(), objects.Options{RawThreshold: 1000})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	q, err := store.Quarantine()
	if err != nil {
		t.Fatal(err)
	}
	put := func(n int) objects.OID {
		oid, err := q.Put(ctx, objects.Blob, int64(n), strings.NewReader(strings.Repeat("x", n)))
		if err != nil {
			t.Fatal(err)
		}
		return oid
	}
	small, large, secret := put(7), put(5000), put(9)
	if err := errors.Join(q.Migrate(ctx), q.Discard()); err != nil {
		t.Fatal(err)
	}
	s := &Server{Objects: store, Refs: refs.NewMemory(), Head: "refs/heads/main", Agent: "test",
		AllowWant: func(_ context.Context, oid objects.OID) error {
			if oid == secret {
				return errors.New("not yours")
			}
			return nil
		}}
	tests := []struct {
		args, want []string
	}{
		{[]string{"size", "oid " + small.String(), "oid " + large.String()},
			[]string{"size", fmt.Sprintf("%s 7", small), fmt.Sprintf("%s 5000", large)}},
		{[]string{"size", "oid " + oidA, "oid " + small.String()}, []string{"size", oidA + " ", fmt.Sprintf("%s 7", small)}},
		{[]string{"size", "oid " + secret.String()}, []string{"size", secret.String() + " "}},
		{[]string{"oid " + small.String()}, []string{small.String()}},
		{[]string{"size"}, nil},
	}
	for _, tt := range tests {
		got, err := ask(t, s, "object-info", tt.args...)
		if err != nil || fmt.Sprintf("%q", got) != fmt.Sprintf("%q", tt.want) {
			t.Errorf("%q: got %q, %v; want %q", tt.args, got, err, tt.want)
		}
	}
	for _, bad := range []string{"type", "oid", "oid " + oidA[:39], "oid " + strings.ToUpper(oidA)} {
		_, err := ask(t, s, "object-info", bad)
		var re *RequestError
		if !errors.As(err, &re) {
			t.Errorf("%q: got %v, want a refusal", bad, err)
		}
	}
}

func FuzzParseObjectInfo(f *testing.F) {
	f.Add("size\noid " + oidA)
	f.Add("oid " + oidB + "\noid")
	f.Fuzz(func(t *testing.T, text string) {
		args := strings.Split(text, "\n")
		req, err := parseObjectInfo(args)
		var re *RequestError
		if err != nil && !errors.As(err, &re) {
			t.Fatalf("the error is no refusal: %v", err)
		}
		if err == nil && len(req.oids) > len(args) {
			t.Fatalf("%d lines gave %d oids", len(args), len(req.oids))
		}
	})
}
