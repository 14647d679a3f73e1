package plan

import (
	"fmt"
	"strings"

	"github.com/headgate/headgate/exec/spelling"
)

// header is what the leading comment of a SQL file sets.
type header struct {
	lines  map[string]int // of each setting that is given
	name   string
	key    []string
	params []string
	rest   map[string]string // strategy, memory, timeout
	faults []fault

	partitionedBy []string
	columns       []string
	types         map[string]string // of columns that declare one
}

type fault struct {
	line    int
	message string
}

func (h *header) fault(line int, format string, args ...any) {
	h.faults = append(h.faults, fault{line, fmt.Sprintf(format, args...)})
}

// parseHeader reads the settings of a SQL file: the lines of its leading
// comments that begin with "-- headgate:", each with settings such as
//
//	-- headgate: key=[day, origin] strategy=replace
//
// A value is a word, a list of words in brackets, or any of these words in
// double quotes (with "" for a quote). known are the settings that the file may have.
func parseHeader(text string, known []string) header {
	h := header{lines: make(map[string]int), rest: make(map[string]string)}
	leading, block := true, false
	number := 0
	for line := range strings.SplitSeq(text, "\n") {
		number++
		line = strings.TrimSpace(line)
		if leading && block {
			_, after, closed := strings.Cut(line, "*/")
			if !closed {
				continue
			}
			block, line = false, strings.TrimSpace(after)
		}
		for leading && strings.HasPrefix(line, "/*") {
			_, after, closed := strings.Cut(line[2:], "*/")
			block, line = !closed, strings.TrimSpace(after)
		}
		if line == "" || block {
			continue
		}
		settings, ok := settingsOf(line)
		switch {
		case ok && !leading:
			h.fault(number, "settings stand in the comment before the query; here they would be ignored")
		case ok:
			h.parse(settings, number, known)
		case !strings.HasPrefix(line, "--"):
			leading = false
		}
	}
	return h
}

// settingsOf returns what follows "-- headgate:" in line.
func settingsOf(line string) (string, bool) {
	const mark = "headgate:"
	comment, ok := strings.CutPrefix(line, "--")
	comment = strings.TrimSpace(comment)
	if !ok || len(comment) < len(mark) || !strings.EqualFold(comment[:len(mark)], mark) {
		return "", false
	}
	return comment[len(mark):], true
}

func (h *header) parse(s string, line int, known []string) {
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		name, after, ok := strings.Cut(s, "=")
		name = strings.TrimSpace(name)
		if !ok || name == "" || strings.ContainsAny(name, " \t[]\",") {
			h.fault(line, "%q is not a setting; write name=value", clip(s))
			return
		}
		after = strings.TrimSpace(after)
		if name == "columns" && strings.HasPrefix(after, "[") {
			columns, types, rest, err := parseColumns(after)
			if err != nil {
				h.fault(line, "setting %s: %v", name, err)
				return
			}
			s, h.types = rest, types
			h.set(name, columns, true, line, known)
			continue
		}
		values, list, after, err := parseValue(after)
		if err != nil {
			h.fault(line, "setting %s: %v", name, err)
			return
		}
		s = after
		h.set(name, values, list, line, known)
	}
}

func (h *header) set(name string, values []string, list bool, line int, known []string) {
	ok := false
	for _, k := range known {
		ok = ok || k == name
	}
	switch {
	case !ok:
		h.fault(line, "unknown setting %q%s", name, spelling.MeantOr(name, known))
	case h.lines[name] != 0:
		h.fault(line, "setting %s is given twice (first on line %d)", name, h.lines[name])
	case name == "key":
		h.key = values
	case name == "params":
		h.params = values
	case name == "columns":
		h.columns = values
	case name == "partitioned_by":
		h.partitionedBy = values
	case list:
		h.fault(line, "setting %s takes one value, not a list", name)
	case name == "name":
		h.name = values[0]
	default:
		h.rest[name] = values[0]
	}
	if ok && h.lines[name] == 0 {
		h.lines[name] = line
	}
}

// parseValue reads one value and returns what follows it.
func parseValue(s string) (values []string, list bool, rest string, err error) {
	if !strings.HasPrefix(s, "[") {
		word, rest, err := parseWord(s, " \t")
		if err == nil && rest != "" && rest[0] != ' ' && rest[0] != '\t' {
			err = fmt.Errorf("%q follows the value without a space", clip(rest))
		}
		return []string{word}, false, rest, err
	}
	s = strings.TrimSpace(s[1:])
	for {
		word, rest, err := parseWord(s, " \t,]")
		if err != nil {
			return nil, true, "", err
		}
		values = append(values, word)
		rest = strings.TrimSpace(rest)
		switch {
		case strings.HasPrefix(rest, ","):
			s = strings.TrimSpace(rest[1:])
		case strings.HasPrefix(rest, "]"):
			return values, true, rest[1:], nil
		default:
			return nil, true, "", fmt.Errorf("the list is not closed with ]")
		}
	}
}

// parseColumns reads a list of columns, each of which may be followed by its type:
// [day DATE, "the price" DECIMAL(18,2), tags VARCHAR[], n].
func parseColumns(s string) (columns []string, types map[string]string, rest string, err error) {
	types = make(map[string]string)
	s = s[1:]
	for {
		name, after, err := parseWord(strings.TrimSpace(s), " \t,]")
		if err != nil {
			return nil, nil, "", err
		}
		end, depth, quoted := -1, 0, false
	item:
		for i, c := range after {
			switch {
			case c == '"':
				quoted = !quoted
			case quoted:
			case c == '(' || c == '[':
				depth++
			case (c == ',' || c == ']') && depth == 0:
				end = i
				break item
			case c == ')' || c == ']':
				depth--
			}
		}
		if end < 0 {
			return nil, nil, "", fmt.Errorf("the list is not closed with ]")
		}
		columns = append(columns, name)
		if t := strings.TrimSpace(after[:end]); t != "" {
			types[name] = t
		}
		if after[end] == ']' {
			return columns, types, after[end+1:], nil
		}
		s = after[end+1:]
	}
}

// parseWord reads a quoted word, or one up to any byte of stop.
func parseWord(s, stop string) (word, rest string, err error) {
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexAny(s, stop)
		if end < 0 {
			end = len(s)
		}
		if word = s[:end]; word == "" {
			return "", "", fmt.Errorf("a value is missing")
		}
		if strings.ContainsAny(word, `"[]=`) {
			return "", "", fmt.Errorf("%q needs double quotes", clip(word))
		}
		return word, s[end:], nil
	}
	var b strings.Builder
	for s = s[1:]; ; {
		before, after, ok := strings.Cut(s, `"`)
		if !ok {
			return "", "", fmt.Errorf("a double quote is not closed")
		}
		b.WriteString(before)
		if !strings.HasPrefix(after, `"`) {
			if b.Len() == 0 {
				return "", "", fmt.Errorf("a value is empty")
			}
			return b.String(), after, nil
		}
		b.WriteByte('"')
		s = after[1:]
	}
}

// clip shortens foreign text for a message.
func clip(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "..."
	}
	return s
}
