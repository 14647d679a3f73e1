package reach

import (
	"bytes"
	"crypto/sha1"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/headgate/headgate/objects/gitobj"
)

// sign gives bytes the checksum that Parse wants.
func sign(b []byte) {
	if len(b) >= trailerSize {
		sum := sha1.Sum(b[:len(b)-trailerSize])
		copy(b[len(b)-trailerSize:], sum[:])
	}
}

// What Parse takes can be read to the last number.
func FuzzParse(f *testing.F) {
	l := newLake()
	blob := gitobj.Entry{Name: "s", Mode: gitobj.ModeFile, OID: l.blob("s")}
	a := l.commit(1, l.tree(blob))
	b, c, d := l.commit(2, l.tree(), a), l.commit(3, l.tree(), a), l.commit(4, l.tree(blob), a)
	tips := []OID{l.commit(5, l.tree(), b, c, d), d, l.tag("v1", plumbing.CommitObject, b)}
	x, err := Build(f.Context(), l, nil, tips)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(x.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		data = bytes.Clone(data)
		sign(data)
		x, err := Parse(data)
		if err != nil {
			return
		}
		for pos := range uint32(x.Len()) {
			if got, ok := x.Find(x.OID(pos)); !ok || got != pos {
				t.Fatalf("%s is at %d, and found at %d", x.OID(pos), pos, got)
			}
			switch x.Type(pos) {
			case plumbing.CommitObject:
				for _, p := range x.Commit(pos).Parents {
					if p >= pos {
						t.Fatalf("commit %d has the parent %d", pos, p)
					}
				}
				set := x.NewSet()
				x.Reach(pos, set)
			case plumbing.TagObject:
				if c, ok := x.Target(pos); !ok || int(c) >= x.Commits() {
					t.Fatalf("tag %d leads to %d", pos, c)
				}
			case plumbing.BlobObject:
				x.BlobSize(pos)
			}
		}
	})
}
