package gitobj

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// Commit is a commit object. What ParseCommit returns encodes to the same bytes.
type Commit struct {
	Tree      OID
	Parents   []OID
	Author    Signature
	Committer Signature
	GPGSig    string   // armored signature, without the header's folding; "" if unsigned
	Message   string   // all that follows the blank line
	Extra     []string // other headers in order, each with its folded lines, without the last newline

	afterSig int  // how many of Extra follow the signature; git itself writes it last
	noBlank  bool // the headers end the object: git takes a commit without the blank line
}

// The headers that git strips from a commit before it checks a signature.
const (
	sigHeader    = "gpgsig"
	sig256Header = "gpgsig-sha256"
)

// ParseCommit reads a commit. The error is a *CheckError.
func ParseCommit(data []byte) (*Commit, error) {
	const t = plumbing.CommitObject
	lines, message, noBlank, err := splitHeaders(t, data)
	if err != nil {
		return nil, err
	}
	c := &Commit{Message: string(message), noBlank: noBlank}
	if c.Tree, err = lines.oid("tree", "missingTree", "badTreeSha1"); err != nil {
		return nil, err
	}
	for lines.has("parent") {
		p, err := lines.oid("parent", "missingParent", "badParentSha1")
		if err != nil {
			return nil, err
		}
		c.Parents = append(c.Parents, p)
	}
	if c.Author, err = lines.signature("author", "missingAuthor"); err != nil {
		return nil, err
	}
	if lines.has("author") {
		return nil, &CheckError{t, "multipleAuthors", "more than one author"}
	}
	if c.Committer, err = lines.signature("committer", "missingCommitter"); err != nil {
		return nil, err
	}
	if bytes.IndexByte(message, 0) >= 0 {
		return nil, &CheckError{t, "nulInCommit", "the message has a zero byte"}
	}
	signed := false
	for len(lines.rest) > 0 {
		h := lines.header()
		if sig, ok := strings.CutPrefix(h, sigHeader+" "); ok && !signed && sig != "" {
			c.GPGSig = strings.ReplaceAll(sig, "\n ", "\n")
			signed, c.afterSig = true, 0
			continue
		}
		c.Extra = append(c.Extra, h)
		if signed {
			c.afterSig++
		}
	}
	return c, nil
}

// Encode returns the commit's content.
func (c *Commit) Encode() []byte { return c.encode(true) }

// Payload returns what a signature of the commit covers: its content without
// the signature.
func (c *Commit) Payload() []byte { return c.encode(false) }

func (c *Commit) encode(signed bool) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "tree %s\n", c.Tree)
	for _, p := range c.Parents {
		fmt.Fprintf(&b, "parent %s\n", p)
	}
	fmt.Fprintf(&b, "author %s\ncommitter %s\n", c.Author, c.Committer)
	sigAt := max(len(c.Extra)-c.afterSig, 0)
	for i := range len(c.Extra) + 1 {
		if i == sigAt && signed && c.GPGSig != "" {
			b.WriteString(sigHeader + " " + strings.ReplaceAll(c.GPGSig, "\n", "\n ") + "\n")
		}
		if i < len(c.Extra) && (signed || !isSignature(c.Extra[i])) {
			b.WriteString(c.Extra[i] + "\n")
		}
	}
	if !c.noBlank || c.Message != "" {
		b.WriteByte('\n')
	}
	b.WriteString(c.Message)
	return b.Bytes()
}

func isSignature(header string) bool {
	return strings.HasPrefix(header, sigHeader+" ") || strings.HasPrefix(header, sig256Header+" ")
}

// headers reads the lines in front of an object's message.
type headers struct {
	t    Type
	rest []byte // each line ends in a newline
}

// splitHeaders returns the header lines and the message. noBlank tells that the
// object ends with its headers.
func splitHeaders(t Type, data []byte) (h headers, message []byte, noBlank bool, err error) {
	head := data
	if i := bytes.Index(data, []byte("\n\n")); i >= 0 {
		head, message = data[:i+1], data[i+2:]
	} else {
		noBlank = true
	}
	if bytes.IndexByte(head, 0) >= 0 {
		return h, nil, false, &CheckError{t, "nulInHeader", "the header has a zero byte"}
	}
	if len(head) == 0 || head[len(head)-1] != '\n' {
		return h, nil, false, &CheckError{t, "unterminatedHeader", "the header does not end"}
	}
	return headers{t, head}, message, noBlank, nil
}

func (h *headers) has(key string) bool {
	return bytes.HasPrefix(h.rest, []byte(key)) && len(h.rest) > len(key) && h.rest[len(key)] == ' '
}

// value takes the next line if its key is the given one.
func (h *headers) value(key, missing string) ([]byte, error) {
	if !h.has(key) {
		return nil, &CheckError{h.t, missing, fmt.Sprintf("no %q line where one belongs", key)}
	}
	line, rest, _ := bytes.Cut(h.rest[len(key)+1:], []byte{'\n'})
	h.rest = rest
	return line, nil
}

func (h *headers) oid(key, missing, bad string) (OID, error) {
	v, err := h.value(key, missing)
	if err != nil {
		return OID{}, err
	}
	oid, ok := parseOID(v)
	if !ok {
		return OID{}, &CheckError{h.t, bad, fmt.Sprintf("%s %q is not an oid", key, clip(string(v)))}
	}
	return oid, nil
}

func (h *headers) signature(key, missing string) (Signature, error) {
	v, err := h.value(key, missing)
	if err != nil {
		return Signature{}, err
	}
	return parseSignature(h.t, v)
}

// header takes the next line and the folded ones after it.
func (h *headers) header() string {
	end := bytes.IndexByte(h.rest, '\n')
	for end+1 < len(h.rest) && h.rest[end+1] == ' ' {
		end += 1 + bytes.IndexByte(h.rest[end+1:], '\n')
	}
	s := string(h.rest[:end])
	h.rest = h.rest[end+1:]
	return s
}

// parseOID reads 40 lower-case hex digits: git reads upper-case ones too, but
// an object that has them would not survive a round trip.
func parseOID(s []byte) (oid OID, ok bool) {
	if len(s) != 2*len(oid) {
		return OID{}, false
	}
	for i, c := range s {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		default:
			return OID{}, false
		}
		oid[i/2] = oid[i/2]<<4 | c
	}
	return oid, true
}
