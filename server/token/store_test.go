package token

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"pgregory.net/rapid"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func open(t *testing.T) (*Store, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokens.db")
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, path
}

func create(t *testing.T, s *Store, tok Token, now time.Time) (string, Token) {
	t.Helper()
	if tok.Key == nil {
		tok.Key = []byte("a key")
	}
	secret, made, err := s.Create(tok, now)
	if err != nil {
		t.Fatal(err)
	}
	return secret, made
}

func TestCreateVerifyRevoke(t *testing.T) {
	s, path := open(t)
	want := Token{Name: "ci", Who: "ada", Scope: Scope{ReadOnly: true, Lake: "flights"}, Expires: start.Add(time.Hour)}
	secret, made := create(t, s, want, start)
	if !regexp.MustCompile(`^hgt_[0-9A-Za-z]{49}$`).MatchString(secret) {
		t.Fatalf("token %q has another form than documented", secret)
	}
	got, err := s.Verify(secret, start)
	if err != nil || got.ID != made.ID || got.Name != "ci" || got.Who != "ada" || got.Scope != want.Scope || string(got.Key) != "a key" || !got.Created.Equal(start) {
		t.Fatalf("%v: %+v", err, got)
	}
	// It outlives the server, and is nowhere in the file.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), secret) || strings.Contains(string(data), secret[4:20]) {
		t.Fatal("the token itself is in the file")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, mode %v", err, info.Mode())
	}
	if s, err = Open(path); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Verify(secret, start); err != nil {
		t.Fatal(err)
	}
	if err := s.Revoke(made.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Verify(secret, start); !errors.Is(err, ErrUnknown) {
		t.Fatalf("a revoked token: %v", err)
	}
	if err := s.Revoke(made.ID); !errors.Is(err, ErrUnknown) {
		t.Fatalf("revoked twice: %v", err)
	}
}

func TestExpiry(t *testing.T) {
	s, _ := open(t)
	secret, _ := create(t, s, Token{Expires: start.Add(time.Hour)}, start)
	forever, _ := create(t, s, Token{}, start)
	if _, err := s.Verify(secret, start.Add(time.Hour-1)); err != nil {
		t.Errorf("before its end: %v", err)
	}
	if _, err := s.Verify(secret, start.Add(time.Hour)); !errors.Is(err, ErrExpired) {
		t.Errorf("at its end: %v", err)
	}
	if _, err := s.Verify(forever, start.AddDate(100, 0, 0)); err != nil {
		t.Errorf("one without an end: %v", err)
	}
	if _, _, err := s.Create(Token{Key: []byte("k"), Expires: start}, start); err == nil {
		t.Error("a token was made that has expired")
	}
	// Long after, the next one that is made sweeps it up.
	later := start.Add(time.Hour + keepExpired)
	create(t, s, Token{}, later)
	if _, err := s.Verify(secret, later); !errors.Is(err, ErrUnknown) {
		t.Errorf("long after its end: %v", err)
	}
	if list, err := s.List(); err != nil || len(list) != 2 {
		t.Errorf("%v, %d tokens", err, len(list))
	}
}

func TestLimitsAndNames(t *testing.T) {
	s, _ := open(t)
	for i := range MaxPerKey {
		create(t, s, Token{Name: fmt.Sprint("n", i)}, start)
	}
	var bad *Error
	if _, _, err := s.Create(Token{Key: []byte("a key")}, start); !errors.As(err, &bad) {
		t.Errorf("one too many: %v", err)
	}
	create(t, s, Token{Key: []byte("another key"), Name: "n1"}, start)
	for _, name := range []string{"n1", "a b", "-x", "\x1b[31m", strings.Repeat("x", 65)} {
		if _, _, err := s.Create(Token{Key: []byte("another key"), Name: name}, start); !errors.As(err, &bad) {
			t.Errorf("name %q: %v", name, err)
		}
	}
	if _, _, err := s.Create(Token{}, start); err == nil {
		t.Error("a token of no key")
	}
}

func TestUseIsNotedNowAndThen(t *testing.T) {
	s, _ := open(t)
	secret, _ := create(t, s, Token{}, start)
	writes := func() int64 { st := s.db.Stats().TxStats; return st.GetWrite() }
	use := func(now time.Time) time.Time {
		tok, err := s.Verify(secret, now)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.NoteUse(tok, now); err != nil {
			t.Fatal(err)
		}
		if tok, err = s.Verify(secret, now); err != nil {
			t.Fatal(err)
		}
		return tok.Used
	}
	if used := use(start); !used.Equal(start) {
		t.Errorf("first use: %v", used)
	}
	before := writes()
	for i := range 100 {
		if used := use(start.Add(time.Duration(i) * time.Second)); !used.Equal(start) {
			t.Fatalf("use soon after: %v", used)
		}
	}
	if writes() != before {
		t.Error("uses within the interval are written")
	}
	if used := use(start.Add(UsedEvery)); !used.Equal(start.Add(UsedEvery)) {
		t.Errorf("use later: %v", used)
	}
	// Many at once are one write, and none brings a revoked token back.
	tok, err := s.Verify(secret, start)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Revoke(tok.ID); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := s.NoteUse(tok, start.Add(time.Hour)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if _, err := s.Verify(secret, start); !errors.Is(err, ErrUnknown) {
		t.Errorf("a revoked token came back: %v", err)
	}
}

// What cannot be understood in full opens nothing.
func TestDamagedRecordsFailClosed(t *testing.T) {
	s, _ := open(t)
	secret, made := create(t, s, Token{Scope: Scope{ReadOnly: true}}, start)
	put := func(edit func(string) string) {
		t.Helper()
		err := s.db.Update(func(tx *bbolt.Tx) error {
			b := tx.Bucket(bucket)
			return b.Put([]byte(made.ID), []byte(edit(string(b.Get([]byte(made.ID))))))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	var original string
	put(func(doc string) string { original = doc; return doc })
	for name, edit := range map[string]func(string) string{
		"a limit of another version": func(doc string) string { return strings.Replace(doc, `"id"`, `"from":"10.0.0.0/8","id"`, 1) },
		"another digest":             func(doc string) string { return strings.Replace(doc, `"sha256":"`, `"sha256":"00`, 1) },
		"no digest":                  func(string) string { return fmt.Sprintf(`{"id":%q,"key":"eA=="}`, made.ID) },
		"no key":                     func(doc string) string { return regexp.MustCompile(`"key":"[^"]*"`).ReplaceAllString(doc, `"key":""`) },
		"another's":                  func(doc string) string { return strings.Replace(doc, made.ID, strings.Repeat("0", 16), 1) },
		"cut short":                  func(doc string) string { return doc[:len(doc)/2] },
	} {
		put(func(string) string { return edit(original) })
		if tok, err := s.Verify(secret, start); err == nil {
			t.Errorf("%s: opens as %+v", name, tok)
		}
	}
	put(func(string) string { return original })
	if _, err := s.Verify(secret, start); err != nil {
		t.Errorf("as it was: %v", err)
	}
}

func TestOnlyTheWholeTokenOpens(t *testing.T) {
	s, _ := open(t)
	secret, _ := create(t, s, Token{}, start)
	rapid.Check(t, func(t *rapid.T) {
		b := []byte(secret)
		for range rapid.IntRange(1, 3).Draw(t, "changes") {
			i := rapid.IntRange(0, len(b)-1).Draw(t, "at")
			b[i] = rapid.Byte().Draw(t, "to")
		}
		if string(b) != secret {
			if _, err := s.Verify(string(b), start); !errors.Is(err, ErrUnknown) {
				t.Fatalf("%q opens: %v", b, err)
			}
		}
	})
	for _, other := range []string{"", Prefix, secret[:len(secret)-1], secret + "0", strings.ToLower(secret), " " + secret, newSecret()} {
		if _, err := s.Verify(other, start); !errors.Is(err, ErrUnknown) {
			t.Errorf("%q: %v", other, err)
		}
	}
}

// One digit that is typed wrong is always found without asking the store.
func TestChecksum(t *testing.T) {
	for range 20 {
		secret := newSecret()
		if !WellFormed(secret) {
			t.Fatalf("%q is not well-formed", secret)
		}
		for i := len(Prefix); i < len(secret); i++ {
			b := []byte(secret)
			b[i] = base62[(strings.IndexByte(base62, b[i])+1)%len(base62)]
			if WellFormed(string(b)) {
				t.Fatalf("%q passes for %q", b, secret)
			}
		}
	}
}

func FuzzWellFormed(f *testing.F) {
	f.Add(newSecret())
	f.Add("hgt_")
	f.Fuzz(func(t *testing.T, text string) {
		if WellFormed(text) && !regexp.MustCompile(`^hgt_[0-9A-Za-z]{49}$`).MatchString(text) {
			t.Fatalf("%q passes", text)
		}
	})
}
