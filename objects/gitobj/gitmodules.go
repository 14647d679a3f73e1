package gitobj

import (
	"fmt"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// CheckGitmodules refuses a .gitmodules file that could make a client run a
// command or write outside of its work tree (CVE-2018-11235, CVE-2018-17456,
// CVE-2020-5260 and their kin). Unlike git fsck it also refuses a file that it
// cannot parse. The error is a *CheckError.
func CheckGitmodules(data []byte) error {
	refuse := func(id, format string, args ...any) error {
		return &CheckError{Type: plumbing.BlobObject, ID: id, Detail: fmt.Sprintf(format, args...)}
	}
	p := configParser{s: strings.TrimPrefix(string(data), "\ufeff")}
	for {
		name, key, value, ok, err := p.next()
		if err != nil {
			return refuse("gitmodulesParse", ".gitmodules line %d: %v", p.line+1, err)
		}
		if !ok {
			return nil
		}
		switch {
		case badSubmoduleName(name):
			return refuse("gitmodulesName", "submodule name %q", clip(name))
		case key == "url" && badSubmoduleURL(value):
			return refuse("gitmodulesUrl", "submodule url %q", clip(value))
		case key == "path" && strings.HasPrefix(value, "-"):
			return refuse("gitmodulesPath", "submodule path %q", clip(value))
		case key == "update" && strings.HasPrefix(value, "!"):
			return refuse("gitmodulesUpdate", "submodule update command %q", clip(value))
		}
	}
}

// badSubmoduleName follows check_submodule_name: the name becomes a directory
// below .git/modules.
func badSubmoduleName(name string) bool {
	if name == "" {
		return true
	}
	for part := range strings.FieldsFuncSeq(name, func(r rune) bool { return r == '/' || r == '\\' }) {
		if part == ".." {
			return true
		}
	}
	return false
}

// badSubmoduleURL follows check_submodule_url.
func badSubmoduleURL(u string) bool {
	if strings.HasPrefix(u, "-") || strings.ContainsAny(u, "\n\r") {
		return true
	}
	rest, ups := u, 0
	for {
		if after, ok := cutDots(rest, ".."); ok {
			rest = after
			ups++
		} else if after, ok := cutDots(rest, "."); ok {
			rest = after
		} else {
			break
		}
	}
	relative := rest != u
	if relative || strings.HasPrefix(u, "git://") {
		if hasEncodedNewline(u) {
			return true
		}
		// "../../:x" can eat the host of the parent's URL.
		return ups > 0 && rest != "" && (rest[0] == ':' || rest[0] == '/')
	}
	for _, scheme := range []string{"http", "https", "ftp", "ftps"} {
		curl, ok := strings.CutPrefix(u, scheme+"::") // "use the helper of this scheme"
		if !ok && strings.HasPrefix(u, scheme+"://") {
			curl, ok = u, true
		}
		if ok {
			return !normalizable(curl) || hasEncodedNewline(curl)
		}
	}
	return false
}

func cutDots(s, dots string) (string, bool) {
	if after, ok := strings.CutPrefix(s, dots+"/"); ok {
		return after, true
	}
	return strings.CutPrefix(s, dots+"\\")
}

func hasEncodedNewline(s string) bool {
	return strings.Contains(strings.ToLower(s), "%0a") || strings.Contains(strings.ToLower(s), "%0d")
}

// configParser reads the settings of submodules out of a git config file.
type configParser struct {
	s       string
	line    int
	section string // submodule's name
	inside  bool   // of a submodule section
}

type configError string

func (e configError) Error() string { return string(e) }

// next returns the next setting of a submodule. The key is in lower case.
func (p *configParser) next() (name, key, value string, ok bool, err error) {
	for {
		p.skipBlank()
		if p.s == "" {
			return "", "", "", false, nil
		}
		if p.s[0] == '[' {
			if err := p.header(); err != nil {
				return "", "", "", false, err
			}
			continue
		}
		key, value, err = p.setting()
		if err != nil {
			return "", "", "", false, err
		}
		if p.inside {
			return p.section, key, value, true, nil
		}
	}
}

func (p *configParser) skipBlank() {
	for p.s != "" {
		switch p.s[0] {
		case '\n':
			p.line++
			p.s = p.s[1:]
		case ' ', '\t', '\r': // what git takes for space
			p.s = p.s[1:]
		case '#', ';':
			i := strings.IndexByte(p.s, '\n')
			if i < 0 {
				i = len(p.s)
			}
			p.s = p.s[i:]
		default:
			return
		}
	}
}

// header reads [submodule "name"], or [submodule.name] as git once wrote it.
func (p *configParser) header() error {
	i := 1
	for i < len(p.s) && isNameByte(p.s[i]) {
		i++
	}
	section := strings.ToLower(p.s[1:i])
	rest := p.s[i:]
	if section == "" || rest == "" {
		return configError("bad section header")
	}
	if rest[0] == ']' {
		p.s = rest[1:]
		p.section, p.inside = strings.CutPrefix(section, "submodule.")
		return nil
	}
	blank := rest[0] == ' ' || rest[0] == '\t' // git wants one in front of the name
	rest = strings.TrimLeft(rest, " \t")
	if !blank || rest == "" || rest[0] != '"' {
		return configError("bad section header")
	}
	var name strings.Builder
	for i := 1; i < len(rest); i++ {
		switch c := rest[i]; c {
		case '\n', 0:
			return configError("section header does not end")
		case '\\':
			i++
			if i == len(rest) || rest[i] == '\n' {
				return configError("section header does not end")
			}
			name.WriteByte(rest[i])
		case '"':
			if i+1 == len(rest) || rest[i+1] != ']' {
				return configError("bad section header")
			}
			p.s = rest[i+2:]
			// [submodule.a "b"] is the section of submodule "a.b".
			prefix, ok := strings.CutPrefix(section+".", "submodule.")
			p.section, p.inside = prefix+name.String(), ok
			return nil
		default:
			name.WriteByte(c)
		}
	}
	return configError("section header does not end")
}

func (p *configParser) setting() (key, value string, err error) {
	i := 0
	for i < len(p.s) && p.s[i] != '.' && isNameByte(p.s[i]) {
		i++
	}
	if i == 0 || !isLetter(p.s[0]) {
		return "", "", configError("bad setting")
	}
	key = strings.ToLower(p.s[:i])
	p.s = strings.TrimLeft(p.s[i:], " \t")
	if p.s == "" || p.s[0] == '\n' || strings.HasPrefix(p.s, "\r\n") {
		return key, "", nil // a setting without a value means "true"
	}
	if p.s[0] != '=' {
		return "", "", configError("bad setting")
	}
	p.s = p.s[1:]
	value, err = p.value()
	return key, value, err
}

func (p *configParser) value() (string, error) {
	var b strings.Builder
	quoted, comment := false, false
	end := 0 // length of the value without trailing blanks
	i := 0
	for ; i < len(p.s) && p.s[i] != '\n'; i++ {
		c := p.s[i]
		switch {
		case comment:
			continue
		case c == 0:
			return "", configError("zero byte")
		case !quoted && (c == '#' || c == ';'):
			comment = true
			continue
		case !quoted && b.Len() == 0 && (c == ' ' || c == '\t' || c == '\r'):
			continue // in front of the value, be it after quotes with nothing between
		case c == '"':
			quoted = !quoted
			end = b.Len()
			continue
		case c == '\\':
			i++
			if i < len(p.s) && p.s[i] == '\r' && i+1 < len(p.s) && p.s[i+1] == '\n' {
				i++
			}
			if i == len(p.s) {
				return "", configError("value does not end")
			}
			switch p.s[i] {
			case '\n':
				p.line++
				continue
			case 'n':
				c = '\n'
			case 't':
				c = '\t'
			case 'b':
				c = '\b'
			case '\\', '"':
				c = p.s[i]
			default:
				return "", configError("bad escape")
			}
			b.WriteByte(c)
			end = b.Len()
			continue
		}
		b.WriteByte(c)
		if quoted || c != ' ' && c != '\t' && c != '\r' {
			end = b.Len()
		}
	}
	if quoted {
		return "", configError("value does not end")
	}
	p.s = p.s[i:]
	return b.String()[:end], nil
}

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

func isNameByte(c byte) bool {
	return isLetter(c) || c >= '0' && c <= '9' || c == '-' || c == '.'
}
