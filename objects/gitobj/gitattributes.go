package gitobj

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/go-git/go-git/v5/plumbing"
)

// Git's own bounds of a .gitattributes file (attr.h): what is longer, git
// ignores, and crashed on before CVE-2022-41903.
const (
	MaxGitattributes     = 100 << 20 // bytes of the file
	maxGitattributesLine = 2048      // bytes, the line's end included
)

// CheckGitattributes refuses a .gitattributes file of the given size that is
// over git's bounds. It holds no more than a line in memory. The error is a
// *CheckError if the file is at fault, else r failed.
func CheckGitattributes(size int64, r io.Reader) error {
	if size > MaxGitattributes {
		return &CheckError{plumbing.BlobObject, "gitattributesLarge", fmt.Sprintf(".gitattributes has %d bytes", size)}
	}
	buf := make([]byte, 32<<10)
	line, length := 1, 0
	for {
		n, err := r.Read(buf)
		data := buf[:n]
		// A zero byte ends the file, as far as git reads it.
		nul := bytes.IndexByte(data, 0)
		if nul >= 0 {
			data = data[:nul]
		}
		for len(data) > 0 {
			i := bytes.IndexByte(data, '\n')
			if i < 0 {
				i = len(data)
			}
			if length += i; length >= maxGitattributesLine {
				return &CheckError{plumbing.BlobObject, "gitattributesLineLength", fmt.Sprintf(".gitattributes line %d is longer than %d bytes", line, maxGitattributesLine-1)}
			}
			if i < len(data) {
				line, length = line+1, 0
				i++
			}
			data = data[i:]
		}
		switch {
		case nul >= 0 || errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}
