package engine

import "strings"

// token is a word or one other significant character of SQL, at depth
// parentheses. Quoted text, comments and blanks are skipped over.
type token struct {
	text       string // upper-case if a word; "" for quoted text
	start, end int    // byte offsets
	depth      int
}

// scan splits SQL into tokens, as DuckDB's lexer does with respect to quotes,
// dollar quotes and nested comments. Whatever it makes of a text that is not SQL
// is used only after DuckDB has parsed that text.
func scan(sql string) []token {
	var tokens []token
	depth := 0
	for i := 0; i < len(sql); {
		start := i
		switch c := sql[i]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v':
			i++
			continue
		case strings.HasPrefix(sql[i:], "--"):
			i = skipTo(sql, i, "\n")
			continue
		case strings.HasPrefix(sql[i:], "/*"):
			i = skipComment(sql, i)
			continue
		case c == '\'' || c == '"':
			escapes := c == '\'' && start > 0 && (sql[start-1] == 'e' || sql[start-1] == 'E')
			i = skipQuoted(sql, i, escapes)
			tokens = append(tokens, token{"", start, i, depth})
		case c == '$' && dollarTag(sql[i:]) != "":
			tag := dollarTag(sql[i:])
			i = skipTo(sql, i+len(tag), tag)
			tokens = append(tokens, token{"", start, i, depth})
		case isWord(c):
			for i < len(sql) && (isWord(sql[i]) || sql[i] == '$') {
				i++
			}
			tokens = append(tokens, token{strings.ToUpper(sql[start:i]), start, i, depth})
		default:
			if c == ')' || c == ']' || c == '}' {
				depth--
			}
			i++
			tokens = append(tokens, token{sql[start:i], start, i, depth})
			if c == '(' || c == '[' || c == '{' {
				depth++
			}
		}
	}
	return tokens
}

func isWord(c byte) bool {
	return c == '_' || c >= 0x80 || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// skipTo returns the offset behind the next end after i, or the text's end.
func skipTo(sql string, i int, end string) int {
	if at := strings.Index(sql[i:], end); at >= 0 {
		return i + at + len(end)
	}
	return len(sql)
}

func skipComment(sql string, i int) int {
	depth := 0
	for i < len(sql) {
		switch {
		case strings.HasPrefix(sql[i:], "/*"):
			depth++
			i += 2
		case strings.HasPrefix(sql[i:], "*/"):
			depth--
			i += 2
			if depth == 0 {
				return i
			}
		default:
			i++
		}
	}
	return i
}

// skipQuoted returns the offset behind a quoted text at i. A doubled quote needs
// no care: it reads as two texts side by side.
func skipQuoted(sql string, i int, escapes bool) int {
	quote := sql[i]
	for i++; i < len(sql); i++ {
		if escapes && sql[i] == '\\' {
			i++
			continue
		}
		if sql[i] == quote {
			return i + 1
		}
	}
	return len(sql)
}

// dollarTag returns the opening "$tag$" that s starts with, or "".
func dollarTag(s string) string {
	for i := 1; i < len(s); i++ {
		if s[i] == '$' {
			return s[:i+1]
		}
		if !isWord(s[i]) || i == 1 && s[i] >= '0' && s[i] <= '9' {
			break
		}
	}
	return ""
}

// body returns the query without what follows its last token: semicolons and
// comments. It can stand between parentheses; offsets in it stay the same.
func body(sql string) string {
	tokens := scan(sql)
	for len(tokens) > 0 && tokens[len(tokens)-1].text == ";" {
		tokens = tokens[:len(tokens)-1]
	}
	if len(tokens) == 0 {
		return ""
	}
	return sql[:tokens[len(tokens)-1].end]
}

// orderEnd returns the offset behind the last ORDER BY clause of the outermost
// query, where more terms can be added; ok is false if there is none.
func orderEnd(sql string) (offset int, ok bool) {
	tokens := scan(sql)
	for i, t := range tokens {
		switch {
		case t.depth != 0:
		case t.text == "ORDER" && i+1 < len(tokens) && tokens[i+1].text == "BY":
			offset, ok = len(sql), true
		case ok && (t.text == "LIMIT" || t.text == "OFFSET") && offset == len(sql):
			offset = tokens[i-1].end
		}
	}
	return offset, ok
}
