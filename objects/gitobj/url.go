package gitobj

import (
	"strconv"
	"strings"
)

// normalizable tells whether git's url_normalize takes the URL: a scheme, a
// host (but for file:), a port that is one, well-formed escapes, and no ".."
// that climbs above the root. Git refuses a submodule whose URL it does not take.
func normalizable(u string) bool {
	scheme, rest, ok := strings.Cut(u, "://")
	if !ok || !isScheme(scheme) {
		return false
	}
	authority, tail := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, tail = rest[:i], rest[i:]
	}
	// Git splits off the user at the first "@"; a second one is not of a host.
	if user, host, ok := strings.Cut(authority, "@"); ok {
		if _, ok := unescape(user); !ok {
			return false
		}
		authority = host
	}
	if !validHost(authority, strings.EqualFold(scheme, "file")) {
		return false
	}
	path, query := tail, ""
	if i := strings.IndexAny(tail, "?#"); i >= 0 {
		path, query = tail[:i], tail[i:]
	}
	if _, ok := unescape(query); !ok {
		return false
	}
	depth := 0
	for segment := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		switch s, ok := unescape(segment); {
		case !ok || s == ".." && depth == 0:
			return false
		case s == "..":
			depth--
		case s != ".":
			depth++
		}
	}
	return true
}

func isScheme(s string) bool {
	for i, c := range []byte(s) {
		letter := lower(c) >= 'a' && lower(c) <= 'z'
		if !letter && (i == 0 || (c < '0' || c > '9') && c != '+' && c != '.' && c != '-') {
			return false
		}
	}
	return s != ""
}

// validHost checks "host:port". A file: URL has no need of a host and no port.
func validHost(authority string, file bool) bool {
	if authority == "" {
		return file
	}
	host, port := authority, ""
	if i := strings.LastIndexAny(authority, ":]"); i >= 0 && authority[i] == ':' {
		host, port = authority[:i], authority[i+1:]
	}
	if host == "" && (!file || port != "") {
		return false
	}
	for _, c := range []byte(host) {
		if letter := lower(c) >= 'a' && lower(c) <= 'z'; !letter && (c < '0' || c > '9') && !strings.ContainsRune(".-_[:]", rune(c)) {
			return false
		}
	}
	if port == "" {
		return true
	}
	for _, c := range []byte(port) {
		if c < '0' || c > '9' {
			return false
		}
	}
	n, err := strconv.Atoi(port)
	return err == nil && n > 0 && n <= 65535
}

// unescape decodes %XX. It fails on a "%" without two digits.
func unescape(s string) (string, bool) {
	if strings.IndexByte(s, '%') < 0 {
		return s, true
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' {
			if i+2 >= len(s) {
				return "", false
			}
			n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil || s[i+1] == '+' || s[i+1] == '-' {
				return "", false
			}
			c, i = byte(n), i+2
		}
		b.WriteByte(c)
	}
	return b.String(), true
}
