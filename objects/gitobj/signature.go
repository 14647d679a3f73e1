package gitobj

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Signature is who did something and when: the author of a commit, say. When
// has a resolution of one second; its zone's name is the offset as it was
// written, so that odd ones such as "-0000" survive a round trip.
type Signature struct {
	Name, Email string
	When        time.Time
}

// String returns the signature as it stands in a commit. What would break the
// line's syntax (newlines, angle brackets, zero bytes) is dropped from the name
// and the address, as git does.
func (s Signature) String() string {
	return clean(s.Name) + " <" + clean(s.Email) + "> " +
		strconv.FormatInt(max(s.When.Unix(), 0), 10) + " " + zone(s.When)
}

// clean works on bytes: old commits have names that are not UTF-8.
func clean(s string) string {
	if !strings.ContainsAny(s, "<>\n\x00") {
		return s
	}
	b := make([]byte, 0, len(s))
	for _, c := range []byte(s) {
		if c != '<' && c != '>' && c != '\n' && c != 0 {
			b = append(b, c)
		}
	}
	return string(b)
}

func zone(t time.Time) string {
	name, offset := t.Zone()
	if o, ok := zoneOffset(name); ok && o == offset {
		return name
	}
	sign := '+'
	if offset < 0 {
		sign, offset = '-', -offset
	}
	return fmt.Sprintf("%c%02d%02d", sign, offset/3600%100, offset/60%60)
}

// zoneOffset returns the seconds east of UTC of "+0130".
func zoneOffset(s string) (int, bool) {
	if len(s) != 5 || s[0] != '+' && s[0] != '-' {
		return 0, false
	}
	for _, c := range []byte(s[1:]) {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	offset := (int(s[1]-'0')*10+int(s[2]-'0'))*3600 + (int(s[3]-'0')*10+int(s[4]-'0'))*60
	if s[0] == '-' {
		offset = -offset
	}
	return offset, true
}

// parseSignature reads what follows "author " on a line without its newline.
func parseSignature(t Type, line []byte) (Signature, error) {
	fail := func(id, what string) (Signature, error) {
		return Signature{}, &CheckError{Type: t, ID: id, Detail: fmt.Sprintf("%s in %q", what, clip(string(line)))}
	}
	if len(line) > 0 && line[0] == '<' {
		return fail("missingNameBeforeEmail", "no name before the address")
	}
	i := bytes.IndexAny(line, "<>")
	switch {
	case i < 0:
		return fail("missingEmail", "no address")
	case line[i] == '>':
		return fail("badName", "stray \">\"")
	case line[i-1] != ' ':
		return fail("missingSpaceBeforeEmail", "no space before the address")
	}
	name, rest := line[:i-1], line[i+1:]
	i = bytes.IndexAny(rest, "<>")
	if i < 0 || rest[i] != '>' {
		return fail("badEmail", "address does not end")
	}
	email, rest := rest[:i], rest[i+1:]
	if len(rest) == 0 || rest[0] != ' ' {
		return fail("missingSpaceBeforeDate", "no space before the date")
	}
	date, tz, ok := bytes.Cut(rest[1:], []byte{' '})
	if !ok || len(date) == 0 || bytes.ContainsFunc(date, func(r rune) bool { return r < '0' || r > '9' }) {
		return fail("badDate", "bad date")
	}
	if date[0] == '0' && len(date) > 1 {
		return fail("zeroPaddedDate", "zero-padded date")
	}
	seconds, err := strconv.ParseInt(string(date), 10, 64)
	if err != nil {
		return fail("badDateOverflow", "date out of range")
	}
	offset, ok := zoneOffset(string(tz))
	if !ok {
		return fail("badTimezone", "bad time zone")
	}
	return Signature{
		Name:  string(name),
		Email: string(email),
		When:  time.Unix(seconds, 0).In(time.FixedZone(string(tz), offset)),
	}, nil
}
