package table

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	parquetMagic   = "PAR1"
	encryptedMagic = "PARE"
	parquetTail    = 8 // length of the metadata, magic
	minParquet     = int64(len(parquetMagic)) + parquetTail
	maxParquetFoot = 256 << 20
	notParquetHint = "is it a Git LFS pointer, or was it changed by a line-ending filter?"
)

// CheckFooter refuses what cannot be a Parquet file by its first and last bytes:
// the magic at both ends and a metadata length that fits (Parquet format, "File
// format"). Nothing between is parsed, so it is safe for foreign bytes outside a
// sandbox. Encrypted files are refused: the gate could not verify them.
func CheckFooter(r io.ReaderAt, size int64) error {
	if size < minParquet {
		return fmt.Errorf("not a Parquet file: %d bytes (%s)", size, notParquetHint)
	}
	var head [len(parquetMagic)]byte
	if err := readAt(r, head[:], 0); err != nil {
		return err
	}
	var tail [parquetTail]byte
	if err := readAt(r, tail[:], size-parquetTail); err != nil {
		return err
	}
	if string(head[:]) == encryptedMagic || string(tail[4:]) == encryptedMagic {
		return errors.New("encrypted Parquet is not supported")
	}
	if string(head[:]) != parquetMagic {
		return fmt.Errorf("not a Parquet file: starts with %q (%s)", head, notParquetHint)
	}
	if string(tail[4:]) != parquetMagic {
		return fmt.Errorf("not a whole Parquet file: ends with %q (was it cut short?)", tail[4:])
	}
	foot := int64(binary.LittleEndian.Uint32(tail[:4]))
	if foot == 0 || foot > size-minParquet || foot > maxParquetFoot {
		return fmt.Errorf("malformed Parquet file: metadata of %d bytes in a file of %d", foot, size)
	}
	return nil
}

// readAt fills b; an io.EOF that comes with all the bytes is none.
func readAt(r io.ReaderAt, b []byte, off int64) error {
	if n, err := r.ReadAt(b, off); n < len(b) {
		return fmt.Errorf("read Parquet file: %w", err)
	}
	return nil
}
