package uploadpack

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/backend"
	"github.com/headgate/headgate/refs"
	"github.com/headgate/headgate/server/pktline"
)

// chain returns a server of a lake with n commits in a row, and their oids.
func chain(t *testing.T, n int) (*Server, []objects.OID) {
	t.Helper()
	ctx := context.Background()
	store, err := objects.OpenStore(backend.NewMemory(), t.TempDir(), objects.Options{})
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
	put := func(kind objects.Type, text string) objects.OID {
		oid, err := q.Put(ctx, kind, int64(len(text)), strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		return oid
	}
	tree := put(objects.Tree, "")
	var oids []objects.OID
	for i := range n {
		text := fmt.Sprintf("tree %s\n", tree)
		if i > 0 {
			text += fmt.Sprintf("parent %s\n", oids[i-1])
		}
		text += fmt.Sprintf("author A <a@x> %d +0000\ncommitter C <c@x> %d +0000\n\n%d\n", 1000+i, 1000+i, i)
		oids = append(oids, put(objects.Commit, text))
	}
	if err := q.Migrate(ctx); err != nil {
		t.Fatal(err)
	}
	r := refs.NewMemory()
	if err := r.Apply(ctx, []refs.Update{{Name: "refs/heads/main", New: oids[n-1]}}, refs.Cause{}); err != nil {
		t.Fatal(err)
	}
	return &Server{Objects: store, Refs: r, Head: "refs/heads/main", Agent: "headgate/test"}, oids
}

// respond sends one stateless request of protocol v0 and returns the lines of the
// answer up to a flush, "PACK" for a pack, and the end.
func respond(t *testing.T, s *Server, lines ...string) []string {
	t.Helper()
	var in, out bytes.Buffer
	w := pktline.NewWriter(&in)
	for _, l := range lines {
		if l == "" {
			_ = w.Flush()
		} else {
			_ = w.Line("%s", l)
		}
	}
	if err := s.Respond(context.Background(), 0, &in, &out); err != nil {
		t.Fatal(err)
	}
	var got []string
	for {
		if bytes.HasPrefix(out.Bytes(), []byte("PACK")) {
			return append(got, "PACK")
		}
		kind, line, err := pktline.NewReader(&out).Line()
		switch {
		case err == io.EOF:
			return got
		case err != nil:
			t.Fatal(err)
		case kind == pktline.Flush:
			line = "0000"
		}
		got = append(got, line)
	}
}

// A stateless client says in each request what was common in those before, and
// gets what git's upload-pack --stateless-rpc says.
func TestStatelessRounds(t *testing.T) {
	s, oids := chain(t, 40)
	want := fmt.Sprintf("want %s multi_ack_detailed", oids[39])
	absent := "have " + strings.Repeat("12", 20)
	have := "have " + oids[5].String()
	tests := []struct {
		name string
		in   []string
		out  []string
	}{
		{"nothing wanted", []string{""}, nil},
		{"clone", []string{want, "", "done"}, []string{"NAK", "PACK"}},
		{"nothing common yet", []string{want, "", absent, ""}, []string{"NAK"}},
		{"something common", []string{want, "", have, ""},
			[]string{"ACK " + oids[5].String() + " common", "ACK " + oids[5].String() + " ready", "NAK"}},
		{"no-done", []string{want + " no-done", "", have, ""},
			[]string{"ACK " + oids[5].String() + " common", "ACK " + oids[5].String() + " ready", "NAK", "ACK " + oids[5].String(), "PACK"}},
		{"no-done, ready by another have", []string{want + " no-done", "", have, absent, ""},
			[]string{"ACK " + oids[5].String() + " common", "ACK " + strings.Repeat("12", 20) + " ready", "NAK", "ACK " + oids[5].String(), "PACK"}},
		{"the last round", []string{want, "", have, "done"},
			[]string{"ACK " + oids[5].String() + " common", "ACK " + oids[5].String(), "PACK"}},
		{"the boundary alone", []string{want, "deepen 1", ""}, []string{"shallow " + oids[39].String(), "0000"}},
		{"the boundary again, and the pack", []string{want, "deepen 1", "", "done"}, []string{"shallow " + oids[39].String(), "0000", "NAK", "PACK"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := respond(t, s, tt.in...); !slices.Equal(got, tt.out) {
				t.Errorf("got %q\nwant %q", got, tt.out)
			}
		})
	}
}

// A client that says the same again and again, or a lot at once, costs no more for it.
func TestRequestsAreBounded(t *testing.T) {
	s, oids := chain(t, 3)
	n := newNegotiation(newGraph(context.Background(), s.Objects), oids[2:])
	for range 1000 {
		if ok, err := n.have(context.Background(), oids[0]); !ok || err != nil {
			t.Fatalf("%v, %v", ok, err)
		}
	}
	if len(n.common) != 1 {
		t.Errorf("one commit is kept %d times", len(n.common))
	}
	for version, head := range map[int]string{2: "0012command=fetch\n0001", 0: ""} {
		line := "want-ref refs/heads/" + strings.Repeat("x", 60_000)
		if version == 0 {
			line = "deepen-not refs/heads/" + strings.Repeat("x", 60_000)
			head = fmt.Sprintf("0032want %s\n", oids[2])
		}
		in := io.MultiReader(strings.NewReader(head), strings.NewReader(strings.Repeat(fmt.Sprintf("%04x%s", len(line)+4, line), 1200)))
		var out bytes.Buffer
		err := s.Respond(context.Background(), version, in, &out)
		if err == nil || !strings.Contains(out.String(), "ERR the request has more than") {
			t.Errorf("v%d: %v, %.100q", version, err, out.String())
		}
	}
}

func TestAdvertise(t *testing.T) {
	s, oids := chain(t, 1)
	get := func(version int) string {
		var out bytes.Buffer
		if err := s.Advertise(context.Background(), version, &out); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	if got := get(2); !strings.HasPrefix(got, "000eversion 2\n") || !strings.HasSuffix(got, "0000") || strings.Contains(got, oids[0].String()) {
		t.Errorf("v2: %q", got)
	}
	if got := get(1); !strings.HasPrefix(got, "000eversion 1\n") || !strings.Contains(got, oids[0].String()+" refs/heads/main\n") {
		t.Errorf("v1: %q", got)
	}
	if got := get(0); !strings.Contains(got, oids[0].String()+" HEAD\x00") || !strings.Contains(got, " no-done") {
		t.Errorf("v0: %q", got)
	}
	// A connection that lasts has no use for no-done.
	var out bytes.Buffer
	if err := s.Serve(context.Background(), 0, eof{}, &out); err != nil || strings.Contains(out.String(), "no-done") {
		t.Errorf("%v, %q", err, out.String())
	}
}

// One request is one command, in protocol v2 too.
func TestStatelessCommand(t *testing.T) {
	s, oids := chain(t, 1)
	var in, out bytes.Buffer
	w := pktline.NewWriter(&in)
	for range 2 {
		_ = w.Line("command=ls-refs")
		_ = w.Flush()
	}
	if err := s.Respond(context.Background(), 2, &in, &out); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("0032%s HEAD\n003d%s refs/heads/main\n0000", oids[0], oids[0])
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	if s.Respond(context.Background(), 2, strings.NewReader("0012command=rm-rf\n0000"), &out) == nil || !strings.Contains(out.String(), `ERR unknown command "rm-rf"`) {
		t.Errorf("an unknown command: %q", out.String())
	}
}
