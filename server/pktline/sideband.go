package pktline

import (
	"io"
	"sync"
	"time"
)

// Band is the number of a side band.
type Band byte

// The three bands of the protocol.
const (
	BandData     Band = 1 // the pack, or the report
	BandProgress Band = 2 // shown to the user, each line after "remote: "
	BandError    Band = 3 // shown to the user; the client stops with a failure
)

// The largest payloads of one side-band packet, without the band's own byte.
const (
	MaxBand64k = MaxData - 1 // capability side-band-64k
	MaxBand    = 995         // capability side-band: packets of at most 1,000 bytes
)

// Mux writes several bands to one stream. It is safe for concurrent use: a
// packet is never torn, whoever else writes.
type Mux struct {
	mu   sync.Mutex
	w    io.Writer
	max  int
	buf  []byte
	err  error
	last time.Time // of the last packet
}

// NewMux returns a Mux on w with packets of at most limit payload bytes:
// MaxBand64k or MaxBand.
func NewMux(w io.Writer, limit int) *Mux {
	return &Mux{w: w, max: limit, last: time.Now()}
}

// Write sends p on a band, in as many packets as it takes. After the first
// error it writes nothing and returns that error.
func (m *Mux) Write(band Band, p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for len(p) > 0 {
		part := p[:min(len(p), m.max)]
		if err := m.packet(band, part); err != nil {
			return n, err
		}
		n += len(part)
		p = p[len(part):]
	}
	return n, nil
}

// Band returns a writer on one band.
func (m *Mux) Band(b Band) io.Writer { return bandWriter{m, b} }

// Flush ends the side-band stream with a flush packet.
func (m *Mux) Flush() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err == nil {
		_, m.err = io.WriteString(m.w, "0000")
	}
	return m.err
}

// KeepAlive sends an empty packet on band whenever nothing was sent for the
// interval, so that neither the client nor a middlebox takes a long silence for
// a dead connection. The returned function stops it and waits until it has stopped;
// it may be called more than once.
func (m *Mux) KeepAlive(band Band, interval time.Duration) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTicker(max(interval/2, time.Millisecond))
		defer t.Stop()
		for {
			select {
			case <-quit:
				return
			case now := <-t.C:
				m.mu.Lock()
				var err error
				if now.Sub(m.last) >= interval {
					err = m.packet(band, nil)
				}
				m.mu.Unlock()
				if err != nil {
					return
				}
			}
		}
	}()
	var once sync.Once
	return func() {
		once.Do(func() { close(quit) })
		<-done
	}
}

func (m *Mux) packet(band Band, p []byte) error {
	if m.err != nil {
		return m.err
	}
	m.buf = appendHeader(m.buf[:0], headerLen+1+len(p))
	m.buf = append(m.buf, byte(band))
	m.buf = append(m.buf, p...)
	_, m.err = m.w.Write(m.buf)
	m.last = time.Now()
	return m.err
}

type bandWriter struct {
	m *Mux
	b Band
}

func (w bandWriter) Write(p []byte) (int, error) { return w.m.Write(w.b, p) }
