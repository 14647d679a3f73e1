package table_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/headgate/headgate/objects/table"
)

// FuzzCheckFooter holds the check to what the Parquet format says of a whole
// file: PAR1, something, the metadata, its length, PAR1.
func FuzzCheckFooter(f *testing.F) {
	f.Add([]byte("PAR1data-meta\x04\x00\x00\x00PAR1"))
	f.Add([]byte("PAR1PAR1"))
	f.Add([]byte("PAREdata-meta\x04\x00\x00\x00PARE"))
	f.Add([]byte("PAR1\xff\xff\xff\xffPAR1"))
	f.Add([]byte("version https://git-lfs.github.com/spec/v1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		err := table.CheckFooter(bytes.NewReader(data), int64(len(data)))
		good := false
		if body, ok := bytes.CutPrefix(data, []byte("PAR1")); ok {
			if body, ok := bytes.CutSuffix(body, []byte("PAR1")); ok && len(body) >= 4 {
				meta := binary.LittleEndian.Uint32(body[len(body)-4:])
				good = meta > 0 && int(meta) <= len(body)-4
			}
		}
		if good != (err == nil) {
			t.Errorf("%q: %v; by the format it is good: %v", data, err, good)
		}
	})
}
