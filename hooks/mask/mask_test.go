package mask

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"testing"
)

const secret = "s3cr3t/Value+1é"

func TestFormsOfASecretAreHidden(t *testing.T) {
	m := New([]string{secret, "first line of it\nsecond line of it", "has\ttab and \"quotes\""})
	doc, err := json.Marshal(map[string]string{"k": "has\ttab and \"quotes\""})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		secret, "x" + secret + "y", secret + secret, hex.EncodeToString([]byte(secret)), fmt.Sprintf("%X", secret),
		url.QueryEscape(secret), url.PathEscape(secret), string(doc),
		"first line of it", "KeyError: 'second line of it'", `'first line of it\nsecond line of it'`,
		secret[:9], "Error: " + secret[:9] + "...", "tail of one: \n" + secret[6:] + " and more", secret[:10] + "…", "exec sh -c has?tab and \"quotes\"",
	} {
		got := m.Text(text)
		if !strings.Contains(got, Mark) {
			t.Errorf("%q became %q: nothing is hidden", text, got)
		}
		for _, piece := range []string{secret[:8], secret[len(secret)-8:], "line of it", `"quotes`} {
			if strings.Contains(got, piece) {
				t.Errorf("%q became %q, which holds %q", text, got, piece)
			}
		}
	}
	if got := m.Text(secret + secret + " and " + secret); got != "*** and ***" {
		t.Errorf("got %q", got)
	}
	for _, text := range []string{"", "nothing here", secret[:7], "s3cr3t/"} {
		if got := m.Text(text); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
	if got := (*Mask)(nil).Text(secret); got != secret {
		t.Errorf("without secrets %q became %q", secret, got)
	}
}

// Wherever a secret stands in what is encoded, its part of the base64 is hidden.
func TestBase64IsHiddenAtEveryOffset(t *testing.T) {
	m := New([]string{secret})
	for before := range 7 {
		for after := range 4 {
			text := strings.Repeat("q", before) + secret + strings.Repeat("q", after)
			for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding, base64.RawStdEncoding} {
				got := m.Text(enc.EncodeToString([]byte(text)))
				if !strings.Contains(got, Mark) || len(got) > len(Mark)+len(enc.EncodeToString(make([]byte, before+after)))+6 {
					t.Errorf("%d bytes before, %d after: %q", before, after, got)
				}
			}
		}
	}
}

// passed is what a Writer gives for a stream that comes in pieces.
func passed(m *Mask, stream []byte, limit int64, cuts ...int) (string, *Writer) {
	var out bytes.Buffer
	w := m.Writer(&out, limit)
	for _, n := range cuts {
		n = min(max(n, 0), len(stream))
		_, _ = w.Write(stream[:n])
		stream = stream[n:]
	}
	_, _ = w.Write(stream)
	w.Close()
	return out.String(), w
}

func TestSecretIsHiddenHoweverItIsWritten(t *testing.T) {
	m := New([]string{secret})
	stream := []byte("before " + secret + " between " + hex.EncodeToString([]byte(secret)) + secret + " after\n")
	const want = "before *** between *** after\n"
	for a := range len(stream) {
		for _, b := range []int{0, 1, 5} {
			if got, _ := passed(m, stream, 1<<20, a, b); got != want {
				t.Fatalf("cut at %d and %d later: %q", a, b, got)
			}
		}
	}
	bytewise := make([]int, len(stream))
	for i := range bytewise {
		bytewise[i] = 1
	}
	if got, _ := passed(m, stream, 1<<20, bytewise...); got != want {
		t.Errorf("byte by byte: %q", got)
	}
}

// Where a log is cut, no half of a secret is left.
func TestLimitCutsNoSecret(t *testing.T) {
	m := New([]string{secret})
	stream := []byte("ab" + secret + "cd" + secret)
	for limit := range len(stream) + 2 {
		got, w := passed(m, stream, int64(limit), 3, 7, 2)
		if strings.ContainsAny(got, "s3/V") {
			t.Errorf("limit %d: %q", limit, got)
		}
		if want := limit < len(stream); w.Cut() != want && !(limit > 4+len(secret)) {
			t.Errorf("limit %d: cut is %t", limit, w.Cut())
		}
	}
	if got, _ := passed(m, []byte("ab"+secret[:10]), 1<<20); got != "ab***" {
		t.Errorf("a secret that was broken off: %q", got)
	}
}

func TestLittleIsHeldBack(t *testing.T) {
	m := New([]string{secret})
	var out bytes.Buffer
	w := m.Writer(&out, 1<<20)
	r := rand.New(rand.NewPCG(1, 2))
	wrote := 0
	for range 2000 {
		p := []byte(secret[:r.IntN(len(secret)-1)])
		n, err := w.Write(p)
		if wrote += n; err != nil || wrote-out.Len() > m.Longest()-1 && !strings.Contains(out.String(), Mark) {
			t.Fatalf("%d bytes are held back, the longest form has %d", wrote-out.Len(), m.Longest())
		}
	}
	_, _ = w.Write([]byte("\n"))
	if bytes.HasSuffix(out.Bytes(), []byte("\n")) == false {
		t.Error("a line's end is held back")
	}
}

func FuzzMask(f *testing.F) {
	f.Add(secret, "other secret", []byte("a "+secret+" b"), 3, 4, 20)
	f.Add("aaaaaaaa", "aaaaaaaab", []byte("aaaaaaaaaaaaaaaaaaaaaaaaaab"), 8, 1, 10)
	f.Add("", "short", []byte("a short text"), 3, 4, 20)
	f.Add("abcabcab", "cabcabca", []byte("abcabcabcabcabcabc"), 5, 5, 9)
	f.Add("12345678", "5678abcdefgh", []byte("12345678abcdefgh12345678abc"), 10, 6, 12)
	f.Fuzz(func(t *testing.T, one, two string, stream []byte, a, b, limit int) {
		if len(one) > 200 || len(two) > 200 || len(stream) > 4000 {
			return
		}
		m := New([]string{one, two})
		whole, _ := passed(m, stream, 1<<20)
		pieces, _ := passed(m, stream, 1<<20, a, b, a, b)
		if whole != pieces {
			t.Fatalf("in one piece %q, in several %q", whole, pieces)
		}
		if limit >= 0 {
			short, _ := passed(m, stream, int64(limit), b, a)
			if len(short) > limit+len(Mark) || !strings.HasPrefix(whole+Mark, strings.TrimSuffix(short, Mark)) {
				t.Fatalf("with limit %d: %q, of %q", limit, short, whole)
			}
		}
		for _, text := range []string{whole, m.Text(string(stream))} {
			for _, p := range m.patterns {
				// A mark can only complete a secret that has asterisks itself.
				if bytes.Contains([]byte(text), p) && !bytes.Contains(p, []byte("*")) {
					t.Fatalf("%q holds %q", text, p)
				}
			}
		}
	})
}
