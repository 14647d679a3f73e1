package pktline_test

import (
	"bytes"
	"testing"

	"github.com/headgate/headgate/server/pktline"
)

// FuzzMux writes the input in pieces on three bands; each band must come out as
// it went in, in packets no longer than the client can take.
func FuzzMux(f *testing.F) {
	f.Add([]byte("pack data"), uint8(1), false)
	f.Add(bytes.Repeat([]byte("x"), 3000), uint8(7), true)
	f.Add([]byte{}, uint8(0), true)
	f.Fuzz(func(t *testing.T, in []byte, step uint8, narrow bool) {
		limit := pktline.MaxBand64k
		if narrow {
			limit = pktline.MaxBand
		}
		var out bytes.Buffer
		m := pktline.NewMux(&out, limit)
		want := map[pktline.Band][]byte{}
		for i := 0; len(in) > 0; i++ {
			n := min(len(in), 1+int(step)*(i+1)*17)
			band := pktline.Band(1 + (int(in[0])+i)%3)
			if k, err := m.Write(band, in[:n]); k != n || err != nil {
				t.Fatalf("wrote %d of %d, %v", k, n, err)
			}
			want[band] = append(want[band], in[:n]...)
			in = in[n:]
		}
		if err := m.Flush(); err != nil {
			t.Fatal(err)
		}
		got, largest := demux(t, &out)
		if largest > limit+5 {
			t.Errorf("a packet of %d bytes, the limit is %d", largest, limit+5)
		}
		for band := pktline.BandData; band <= pktline.BandError; band++ {
			if !bytes.Equal(got[band], want[band]) {
				t.Errorf("band %d: %q, want %q", band, got[band], want[band])
			}
		}
		if out.Len() > 0 {
			t.Errorf("%d bytes after the flush", out.Len())
		}
	})
}
