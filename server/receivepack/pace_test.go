package receivepack

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// dripping sends a byte each time the interval has passed.
type dripping struct {
	interval time.Duration
	left     int
}

func (d *dripping) Read(p []byte) (int, error) {
	if d.left == 0 {
		return 0, io.EOF
	}
	time.Sleep(d.interval)
	d.left--
	p[0] = 'x'
	return 1, nil
}

func TestPace(t *testing.T) {
	pace := Pace{Stall: 10 * time.Second, Rate: 100}
	read := func(r io.Reader, pace Pace) (n int64, took time.Duration, err error) {
		began := time.Now()
		p := newPacedReader(r, pace)
		defer p.stop()
		n, err = io.Copy(io.Discard, p)
		return n, time.Since(began), err
	}
	synctest.Test(t, func(t *testing.T) {
		var slow *SlowError
		if n, took, err := read(&dripping{time.Second, 1000}, pace); !errors.As(err, &slow) || took > 12*time.Second || !strings.Contains(slow.Text, "less than 100 bytes a second") {
			t.Errorf("a byte a second: %d bytes in %s, %v", n, took, err)
		}
		if n, took, err := read(&dripping{11 * time.Second, 3}, pace); !errors.As(err, &slow) || n != 1 || took != 21*time.Second || !strings.Contains(slow.Text, "nothing came for 10s") {
			t.Errorf("a stall: %d bytes in %s, %v", n, took, err)
		}
		if n, took, err := read(&dripping{5 * time.Millisecond, 10_000}, pace); err != nil || n != 10_000 || took != 50*time.Second {
			t.Errorf("200 bytes a second: %d bytes in %s, %v", n, took, err)
		}
		if n, _, err := read(&dripping{time.Second, 100}, Pace{Stall: 10 * time.Second, Rate: -1}); err != nil || n != 100 {
			t.Errorf("any rate: %d bytes, %v", n, err)
		}
		// The time before the first byte is the client's, of each part.
		r, w := io.Pipe()
		p := newPacedReader(r, pace)
		go func() {
			time.Sleep(time.Hour)
			_, _ = w.Write([]byte("commands"))
			time.Sleep(time.Hour)
			_, _ = w.Write([]byte("pack"))
			w.Close()
		}()
		b := make([]byte, 8)
		if _, err := io.ReadFull(p, b); err != nil {
			t.Fatal(err)
		}
		p.rest()
		if rest, err := io.ReadAll(p); string(rest) != "pack" || err != nil {
			t.Errorf("after a rest: %q, %v", rest, err)
		}
		// A server that is slow itself holds nothing against the client.
		p = newPacedReader(bytes.NewReader(make([]byte, 20<<20)), pace)
		for {
			_, err := io.CopyN(io.Discard, p, 1<<20)
			time.Sleep(time.Minute)
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		p.stop()
		synctest.Wait()
	})
}

func TestPaceGivesTheTransportsError(t *testing.T) {
	p := newPacedReader(io.MultiReader(strings.NewReader("abc"), errorReader{}), Pace{})
	defer p.stop()
	if got, err := io.ReadAll(p); string(got) != "abc" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%q, %v", got, err)
	}
}

type errorReader struct{}

func (errorReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
