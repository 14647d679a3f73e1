package refs

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// maxName keeps names within what other tools and file systems take.
const maxName = 1024

// NameError says why a string is not a ref name.
type NameError struct {
	Name   string
	Reason string
}

func (e *NameError) Error() string {
	name := e.Name
	if len(name) > 100 {
		name = name[:100] + "..."
	}
	return fmt.Sprintf("ref name %q %s", name, e.Reason)
}

// Parse returns s as a Name if git check-ref-format takes it, it starts with
// "refs/" and is at most 1024 bytes long. The error is a *NameError.
func Parse(s string) (Name, error) {
	if reason := badName(s); reason != "" {
		return "", &NameError{s, reason}
	}
	return Name(s), nil
}

func badName(s string) string {
	switch {
	case len(s) > maxName:
		return fmt.Sprintf("is longer than %d bytes", maxName)
	case !strings.HasPrefix(s, "refs/"):
		return "does not start with \"refs/\""
	case strings.Contains(s, ".."):
		return "has two dots in a row"
	case strings.Contains(s, "@{"):
		return "has \"@{\" in it"
	case strings.HasSuffix(s, "."):
		return "ends with a dot"
	}
	for _, c := range []byte(s) {
		if c < ' ' || c == 0x7f {
			return "has a control character in it"
		}
		if strings.IndexByte(" ~^:?*[\\", c) >= 0 {
			return fmt.Sprintf("has %q in it", c)
		}
	}
	for part := range strings.SplitSeq(s, "/") {
		switch {
		case part == "":
			return "has an empty part"
		case part[0] == '.':
			return "has a part that starts with a dot"
		case strings.HasSuffix(part, ".lock"):
			return "has a part that ends with \".lock\""
		}
	}
	return ""
}

// parseOID reads what OID.String wrote.
func parseOID(s string) (OID, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(OID{}) {
		return OID{}, fmt.Errorf("bad oid %q", s)
	}
	return OID(b), nil
}
