// Package gitobj is the strict codec of git's trees, commits and tags, and the
// checks of git fsck --strict. It works on bytes in memory and knows nothing of
// where objects are kept.
package gitobj

import (
	"fmt"

	"github.com/go-git/go-git/v5/plumbing"
)

// OID is the SHA-1 name of a git object.
type OID = plumbing.Hash

// Type is the kind of a git object.
type Type = plumbing.ObjectType

// Info is what is known of an object without reading its content.
type Info struct {
	Type Type
	Size int64 // bytes of content, without git's "type size\0" header
}

// MaxBytes is the largest commit, tree or tag that is taken: they are parsed in
// memory, and a tree of this size already has more than a million entries.
const MaxBytes = 64 << 20

// CheckError says why an object is refused, with the message id that git fsck
// gives to the same fault, such as "treeNotSorted".
type CheckError struct {
	Type   Type
	ID     string // git's fsck message id
	Detail string // what is wrong; foreign text in it is quoted
}

func (e *CheckError) Error() string {
	return fmt.Sprintf("%s: %s: %s", e.Type, e.ID, e.Detail)
}

// Check refuses what git fsck --strict calls an error, and a few things that it
// only warns of but that no git writes today (odd file modes, signs or blanks
// in a date). The error is a *CheckError. A blob is always good.
func Check(t Type, data []byte) error {
	switch t {
	case plumbing.BlobObject:
		return nil
	case plumbing.TreeObject:
		_, err := ParseTree(data)
		return err
	case plumbing.CommitObject:
		_, err := ParseCommit(data)
		return err
	case plumbing.TagObject:
		_, err := ParseTag(data)
		return err
	default:
		return &CheckError{Type: t, ID: "unknownType", Detail: "not a kind of object"}
	}
}
