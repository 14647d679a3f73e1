package uploadarchive

import (
	"archive/zip"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/klauspost/compress/flate"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
)

// zipWriter writes what git archive --format=zip writes, though not byte for
// byte: the compressor is another one, and sizes follow the data, so that
// nothing is held in memory.
type zipWriter struct {
	z    *zip.Writer
	when time.Time
	mode uint16 // of compression
}

func newZipWriter(w io.Writer, commit objects.OID, seconds int64, level int) (*zipWriter, error) {
	z := &zipWriter{z: zip.NewWriter(w), when: time.Unix(seconds, 0).UTC(), mode: zip.Deflate}
	if level == 0 {
		z.mode = zip.Store
	}
	z.z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, level) })
	if commit.IsZero() {
		return z, nil
	}
	return z, z.z.SetComment(commit.String())
}

func (z *zipWriter) add(it item) error {
	h := &zip.FileHeader{Name: it.path, Method: zip.Store, Modified: z.when}
	data := it.data
	switch it.mode {
	case gitobj.ModeTree, gitobj.ModeGitlink:
		h.SetMode(fs.ModeDir | 0o755)
	case gitobj.ModeSymlink:
		h.SetMode(fs.ModeSymlink | 0o777)
		data = strings.NewReader(it.link)
	case gitobj.ModeExec:
		h.SetMode(0o755)
		h.Method = z.mode
	default:
		h.SetMode(0o644)
		h.Method = z.mode
	}
	w, err := z.z.CreateHeader(h)
	if err != nil || data == nil {
		return err
	}
	_, err = io.Copy(w, data)
	return err
}

func (z *zipWriter) Close() error { return z.z.Close() }
