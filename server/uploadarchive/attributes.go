package uploadarchive

import (
	"strconv"
	"strings"
)

// The attributes that say how a file is exported. See gitattributes(5).
const (
	attrIgnore = "export-ignore"
	attrSubst  = "export-subst"
)

// converting are the attributes that make git archive change a file's content.
// Those of line ends matter only as eol=crlf: the server's own line end is LF.
var converting = []string{attrSubst, "ident", "working-tree-encoding", "eol"}

// attribute is one setting: "a", "-a", "!a" or "a=v".
type attribute struct {
	name  string
	state attrState
	value string
}

type attrState uint8

const (
	attrSet attrState = iota
	attrUnset
	attrUnspecified
	attrValue
)

// attrRule is a line of a .gitattributes file.
type attrRule struct {
	pattern *glob
	base    bool // the pattern is held against the last part of a path alone
	dirOnly bool
	attrs   []attribute
}

// attrFile is one .gitattributes: what it says of paths below its directory.
type attrFile struct {
	dir   string // "" or ending in a slash
	rules []attrRule
}

// macros are names for several attributes.
type macros map[string][]attribute

func builtinMacros() macros {
	return macros{"binary": {{name: "diff", state: attrUnset}, {name: "merge", state: attrUnset}, {name: "text", state: attrUnset}}}
}

const blanks = " \t\r\n"

// parseAttributes reads a .gitattributes file of the directory. Lines that git
// ignores are ignored. Macros are taken from the root's file only (m is nil else).
func parseAttributes(dir, text string, m macros) attrFile {
	f := attrFile{dir: dir}
	text, _, _ = strings.Cut(text, "\x00")
	text = strings.TrimPrefix(text, "\ufeff")
	for line := range strings.Lines(text) {
		line = strings.Trim(line, blanks)
		if line == "" || line[0] == '#' {
			continue
		}
		pattern, rest, quoted := unquote(line)
		if !quoted {
			i := strings.IndexAny(line, blanks)
			if i < 0 {
				continue // says nothing
			}
			pattern, rest = line[:i], line[i:]
		}
		attrs, ok := parseSettings(rest)
		if !ok {
			continue
		}
		if name, is := strings.CutPrefix(pattern, "[attr]"); is && !quoted {
			if m != nil && validAttribute(name) {
				m[name] = attrs
			}
			continue
		}
		if rule, ok := parseRule(pattern, attrs); ok {
			f.rules = append(f.rules, rule)
		}
	}
	return f
}

func parseRule(pattern string, attrs []attribute) (attrRule, bool) {
	if pattern == "" || pattern[0] == '!' { // git forbids negative patterns
		return attrRule{}, false
	}
	rule := attrRule{attrs: attrs}
	pattern, rule.dirOnly = strings.CutSuffix(pattern, "/")
	rule.base = !strings.Contains(pattern, "/")
	g, err := newGlob(strings.TrimPrefix(pattern, "/"), rule.base)
	if err != nil {
		return attrRule{}, false // matches nothing, in git too
	}
	rule.pattern = g
	return rule, true
}

// parseSettings reads what follows the pattern. One name that is none makes git
// ignore the line.
func parseSettings(s string) ([]attribute, bool) {
	var out []attribute
	for field := range strings.FieldsFuncSeq(s, func(r rune) bool { return strings.ContainsRune(blanks, r) }) {
		a := attribute{name: field}
		switch name, value, has := strings.Cut(field, "="); {
		case field[0] == '-':
			a.name, a.state = field[1:], attrUnset
		case field[0] == '!':
			a.name, a.state = field[1:], attrUnspecified
		case has:
			a.name, a.state, a.value = name, attrValue, value
		}
		if !validAttribute(a.name) {
			return nil, false
		}
		out = append(out, a)
	}
	return out, true
}

func validAttribute(name string) bool {
	for _, c := range []byte(name) {
		if !alpha(c) && !digit(c) && c != '-' && c != '.' && c != '_' {
			return false
		}
	}
	return name != "" && name[0] != '-'
}

// unquote reads a pattern in double quotes, with C's escapes.
func unquote(line string) (pattern, rest string, ok bool) {
	if line[0] != '"' {
		return "", "", false
	}
	for i := 1; i < len(line); i++ {
		switch line[i] {
		case '\\':
			i++
		case '"':
			// Go's escapes are C's, but that "\x", "\u" and "\U" are git's errors.
			s, err := strconv.Unquote(line[:i+1])
			if err != nil || strings.Contains(line[:i], `\x`) || strings.Contains(line[:i], `\u`) || strings.Contains(line[:i], `\U`) {
				return "", "", false
			}
			return s, line[i+1:], true
		}
	}
	return "", "", false
}

// resolve returns what the files, the root's first, say of a path that does not
// end in a slash. Later lines win, and deeper files.
func resolve(files []attrFile, m macros, path string, dir bool) map[string]attribute {
	var got map[string]attribute
	var fill func(attrs []attribute)
	fill = func(attrs []attribute) {
		for i := len(attrs) - 1; i >= 0; i-- {
			a := attrs[i]
			if _, known := got[a.name]; known {
				continue
			}
			if got == nil {
				got = make(map[string]attribute)
			}
			got[a.name] = a
			if a.state == attrSet {
				fill(m[a.name])
			}
		}
	}
	name := path[strings.LastIndexByte(path, '/')+1:]
	for i := len(files) - 1; i >= 0; i-- {
		below := path[len(files[i].dir):]
		for j := len(files[i].rules) - 1; j >= 0; j-- {
			r := &files[i].rules[j]
			subject := below
			if r.base {
				subject = name
			}
			if (dir || !r.dirOnly) && r.pattern.match(subject) {
				fill(r.attrs)
			}
		}
	}
	return got
}

// converts returns the setting that makes git archive change the file's
// content, or "".
func converts(got map[string]attribute) string {
	for _, name := range converting {
		a, ok := got[name]
		switch {
		case !ok:
		case name == "eol" && (a.value != "crlf" || got["text"].state == attrUnset && got["text"].name != ""):
		case a.state == attrSet && name != "eol" && name != "working-tree-encoding":
			return name
		case a.state == attrValue && name != attrSubst && name != "ident" && !strings.EqualFold(a.value, "UTF-8"):
			return name + "=" + a.value
		}
	}
	return ""
}
