package uploadpack

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/headgate/headgate/server/pktline"
)

func TestParseFilter(t *testing.T) {
	tests := []struct {
		spec        string
		limit, tree int64 // -1: unlimited
	}{
		{"blob:none", 0, -1},
		{"blob:limit=0", 0, -1},
		{"blob:limit=1k", 1024, -1},
		{"blob:limit=2M", 2 << 20, -1},
		{"blob:limit=1g", 1 << 30, -1},
		{"tree:0", -1, 0},
		{"tree:3", -1, 3},
		{"combine:blob:none+tree:2", 0, 2},
		{"combine:blob%3Alimit=10+blob:limit=5", 5, -1},
	}
	for _, tt := range tests {
		want := noFilter()
		if tt.limit >= 0 {
			want.blobLimit = tt.limit
		}
		if tt.tree >= 0 {
			want.treeDepth = tt.tree
		}
		if got, err := ParseFilter(tt.spec); err != nil || got != want {
			t.Errorf("%s: got %+v, %v; want %+v", tt.spec, got, err, want)
		}
	}
	for _, spec := range []string{
		"", "blob", "blob:", "blob:limit=", "blob:limit=-1", "blob:limit=9999999999g", "tree:", "tree:x", "tree:-1",
		"sparse:oid=main", "object:type=blob", "combine:", "combine:blob:none+", "combine:combine:tree:1", "combine:%zz",
		"combine:" + strings.Repeat("tree:1+", maxFilterParts) + "tree:1",
	} {
		_, err := ParseFilter(spec)
		var re *RequestError
		if !errors.As(err, &re) {
			t.Errorf("%s: got %v, want a refusal", spec, err)
		}
	}
}

const (
	oidA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	oidB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

func TestParseFetchRefusals(t *testing.T) {
	tests := []struct{ line, text string }{
		{"want " + oidA[:39], "malformed want line"},
		{"want " + strings.ToUpper(oidA), "malformed want line"},
		{"have x", "malformed have line"},
		{"shallow", "malformed shallow line"},
		{"deepen 0", "invalid depth"},
		{"deepen -1", "invalid depth"},
		{"deepen 99999999999", "invalid depth"},
		{"deepen-since soon", "invalid deepen-since"},
		{"deepen-not ", "invalid deepen-not"},
		{"filter sparse:oid=x", "is not offered"},
		{"sideband-all", "unexpected line in fetch"},
		{"packfile-uris https", "unexpected line in fetch"},
	}
	for _, tt := range tests {
		_, err := parseFetch([]string{"want " + oidA, tt.line})
		if err == nil || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%q: got %v, want %q", tt.line, err, tt.text)
		}
	}
	if _, err := parseFetch([]string{"want " + oidA, "deepen 1", "deepen-not main"}); err == nil {
		t.Error("deepen and deepen-not were taken together")
	}
}

func TestReadV0Request(t *testing.T) {
	var buf bytes.Buffer
	w := pktline.NewWriter(&buf)
	_ = w.Line("want %s multi_ack_detailed side-band-64k thin-pack no-progress include-tag ofs-delta agent=git/2.39.5 object-format=sha1", oidA)
	_ = w.Line("want %s", oidB)
	_ = w.Line("shallow %s", oidB)
	_ = w.Line("deepen 3")
	_ = w.Line("filter blob:none")
	_ = w.Flush()
	req, err := readV0Request(pktline.NewReader(&buf))
	if err != nil {
		t.Fatal(err)
	}
	if len(req.wants) != 2 || len(req.shallow) != 1 || req.depth != 3 || req.filter.blobLimit != 0 ||
		req.acks != ackDetailed || req.bands != bandWide || !req.noProgress || !req.includeTag {
		t.Fatalf("got %+v %+v", req, req.fetchRequest)
	}
}

func TestDisjoint(t *testing.T) {
	got := disjoint([]string{"refs/tags/", "refs/heads/main", "refs/heads/", "refs/tags/v1", "HEAD"})
	if want := []string{"HEAD", "refs/heads/", "refs/tags/"}; !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func FuzzParseFetch(f *testing.F) {
	f.Add("want " + oidA + "\nhave " + oidB + "\ndone")
	f.Add("want-ref refs/heads/main\nthin-pack\nofs-delta\ninclude-tag\nno-progress\nwait-for-done")
	f.Add("shallow " + oidA + "\ndeepen 2147483647\ndeepen-relative\nfilter tree:0")
	f.Add("deepen-since 1700000000\ndeepen-not refs/heads/x")
	f.Fuzz(func(t *testing.T, text string) {
		q, err := parseFetch(strings.Split(text, "\n"))
		var re *RequestError
		if err != nil && !errors.As(err, &re) {
			t.Fatalf("error %v is not for the client", err)
		}
		if err == nil && (q.depth < 0 || q.depth > infiniteDepth || q.since < 0) {
			t.Fatalf("took %+v", q)
		}
	})
}

func FuzzReadV0Request(f *testing.F) {
	f.Add([]byte("0032want " + oidA + "\n0000"))
	f.Add([]byte("0045want " + oidA + " side-band ofs-delta\n0035shallow " + oidB + "\n0000"))
	f.Add([]byte("0000"))
	f.Fuzz(func(t *testing.T, in []byte) {
		req, err := readV0Request(pktline.NewReader(bytes.NewReader(in)))
		if (req == nil) == (err == nil) {
			t.Fatalf("got %v, %v", req, err)
		}
	})
}
