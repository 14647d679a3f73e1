package gitobj

import (
	"bytes"
	"fmt"

	"github.com/go-git/go-git/v5/plumbing"
)

// Tag is an annotated tag. What ParseTag returns encodes to the same bytes.
type Tag struct {
	Object  OID
	Type    Type // of Object
	Name    string
	Tagger  *Signature // nil in tags of git's first months
	Message string     // all that follows the blank line, a signature too
	Extra   []string   // other headers in order, each with its folded lines, without the last newline

	noBlank bool
}

// ParseTag reads a tag. The error is a *CheckError.
func ParseTag(data []byte) (*Tag, error) {
	const t = plumbing.TagObject
	lines, message, noBlank, err := splitHeaders(t, data)
	if err != nil {
		return nil, err
	}
	tag := &Tag{Message: string(message), noBlank: noBlank}
	if tag.Object, err = lines.oid("object", "missingObject", "badObjectSha1"); err != nil {
		return nil, err
	}
	kind, err := lines.value("type", "missingTypeEntry")
	if err != nil {
		return nil, err
	}
	switch string(kind) {
	case "commit":
		tag.Type = plumbing.CommitObject
	case "tree":
		tag.Type = plumbing.TreeObject
	case "blob":
		tag.Type = plumbing.BlobObject
	case "tag":
		tag.Type = plumbing.TagObject
	default:
		return nil, &CheckError{t, "badType", fmt.Sprintf("type %q", clip(string(kind)))}
	}
	name, err := lines.value("tag", "missingTagEntry")
	if err != nil {
		return nil, err
	}
	tag.Name = string(name)
	if lines.has("tagger") {
		s, err := lines.signature("tagger", "missingTaggerEntry")
		if err != nil {
			return nil, err
		}
		tag.Tagger = &s
	}
	for len(lines.rest) > 0 {
		tag.Extra = append(tag.Extra, lines.header())
	}
	return tag, nil
}

// Encode returns the tag's content.
func (t *Tag) Encode() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "object %s\ntype %s\ntag %s\n", t.Object, t.Type, t.Name)
	if t.Tagger != nil {
		fmt.Fprintf(&b, "tagger %s\n", *t.Tagger)
	}
	for _, h := range t.Extra {
		b.WriteString(h + "\n")
	}
	if !t.noBlank || t.Message != "" {
		b.WriteByte('\n')
	}
	b.WriteString(t.Message)
	return b.Bytes()
}
