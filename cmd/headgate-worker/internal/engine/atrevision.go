package engine

import (
	"context"
	"errors"
	"regexp"
	"sort"
	"strings"

	"github.com/headgate/headgate/exec/protocol"
)

// ofRevision matches a name that means a table at another revision: "flights@v1",
// "ns.flights@HEAD~3". What stands before the @ is a table's name, so no file's path
// that starts with a directory or a protocol is one.
var ofRevision = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)?@`)

// bareRevision matches a revision that needs no quotes in SQL: ref names, oids, and
// git's suffixes. What is in braces may be any words ("main@{2 days ago}").
var bareRevision = regexp.MustCompile(`^(?:[A-Za-z0-9_./^~-]|@\{[^}"'\n]*\}|@)+`)

// comments end a bare revision.
var comments = regexp.MustCompile(`--|/\*`)

// span is where a name that is to be quoted stands in a query.
type span struct{ start, end int }

// parseQuestion parses a query that a person asks: unlike a model's, its tables
// may be of other revisions, and flights@v1 needs no quotes. SQL has no operator @
// between two names, so what has one does not parse; only then is a second parse
// tried, with quotes, and no query that is valid as it is changes its meaning.
func (db *database) parseQuestion(ctx context.Context, sql string) (*statement, error) {
	st, err := db.parse(ctx, sql)
	var u *protocol.UserError
	if err == nil || !errors.As(err, &u) || u.Kind != kindSQL {
		return st, err
	}
	names := bareNames(sql)
	if len(names) == 0 {
		return nil, err
	}
	quoted, marks := quoteSpans(sql, names)
	again, err2 := db.parse(ctx, quoted)
	if err2 != nil {
		return nil, unshift(err2, quoted, marks)
	}
	again.inserted = marks
	return again, nil
}

// bareNames finds name@revision where a query can name a table.
func bareNames(sql string) []span {
	var found []span
	tokens := scan(sql)
	for i, t := range tokens {
		if t.text != "@" || i == 0 || t.start != tokens[i-1].end || !isWord(sql[t.start-1]) {
			continue
		}
		first := i - 1 // of the name's segments, ns.flights
		for first >= 2 && tokens[first-1].text == "." && tokens[first-1].start == tokens[first-2].end && tokens[first].start == tokens[first-1].end {
			first -= 2
		}
		if first == 0 || !mayPrecedeTable[tokens[first-1].text] {
			continue
		}
		if n := len(found); n > 0 && t.start < found[n-1].end {
			continue // the @ of main@{yesterday}
		}
		rev := bareRevision.FindString(sql[t.end:])
		// One byte more: the * of a comment is no part of a revision.
		if at := comments.FindStringIndex(sql[t.end:min(t.end+len(rev)+1, len(sql))]); at != nil {
			rev = rev[:at[0]]
		}
		if rev != "" {
			// Only the last segment is quoted: the ones before are schemas.
			found = append(found, span{tokens[i-1].start, t.end + len(rev)})
		}
	}
	return found
}

// mayPrecedeTable is what stands before a table in a FROM clause, and before
// DESCRIBE's and SUMMARIZE's.
var mayPrecedeTable = map[string]bool{
	"FROM": true, "JOIN": true, ",": true, "(": true, "TABLE": true,
	"DESCRIBE": true, "SUMMARIZE": true, "SHOW": true, "PIVOT": true, "UNPIVOT": true,
}

// quoteSpans puts quotes around parts of a query; marks are their offsets in it.
func quoteSpans(sql string, names []span) (quoted string, marks []int) {
	var b strings.Builder
	at := 0
	for _, n := range names {
		b.WriteString(sql[at:n.start])
		marks = append(marks, b.Len())
		b.WriteString(`"` + sql[n.start:n.end] + `"`)
		marks = append(marks, b.Len()-1)
		at = n.end
	}
	b.WriteString(sql[at:])
	return b.String(), marks
}

// unshift moves an error's column in a query with inserted quotes to where it is
// in the user's. Quotes add no lines.
func unshift(err error, quoted string, marks []int) error {
	var u *protocol.UserError
	if len(marks) == 0 || !errors.As(err, &u) || u.Line == 0 {
		return err
	}
	fixed := *u
	for _, m := range marks {
		line, column := lineColumn(quoted, m)
		if line == u.Line && column < u.Column {
			fixed.Column--
		}
	}
	return &fixed
}

// revisionViews lets a query write "ns.flights@v1" as one name as well as two.
func (db *database) revisionViews(ctx context.Context, inputs []protocol.Table) error {
	var names []string
	for _, t := range inputs {
		if ofRevision.MatchString(t.Name) && strings.Contains(t.Name[:strings.IndexByte(t.Name, '@')], ".") {
			names = append(names, t.Name)
		}
	}
	sort.Strings(names)
	for _, name := range names {
		schema, rest, _ := strings.Cut(name, ".")
		target := "memory.main." + identifier(name)
		if err := db.exec(ctx, "CREATE VIEW "+target+" AS FROM memory."+identifier(schema)+"."+identifier(rest)); err != nil {
			return err
		}
	}
	return nil
}

// tableSegments splits the name of an input. Dots behind an @ are the revision's.
func tableSegments(name string) []string {
	before, rev, ok := strings.Cut(name, "@")
	segments := strings.Split(before, ".")
	if ok {
		segments[len(segments)-1] += "@" + rev
	}
	return segments
}
