package gitobj

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"

	"github.com/go-git/go-git/v5/plumbing"
)

// Mode is the mode of a tree entry.
type Mode uint32

// The modes that git writes. No other one is taken, the group-writable 100664
// of git's first months neither.
const (
	ModeTree    Mode = 0o040000
	ModeFile    Mode = 0o100644
	ModeExec    Mode = 0o100755
	ModeSymlink Mode = 0o120000
	ModeGitlink Mode = 0o160000
)

// String returns the mode as git prints it, six octal digits.
func (m Mode) String() string { return fmt.Sprintf("%06o", uint32(m)) }

// Valid tells whether the mode is one that git writes.
func (m Mode) Valid() bool {
	switch m {
	case ModeTree, ModeFile, ModeExec, ModeSymlink, ModeGitlink:
		return true
	}
	return false
}

// IsBlob tells whether the entry's object is a blob: a file or a symbolic link.
func (m Mode) IsBlob() bool { return m == ModeFile || m == ModeExec || m == ModeSymlink }

// Entry is one line of a tree.
type Entry struct {
	Name string
	Mode Mode
	OID  OID
}

// ParseTree returns a tree's entries in their order. The error is a *CheckError.
func ParseTree(data []byte) ([]Entry, error) {
	// A short entry is "40000 x\0" and an oid; the estimate saves most growth.
	entries := make([]Entry, 0, len(data)/40+1)
	var seen treeOrder
	for len(data) > 0 {
		sp := bytes.IndexByte(data[:min(len(data), 8)], ' ')
		if sp <= 0 {
			return nil, treeError("badTree", "entry %d has no mode", len(entries))
		}
		if data[0] == '0' {
			return nil, treeError("zeroPaddedFilemode", "mode %q", data[:sp])
		}
		mode, err := strconv.ParseUint(string(data[:sp]), 8, 32)
		if err != nil {
			return nil, treeError("badTree", "mode %q", data[:sp])
		}
		data = data[sp+1:]
		nul := bytes.IndexByte(data, 0)
		if nul < 0 || len(data)-nul-1 < len(OID{}) {
			return nil, treeError("badTree", "entry %d is cut off", len(entries))
		}
		e := Entry{Name: string(data[:nul]), Mode: Mode(mode)}
		copy(e.OID[:], data[nul+1:])
		data = data[nul+1+len(e.OID):]
		if err := checkEntry(e); err != nil {
			return nil, err
		}
		if err := seen.add(e); err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// EncodeTree sorts the entries as git does and returns the tree's content. It
// refuses what ParseTree refuses.
func EncodeTree(entries []Entry) ([]byte, error) {
	sorted := slices.Clone(entries)
	slices.SortFunc(sorted, compareEntries)
	size := 0
	for _, e := range sorted {
		size += len(e.Name) + 28
	}
	data := make([]byte, 0, size)
	var seen treeOrder
	for _, e := range sorted {
		if err := checkEntry(e); err != nil {
			return nil, err
		}
		if err := seen.add(e); err != nil {
			return nil, err
		}
		data = strconv.AppendUint(data, uint64(e.Mode), 8)
		data = append(data, ' ')
		data = append(data, e.Name...)
		data = append(data, 0)
		data = append(data, e.OID[:]...)
	}
	return data, nil
}

func checkEntry(e Entry) error {
	if id := badName(e.Name); id != "" {
		return treeError(id, "entry %q", clip(e.Name))
	}
	if !e.Mode.Valid() {
		return treeError("badFilemode", "entry %q has mode %s", clip(e.Name), e.Mode)
	}
	if e.OID.IsZero() {
		return treeError("nullSha1", "entry %q has the null oid", clip(e.Name))
	}
	// Git acts on these files wherever it meets the name. A .gitattributes that is
	// a link is taken, as git takes it: it does not follow the link.
	switch modules := IsDotGitmodules(e.Name); {
	case modules && e.Mode == ModeSymlink:
		return treeError("gitmodulesSymlink", "entry %q is a symbolic link", clip(e.Name))
	case modules && !e.Mode.IsBlob():
		return treeError("gitmodulesBlob", "entry %q is not a file", clip(e.Name))
	case !e.Mode.IsBlob() && IsDotGitattributes(e.Name):
		return treeError("gitattributesBlob", "entry %q is not a file", clip(e.Name))
	}
	return nil
}

// treeOrder watches that entries are sorted and that no name occurs twice. A
// file "a" and a directory "a" sort apart ("a" and "a/"), with such names as
// "a.b" between them, so neighbours alone do not show every duplicate: files
// that are a prefix of what follows are kept until that ends.
type treeOrder struct {
	any   bool
	last  Entry
	files []string
}

func (o *treeOrder) add(e Entry) error {
	if o.any {
		if e.Name == o.last.Name {
			return treeError("duplicateEntries", "entry %q occurs twice", clip(e.Name))
		}
		if compareEntries(o.last, e) > 0 {
			return treeError("treeNotSorted", "entry %q comes after %q", clip(e.Name), clip(o.last.Name))
		}
	}
	for len(o.files) > 0 {
		f := o.files[len(o.files)-1]
		if len(e.Name) >= len(f) && e.Name[:len(f)] == f {
			if len(e.Name) == len(f) {
				return treeError("duplicateEntries", "entry %q occurs twice", clip(e.Name))
			}
			break
		}
		o.files = o.files[:len(o.files)-1]
	}
	if e.Mode != ModeTree {
		o.files = append(o.files, e.Name)
	}
	o.any, o.last = true, e
	return nil
}

// compareEntries orders names as git does: a directory as if it ended in "/".
func compareEntries(a, b Entry) int {
	n := min(len(a.Name), len(b.Name))
	for i := range n {
		if a.Name[i] != b.Name[i] {
			return int(a.Name[i]) - int(b.Name[i])
		}
	}
	return nextByte(a, n) - nextByte(b, n)
}

// nextByte is the byte of the entry's sort key at n: 0 at the end of a file's
// name, "/" at the end of a directory's.
func nextByte(e Entry, n int) int {
	if n < len(e.Name) {
		return int(e.Name[n])
	}
	if e.Mode == ModeTree && n == len(e.Name) {
		return '/'
	}
	return 0
}

func treeError(id, format string, args ...any) error {
	return &CheckError{Type: plumbing.TreeObject, ID: id, Detail: fmt.Sprintf(format, args...)}
}

// clip keeps a foreign name short enough for a one-line message.
func clip(s string) string {
	const most = 100
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
