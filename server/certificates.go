package server

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Certificates is the certificate of the HTTPS side, read again when its files
// change, as those of Let's Encrypt do. It is safe for concurrent use.
type Certificates struct {
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex
	cert    *tls.Certificate
	state   [2]fileState
	checked time.Time
}

// checkEvery bounds how often the files are looked at.
const checkEvery = time.Second

// LoadCertificates reads a certificate chain and its key, both PEM. A key that
// everybody may read is refused.
func LoadCertificates(certFile, keyFile string, log *slog.Logger) (*Certificates, error) {
	c := &Certificates{certFile: certFile, keyFile: keyFile, log: log}
	var err error
	if c.state, err = c.look(); err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	if c.cert, err = c.load(); err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	c.checked = time.Now()
	return c, nil
}

// Get returns the certificate as the files are now, for tls.Config. Files that are
// no good, as they are half-way through a renewal, leave the one that was.
func (c *Certificates) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.checked) >= checkEvery {
		c.checked = now
		c.refresh()
	}
	return c.cert, nil
}

func (c *Certificates) refresh() {
	// The state is that from before the files are read: a change meanwhile is seen
	// next time.
	state, err := c.look()
	if err == nil && state == c.state {
		return
	}
	var cert *tls.Certificate
	if err == nil {
		c.state = state
		cert, err = c.load()
	}
	if err != nil {
		c.log.Error("cannot read the certificate; the one before is used on", "file", c.certFile, "err", err)
		return
	}
	c.cert = cert
	c.log.Info("certificate read again", "file", c.certFile)
}

func (c *Certificates) look() (state [2]fileState, err error) {
	for i, path := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(path)
		if err != nil {
			return state, err
		}
		state[i] = stateOf(info)
	}
	return state, nil
}

func (c *Certificates) load() (*tls.Certificate, error) {
	info, err := os.Stat(c.keyFile)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("key %q can be read by everybody (mode %04o); run: chmod o= %s", c.keyFile, info.Mode().Perm(), c.keyFile)
	}
	cert, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return nil, err
	}
	if cert.Leaf != nil && time.Now().After(cert.Leaf.NotAfter) {
		return nil, errors.New("it has expired on " + cert.Leaf.NotAfter.UTC().Format(time.DateOnly))
	}
	return &cert, nil
}
