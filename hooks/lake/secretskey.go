package lake

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"
)

// SecretsKey encrypts the secrets of all lakes of a server (XChaCha20-Poly1305),
// and digests them for cache keys (HMAC-SHA256, with a key of its own).
type SecretsKey struct {
	aead cipher.AEAD
	mac  []byte
}

// keyBytes is the size of the key in the file, and of those that are made of it.
const keyBytes = 32

// LoadSecretsKey reads the key, or makes one (mode 0600) if there is none. Without
// the file, secrets that it encrypted are lost.
func LoadSecretsKey(path string) (*SecretsKey, error) {
	if err := createSecretsKey(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("create secrets key: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("secrets key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("secrets key %q can be read by others (mode %04o); run: chmod 600 %s", path, info.Mode().Perm(), path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("secrets key: %w", err)
	}
	master, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(master) != keyBytes {
		return nil, fmt.Errorf("secrets key %q: want %d bytes as hexadecimal digits", path, keyBytes)
	}
	return newSecretsKey(master)
}

func newSecretsKey(master []byte) (*SecretsKey, error) {
	seal, err := hkdf.Key(sha256.New, master, nil, "headgate secrets: encrypt", keyBytes)
	if err != nil {
		return nil, err
	}
	mac, err := hkdf.Key(sha256.New, master, nil, "headgate secrets: digest", keyBytes)
	if err != nil {
		return nil, err
	}
	aead, err := chacha20poly1305.NewX(seal)
	if err != nil {
		return nil, err
	}
	return &SecretsKey{aead: aead, mac: mac}, nil
}

// createSecretsKey makes the key file, whole and durable, or fails with
// fs.ErrExist if there is one.
func createSecretsKey(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return fs.ErrExist
	}
	master := make([]byte, keyBytes)
	if _, err := rand.Read(master); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".secretskey-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = fmt.Fprintln(tmp, hex.EncodeToString(master))
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	// A link, unlike a rename, does not replace what is there.
	if err := os.Link(tmp.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// seal encrypts a value, bound to what is said of it.
func (k *SecretsKey) seal(bound []byte, value string) ([]byte, error) {
	nonce := make([]byte, k.aead.NonceSize(), k.aead.NonceSize()+len(value)+k.aead.Overhead())
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	return k.aead.Seal(nonce, nonce, []byte(value), bound), nil
}

func (k *SecretsKey) open(bound, box []byte) (string, error) {
	if len(box) < k.aead.NonceSize() {
		return "", errors.New("its ciphertext is cut short")
	}
	nonce, text := box[:k.aead.NonceSize()], box[k.aead.NonceSize():]
	value, err := k.aead.Open(nil, nonce, text, bound)
	if err != nil {
		return "", errors.New("it does not open with this server's key: the key or the file is another one than when it was set; set it again")
	}
	return string(value), nil
}

// digest names a value. The parts are told apart by their lengths.
func (k *SecretsKey) digest(parts ...string) string {
	h := hmac.New(sha256.New, k.mac)
	for _, p := range parts {
		fmt.Fprintf(h, "%d\n%s", len(p), p) // a hash takes everything
	}
	return hex.EncodeToString(h.Sum(nil))
}
