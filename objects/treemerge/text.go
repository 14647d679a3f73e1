package treemerge

import (
	"bytes"
	"slices"

	"github.com/headgate/headgate/objects/table"
)

// Text merges the lines of texts: what one side changed is that side's, what both
// changed alike is so. It returns false if both changed the same lines, or lines side
// by side, in different ways: as with git merge, nobody can tell then whether one
// change makes sense beside the other. (Khanna, Kunal and Pierce, "A Formal
// Investigation of Diff3", 2007, over the alignment of table.Align.)
func Text(base, ours, theirs []byte) ([]byte, bool) {
	b, o, t := lines(base), lines(ours), lines(theirs)
	var out []byte
	put := func(list []string) {
		for _, l := range list {
			out = append(out, l...)
		}
	}
	for _, r := range table.Overlay(table.Align(b, o), table.Align(b, t)) {
		ourLines, theirLines := o[r.Ours.From:r.Ours.To], t[r.Theirs.From:r.Theirs.To]
		switch {
		case !r.TheirsChanged || slices.Equal(ourLines, theirLines):
			put(ourLines)
		case !r.OursChanged:
			put(theirLines)
		default:
			return nil, false
		}
	}
	return out, true
}

// lines splits a text behind its newlines.
func lines(text []byte) []string {
	var out []string
	for len(text) > 0 {
		n := bytes.IndexByte(text, '\n') + 1
		if n == 0 {
			n = len(text)
		}
		out = append(out, string(text[:n]))
		text = text[n:]
	}
	return out
}
