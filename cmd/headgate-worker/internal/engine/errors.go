package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/headgate/headgate/exec/protocol"
)

// Kinds of protocol.UserError that the worker gives.
const (
	kindSQL      = "sql"
	kindData     = "data"
	kindMemory   = "memory"
	kindInternal = "internal"
)

func dataError(format string, args ...any) *protocol.UserError {
	return &protocol.UserError{Kind: kindData, Message: fmt.Sprintf(format, args...)}
}

// sqlError is a fault in the user's query at a byte offset of it; -1 is none.
func sqlError(query string, offset int, format string, args ...any) *protocol.UserError {
	u := &protocol.UserError{Kind: kindSQL, Message: fmt.Sprintf(format, args...)}
	u.Line, u.Column = lineColumn(query, offset)
	return u
}

// failure is DuckDB's error as errors_as_json writes it.
type failure struct {
	Type       string `json:"exception_type"`
	Message    string `json:"exception_message"`
	Position   string `json:"position"` // byte offset in the statement
	Candidates string `json:"candidates"`
	Name       string `json:"name"`
	Subtype    string `json:"error_subtype"`
}

// parseFailure reads the JSON in err's text. The driver puts a prefix before
// the JSON of some errors.
func parseFailure(err error) (*failure, bool) {
	text := err.Error()
	at := strings.IndexByte(text, '{')
	if at < 0 {
		return nil, false
	}
	var f failure
	if json.NewDecoder(strings.NewReader(text[at:])).Decode(&f) != nil || f.Type == "" {
		return nil, false
	}
	return &f, true
}

// systemHint is a suggestion of one of DuckDB's own catalog tables, which is
// what it offers when no table of the user's is similar.
var systemHint = regexp.MustCompile(`\n?Did you mean "(pg_|duckdb_|sqlite_|pragma_|information_schema|temp\.|system\.)[^"]*"\?`)

// userError returns err as it is shown to a user, with no position: the
// statement is ours.
func userError(err error) *protocol.UserError {
	return queryError(err, "", 0)
}

// queryError returns err as it is shown to a user, where the statement was the
// user's query after prefix bytes of ours.
func queryError(err error, query string, prefix int) *protocol.UserError {
	var u *protocol.UserError
	if errors.As(err, &u) {
		return u
	}
	f, ok := parseFailure(err)
	if !ok {
		return &protocol.UserError{Kind: kindInternal, Message: firstLine(err.Error())}
	}
	u = &protocol.UserError{Kind: kindSQL}
	if n, err := strconv.Atoi(f.Position); err == nil {
		u.Line, u.Column = lineColumn(query, n-prefix)
	}
	switch f.Type {
	case "Out of Memory":
		// The rest is advice on settings that are locked here.
		u.Kind, u.Message = kindMemory, "out of memory: "+firstLine(f.Message)
	case "INTERNAL", "FATAL":
		u.Kind, u.Message = kindInternal, "DuckDB failed: "+firstLine(f.Message)
	case "IO":
		u.Kind, u.Message = kindData, f.Message
	default:
		u.Message = f.Type + " Error: " + systemHint.ReplaceAllString(f.Message, "")
	}
	return u
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

// lineColumn returns the 1-based line, and the 1-based column in characters, of
// a byte offset; zeros if the offset is not in the query.
func lineColumn(query string, offset int) (line, column int) {
	if offset < 0 || offset > len(query) || query == "" {
		return 0, 0
	}
	before := query[:offset]
	line = strings.Count(before, "\n") + 1
	return line, utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:]) + 1
}
