package pktline_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"

	"github.com/headgate/headgate/server/pktline"
)

func TestReader(t *testing.T) {
	long := strings.Repeat("x", pktline.MaxData)
	tests := []struct {
		name, in string
		kind     pktline.Kind
		line     string
		err      error
	}{
		{"data with newline", "0006a\n", pktline.Data, "a", nil},
		{"data without newline", "0005a", pktline.Data, "a", nil},
		{"only one newline is dropped", "0007a\n\n", pktline.Data, "a\n", nil},
		{"empty", "0004", pktline.Data, "", nil},
		{"upper-case length", "000Babcdefg", pktline.Data, "abcdefg", nil},
		{"flush", "0000", pktline.Flush, "", nil},
		{"delimiter", "0001", pktline.Delim, "", nil},
		{"response end", "0002", pktline.ResponseEnd, "", nil},
		{"longest", "fff0" + long, pktline.Data, long, nil},
		{"length 3", "0003", 0, "", pktline.ErrLength},
		{"too long", "fff1" + long + "x", 0, "", pktline.ErrLength},
		{"not hex", "00g0", 0, "", pktline.ErrLength},
		{"minus", "-001", 0, "", pktline.ErrLength},
		{"end", "", 0, "", io.EOF},
		{"end in length", "000", 0, "", io.ErrUnexpectedEOF},
		{"end in payload", "0006a", 0, "", io.ErrUnexpectedEOF},
		{"end after length", "0006", 0, "", io.ErrUnexpectedEOF},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := pktline.NewReader(iotest.OneByteReader(strings.NewReader(tt.in)))
			kind, line, err := r.Line()
			if !errors.Is(err, tt.err) || err == nil && (kind != tt.kind || line != tt.line) {
				t.Fatalf("got %v %.20q %v, want %v %.20q %v", kind, line, err, tt.kind, tt.line, tt.err)
			}
		})
	}
}

// A pack follows the last packet: the reader must leave all of it.
func TestReaderTakesNoMore(t *testing.T) {
	in := strings.NewReader("0005a0000PACK")
	r := pktline.NewReader(in)
	for range 2 {
		if _, _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if rest, _ := io.ReadAll(in); string(rest) != "PACK" {
		t.Fatalf("left %q, want PACK", rest)
	}
}

func TestWriterKeepsFirstError(t *testing.T) {
	w := pktline.NewWriter(iotest.TruncateWriter(io.Discard, 0))
	if err := w.Packet(make([]byte, pktline.MaxData+1)); !errors.Is(err, pktline.ErrLength) {
		t.Fatalf("oversized packet: %v", err)
	}
	if err := w.Line("fine"); !errors.Is(err, pktline.ErrLength) {
		t.Fatalf("later call returned %v, want the first error", err)
	}
}

func TestWrittenIsRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		payloads := rapid.SliceOf(rapid.SliceOfN(rapid.Byte(), 0, 300)).Draw(t, "payloads")
		var buf bytes.Buffer
		w := pktline.NewWriter(&buf)
		for _, p := range payloads {
			if err := w.Packet(p); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(w.Delim(), w.Flush()); err != nil {
			t.Fatal(err)
		}
		r := pktline.NewReader(&buf)
		for _, want := range payloads {
			k, got, err := r.Next()
			if err != nil || k != pktline.Data || !bytes.Equal(got, want) {
				t.Fatalf("got %v %q %v, want %q", k, got, err, want)
			}
		}
		for _, want := range []pktline.Kind{pktline.Delim, pktline.Flush} {
			if k, _, err := r.Next(); err != nil || k != want {
				t.Fatalf("got %v %v, want %v", k, err, want)
			}
		}
	})
}

// demux reads a side-band stream up to its flush, and returns the bands and the
// largest packet.
func demux(t *testing.T, r io.Reader) (map[pktline.Band][]byte, int) {
	t.Helper()
	bands, largest := map[pktline.Band][]byte{}, 0
	for pr := pktline.NewReader(r); ; {
		k, p, err := pr.Next()
		if err != nil {
			t.Fatalf("torn stream: %v", err)
		}
		if k == pktline.Flush {
			return bands, largest
		}
		largest = max(largest, len(p)+4)
		bands[pktline.Band(p[0])] = append(bands[pktline.Band(p[0])], p[1:]...)
	}
}

func TestMuxInterleaves(t *testing.T) {
	for _, limit := range []int{pktline.MaxBand, pktline.MaxBand64k} {
		var buf bytes.Buffer
		m := pktline.NewMux(&buf, limit)
		data, progress := bytes.Repeat([]byte("d"), 300_000), bytes.Repeat([]byte("p"), 5_000)
		var wg sync.WaitGroup
		for band, p := range map[pktline.Band][]byte{pktline.BandData: data, pktline.BandProgress: progress} {
			wg.Go(func() {
				if n, err := m.Band(band).Write(p); n != len(p) || err != nil {
					t.Errorf("band %d: %d, %v", band, n, err)
				}
			})
		}
		wg.Wait()
		if err := m.Flush(); err != nil {
			t.Fatal(err)
		}
		bands, largest := demux(t, &buf)
		if !bytes.Equal(bands[1], data) || !bytes.Equal(bands[2], progress) {
			t.Fatalf("limit %d: bands were mixed up", limit)
		}
		if largest != limit+5 {
			t.Fatalf("largest packet %d, want %d", largest, limit+5)
		}
	}
}

func TestKeepAlive(t *testing.T) {
	pr, pw := io.Pipe()
	m := pktline.NewMux(pw, pktline.MaxBand64k)
	stop := m.KeepAlive(pktline.BandProgress, time.Millisecond)
	r := pktline.NewReader(pr)
	for range 3 { // arrive without anybody writing
		if k, p, err := r.Next(); err != nil || k != pktline.Data || string(p) != "\x02" {
			t.Fatalf("got %v %q %v, want an empty packet on band 2", k, p, err)
		}
	}
	pr.Close() // the client goes: stop must not wait for it
	stop()
	stop()
}

func FuzzReader(f *testing.F) {
	for _, s := range []string{"0000", "0001", "0006a\n0000", "0003", "fff0x", "zzzz", "0004", "001e# service=git-upload-pack\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		src := bytes.NewReader(in)
		r := pktline.NewReader(src)
		var again bytes.Buffer
		w := pktline.NewWriter(&again)
		end := 0
		for {
			k, p, err := r.Next()
			if err != nil {
				break
			}
			switch k {
			case pktline.Data:
				_ = w.Packet(p)
			case pktline.Flush:
				_ = w.Flush()
			case pktline.Delim:
				_ = w.Delim()
			default:
				again.WriteString("0002")
			}
			end = len(in) - src.Len()
		}
		// What was read is what was sent, but for the case of the lengths' digits.
		if !strings.EqualFold(again.String(), string(in[:end])) {
			t.Fatalf("read %q of %q", again.Bytes(), in)
		}
	})
}
