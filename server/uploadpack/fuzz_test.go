package uploadpack

import (
	"bytes"
	"errors"
	"io"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/headgate/headgate/server/pktline"
)

// FuzzReadCommand reads version 2 requests until the stream ends: each is
// bounded, and each error is one that a client is told in words of its own.
func FuzzReadCommand(f *testing.F) {
	say := func(lines ...string) []byte {
		var buf bytes.Buffer
		w := pktline.NewWriter(&buf)
		for _, l := range lines {
			switch l {
			case "|":
				_ = w.Delim()
			case "":
				_ = w.Flush()
			default:
				_ = w.Line("%s", l)
			}
		}
		return buf.Bytes()
	}
	f.Add(say("command=ls-refs", "agent=git/2", "object-format=sha1", "|", "peel", "symrefs", "ref-prefix refs/heads/", "", ""))
	f.Add(say("command=fetch", "server-option=x", "|", "want "+oidA, "have "+oidB, "done", ""))
	f.Add(say("command=object-info", "|", "size", "oid "+oidA, "", "command=fetch", ""))
	f.Add(say("command=a", "command=b", ""))
	f.Add(say(""))
	f.Fuzz(func(t *testing.T, in []byte) {
		src := bytes.NewReader(in)
		c := &conn{in: pktline.NewReader(src)}
		for {
			before := src.Len()
			cmd, args, err := c.readCommand()
			var re *RequestError
			if err != nil && !errors.As(err, &re) && clientText(err) == internalText {
				t.Fatalf("%v is told as a fault of the server", err)
			}
			if err != nil || cmd == "" {
				return
			}
			used := in[len(in)-before : len(in)-src.Len()]
			if len(args) > maxArguments {
				t.Fatalf("%d arguments", len(args))
			}
			// An argument is a line that was sent, whole and in order.
			r := pktline.NewReader(bytes.NewReader(used))
			var sent []string
			for {
				kind, line, err := r.Line()
				if err == io.EOF {
					break
				} else if err != nil {
					t.Fatal(err)
				}
				if kind == pktline.Data {
					sent = append(sent, line)
				}
			}
			if n := len(sent) - len(args); n < 1 || !slices.Equal(sent[n:], args) {
				t.Fatalf("sent %q, understood %q", sent, args)
			}
			if !slices.Contains(sent[:len(sent)-len(args)], "command="+cmd) {
				t.Fatalf("sent %q, understood command %q", sent, cmd)
			}
		}
	})
}

// More prefixes than are kept mean all refs, as the protocol allows.
func TestTooManyPrefixes(t *testing.T) {
	args := slices.Repeat([]string{"ref-prefix refs/heads/x"}, maxPrefixes)
	if req, err := parseLsRefs(args); err != nil || len(req.prefixes) != maxPrefixes {
		t.Errorf("%d prefixes, %v; want %d", len(req.prefixes), err, maxPrefixes)
	}
	if req, err := parseLsRefs(append(args, "ref-prefix refs/heads/y", "peel")); err != nil || req.prefixes != nil || !req.peel {
		t.Errorf("one more: %d prefixes, %v; want none", len(req.prefixes), err)
	}
}

func FuzzParseLsRefs(f *testing.F) {
	f.Add("symrefs\npeel\nunborn\nref-prefix refs/heads/\nref-prefix HEAD")
	f.Add("ref-prefix \nref-prefix refs/tags/v1\nref-prefix refs/tags/")
	f.Add("peeled")
	names := []string{"HEAD", "refs/heads/main", "refs/heads/x", "refs/heads/x/y", "refs/tags/v1", "refs/tags/v1.1", "refs/notes/n"}
	f.Fuzz(func(t *testing.T, text string) {
		args := strings.Split(text, "\n")
		req, err := parseLsRefs(args)
		var re *RequestError
		if err != nil {
			if !errors.As(err, &re) {
				t.Fatalf("error %v is not for the client", err)
			}
			return
		}
		var asked []string
		for _, arg := range args {
			if p, ok := strings.CutPrefix(arg, "ref-prefix "); ok {
				asked = append(asked, p)
			}
		}
		if len(asked) > maxPrefixes {
			asked = nil
		}
		if !slices.Equal(req.prefixes, asked) {
			t.Fatalf("asked for %q, understood %q", asked, req.prefixes)
		}
		if req.peel != slices.Contains(args, "peel") || req.symrefs != slices.Contains(args, "symrefs") || req.unborn != slices.Contains(args, "unborn") {
			t.Fatalf("%q gave %+v", args, req)
		}
		// Prefixes that cover others are dropped, and that changes nothing.
		slow := func(name string) bool {
			if len(asked) == 0 {
				return true
			}
			return slices.ContainsFunc(asked, func(p string) bool { return strings.HasPrefix(name, p) })
		}
		fewer := disjoint(slices.Clone(req.prefixes))
		for _, name := range names {
			if matchesAny(name, fewer) != slow(name) {
				t.Fatalf("%q of %q: %v for %q", fewer, asked, matchesAny(name, fewer), name)
			}
		}
	})
}

// FuzzParseFilter holds a filter combined with another to be the stricter of both.
func FuzzParseFilter(f *testing.F) {
	for _, s := range []string{"blob:none", "blob:limit=1k", "tree:2", "combine:blob:none+tree%3A1", "sparse:oid=x", "blob:limit=18446744073709551615", "combine:tree:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		got, err := ParseFilter(spec)
		var re *RequestError
		if err != nil {
			if !errors.As(err, &re) || len(re.Text) > 2000 {
				t.Fatalf("%q: %v is not for the client", spec, err)
			}
			return
		}
		if got.blobLimit < 0 || got.treeDepth < 0 {
			t.Fatalf("%q: %+v", spec, got)
		}
		if strings.HasPrefix(spec, "combine:") {
			return // these do not nest
		}
		both, err := ParseFilter("combine:" + url.PathEscape(spec) + "+tree:3+blob:limit=100")
		want := Filter{blobLimit: min(got.blobLimit, 100), treeDepth: min(got.treeDepth, 3)}
		if err != nil || both != want {
			t.Fatalf("%q with tree:3 and blob:limit=100: %+v, %v; want %+v", spec, both, err, want)
		}
	})
}
