package lake

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

func testKey(t *testing.T) *SecretsKey {
	t.Helper()
	k, err := LoadSecretsKey(filepath.Join(t.TempDir(), "secrets_key"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func openSecrets(t *testing.T, path string, n Name, k *SecretsKey) *Secrets {
	t.Helper()
	s, err := OpenSecrets(path, n, k)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestSecretsAreKeptAndEncrypted(t *testing.T) {
	const value = "correct horse battery staple"
	keyFile := filepath.Join(t.TempDir(), "secrets_key")
	k, err := LoadSecretsKey(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(keyFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v; want mode 0600", info.Mode(), err)
	}
	path := filepath.Join(t.TempDir(), "secrets.db")
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := openSecrets(t, path, "flights", k)
	if _, err := s.Get("API_KEY"); !errors.Is(err, ErrNoSecret) {
		t.Errorf("a secret that is not set: %v, want ErrNoSecret", err)
	}
	for _, v := range []string{"another value", value} {
		if err := s.Set("API_KEY", v, "ada", now); err != nil {
			t.Fatal(err)
		}
	}
	first, err := s.Get("API_KEY")
	if err != nil || first.Value != value {
		t.Fatalf("got %q, %v", first.Value, err)
	}
	s.Close()
	if data, err := os.ReadFile(path); err != nil || bytes.Contains(data, []byte(value)) || bytes.Contains(data, []byte("another value")) {
		t.Errorf("the file holds the value in the clear, or cannot be read: %v", err)
	}

	// It survives a restart with the same key file, and its digest with it.
	if k, err = LoadSecretsKey(keyFile); err != nil {
		t.Fatal(err)
	}
	s = openSecrets(t, path, "flights", k)
	again, err := s.Get("API_KEY")
	if err != nil || again != first {
		t.Errorf("after a restart: %+v, %v", again, err)
	}
	if list, err := s.List(); err != nil || !reflect.DeepEqual(list, []SecretInfo{{"API_KEY", "ada", now}}) {
		t.Errorf("list: %+v, %v", list, err)
	}
	if err := s.Remove("API_KEY"); err != nil {
		t.Error(err)
	}
	if err := s.Remove("API_KEY"); !errors.Is(err, ErrNoSecret) {
		t.Errorf("removed twice: %v, want ErrNoSecret", err)
	}
}

// A ciphertext opens where it was sealed and nowhere else: whoever can write the
// file cannot give a function the secret of another.
func TestSecretsAreBoundToTheirPlace(t *testing.T) {
	k := testKey(t)
	path := filepath.Join(t.TempDir(), "secrets.db")
	s := openSecrets(t, path, "flights", k)
	now := time.Now()
	for _, name := range []string{"A", "B"} {
		if err := s.Set(name, "the value of "+name, "ada", now); err != nil {
			t.Fatal(err)
		}
	}
	var box []byte
	err := s.db.Update(func(tx *bbolt.Tx) error {
		box = bytes.Clone(tx.Bucket(secretsBucket).Get([]byte("A")))
		return tx.Bucket(secretsBucket).Put([]byte("B"), box)
	})
	if err != nil {
		t.Fatal(err)
	}
	if v, err := s.Get("B"); err == nil || errors.Is(err, ErrNoSecret) {
		t.Errorf("A's ciphertext opens as B: %q", v.Value)
	}
	err = s.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(secretsBucket).Put([]byte("A"), bytes.Replace(box, []byte(`"version":1`), []byte(`"version":2`), 1))
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get("A"); err == nil {
		t.Error("it opens as another version")
	}
	s.Close()
	other := openSecrets(t, path, "other", k)
	if _, err := other.Get("A"); err == nil {
		t.Error("it opens in another lake")
	}
	other.Close()
	if _, err := openSecrets(t, path, "flights", testKey(t)).Get("A"); err == nil || !strings.Contains(err.Error(), "set it again") {
		t.Errorf("another key: %v, want an error that says what to do", err)
	}
}

func TestSecretsThatCannotBeSet(t *testing.T) {
	s := openSecrets(t, filepath.Join(t.TempDir(), "secrets.db"), "flights", testKey(t))
	for _, c := range [][2]string{
		{"API_KEY", "short"}, {"API_KEY", strings.Repeat("x", MaxSecret+1)}, {"API_KEY", "binary \xff value"}, {"API_KEY", "zero \x00 value"},
		{"", "long enough"}, {"a b", "long enough"}, {"1A", "long enough"}, {"a/b", "long enough"}, {strings.Repeat("A", 65), "long enough"},
	} {
		var bad *SecretError
		if err := s.Set(c[0], c[1], "ada", time.Now()); !errors.As(err, &bad) {
			t.Errorf("set %q to %q: %v, want a SecretError", c[0], c[1], err)
		} else if strings.Contains(err.Error(), c[1]) {
			t.Errorf("the error repeats the value: %v", err)
		}
	}
	if list, err := s.List(); err != nil || len(list) != 0 {
		t.Errorf("list: %v, %v", list, err)
	}
}

func TestKeysDigestsDiffer(t *testing.T) {
	a, b := testKey(t), testKey(t)
	if a.digest("l", "n", "value") == b.digest("l", "n", "value") {
		t.Error("two keys give one digest: it could be guessed without the key")
	}
	if a.digest("l", "n", "value") == a.digest("l", "nv", "alue") {
		t.Error("the parts of a digest are not told apart")
	}
}

func TestSecretsKeyFileIsForItsOwnerOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secrets_key")
	if _, err := LoadSecretsKey(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadSecretsKey(path); err == nil || !strings.Contains(err.Error(), "chmod") {
		t.Errorf("a key that others can read: %v", err)
	}
	if err := errors.Join(os.WriteFile(path, []byte("short\n"), 0o600), os.Chmod(path, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadSecretsKey(path); err == nil {
		t.Error("a file that holds no key was taken for one")
	}
}
