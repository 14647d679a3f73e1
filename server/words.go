package server

import "strings"

// splitWords splits a command line as a POSIX shell would, with single quotes,
// double quotes and backslashes, and with nothing else: no variables, no globs,
// no operators. ok is false if a quote is not closed or a backslash ends the line.
func splitWords(line string) (words []string, ok bool) {
	var word strings.Builder
	inWord := false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; c {
		case ' ', '\t', '\n', '\r':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		case '\'':
			inWord = true
			end := strings.IndexByte(line[i+1:], '\'')
			if end < 0 {
				return nil, false
			}
			word.WriteString(line[i+1 : i+1+end])
			i += end + 1
		case '"':
			inWord = true
			closed := false
			for i++; i < len(line); i++ {
				if line[i] == '"' {
					closed = true
					break
				}
				if line[i] == '\\' && i+1 < len(line) && strings.IndexByte("\"\\$`\n", line[i+1]) >= 0 {
					i++
					if line[i] == '\n' {
						continue // a backslash joins lines
					}
				}
				word.WriteByte(line[i])
			}
			if !closed {
				return nil, false
			}
		case '\\':
			i++
			if i == len(line) {
				return nil, false
			}
			if line[i] != '\n' {
				inWord = true
				word.WriteByte(line[i])
			}
		default:
			inWord = true
			word.WriteByte(c)
		}
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, true
}
