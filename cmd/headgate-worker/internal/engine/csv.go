package engine

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"regexp"
	"sort"
	"strings"

	"github.com/headgate/headgate/exec/protocol"
)

// csvBuffer is what DuckDB reads of a file at a time; its own 32 MB, several times for
// each thread, are not all on its account of memory.
const csvBuffer = 4 << 20

// csvOptions returns the arguments of read_csv. All rows decide the types: a sample
// would let the 20,481st row fail, or change the schema with the order of rows.
func (e *execution) csvOptions(ctx context.Context) (string, error) {
	options := []string{"", "union_by_name = true", "hive_partitioning = false", "sample_size = -1", fmt.Sprintf("buffer_size = %d", csvBuffer)}
	add := func(format string, args ...any) { options = append(options, fmt.Sprintf(format, args...)) }
	c := e.order.CSV
	if c == nil {
		c = &protocol.CSV{}
	}
	for _, path := range e.order.Files {
		if info, err := os.Stat(path); err == nil && info.Size() == 0 {
			return "", dataError("%s is empty: there are not even names of columns", path)
		}
	}
	if c.Delimiter != "" {
		add("delim = %s", literal(c.Delimiter))
	}
	if c.Quote != nil {
		add("quote = %s", literal(*c.Quote))
	}
	if c.Escape != nil {
		add("escape = %s", literal(*c.Escape))
	}
	if c.Header != nil {
		add("header = %t", *c.Header)
	}
	if c.Skip != nil {
		add("skip = %d", *c.Skip)
	}
	if c.Comment != "" {
		add("comment = %s", literal(c.Comment))
	}
	if len(c.Null) > 0 {
		add("nullstr = %s", literalList(c.Null))
	}
	if c.DateFormat != "" {
		add("dateformat = %s", literal(c.DateFormat))
	}
	if c.TimestampFormat != "" {
		add("timestampformat = %s", literal(c.TimestampFormat))
	}
	if c.DecimalComma {
		add("decimal_separator = ','")
	}
	switch c.Encoding {
	case "":
	case "utf-8", "utf-16", "latin-1":
		add("encoding = %s", literal(c.Encoding))
	default:
		return "", dataError("encoding %q: want utf-8, utf-16 or latin-1", c.Encoding)
	}
	names := make([]string, 0, len(c.Types))
	for name := range c.Types {
		names = append(names, name)
	}
	sort.Strings(names)
	types := make([]string, len(names))
	for i, name := range names {
		if _, err := e.db.parse(ctx, "SELECT CAST(NULL AS "+c.Types[name]+"\n) AS c"); err != nil {
			return "", noType(c.Types[name])
		}
		types[i] = literal(name) + ": " + literal(c.Types[name])
	}
	if len(types) > 0 {
		add("types = {%s}", strings.Join(types, ", "))
	}
	return strings.Join(options, ", "), nil
}

// csvError is DuckDB's account of a bad row, of which the first lines say what is wrong.
// The rest is advice on options that are not the user's, and all settings that it used.
var csvError = regexp.MustCompile(`(?s)CSV Error on Line: (\d+)\n(?:Original Line:[^\n]*\n)?(.*?)\n\s*(?:\n|Possible|Column )`)

// csvFailure says which line of which file cannot be read, and what to do about it.
func csvFailure(message string) (string, bool) {
	m := csvError.FindStringSubmatch(message)
	if m == nil {
		return "", false
	}
	line, what := m[1], strings.TrimSuffix(firstLine(strings.TrimSpace(m[2])), ".")
	file := ""
	if _, rest, ok := strings.Cut(message, "\n  file = "); ok {
		file = firstLine(rest) + ": "
	}
	switch {
	case strings.Contains(what, "not utf-8"):
		what = "it is not UTF-8: say what it is, with --csv-encoding latin-1 or utf-16"
	case strings.HasPrefix(what, "Error when converting column "):
		what = strings.TrimPrefix(what, "Error when converting ")
	}
	return fmt.Sprintf("%sline %s: %s", file, line, what), true
}

// raggedCSV explains why DuckDB took files for one column of text: it prefers that
// to a delimiter which one row has too many or too few of. name is the column's,
// which is then the whole header.
func raggedCSV(files []string, name string) error {
	at := strings.IndexAny(name, ",;|\t")
	if at < 0 {
		return nil
	}
	for _, path := range files {
		f, err := os.Open(path)
		if err != nil {
			return dataError("cannot read %q", path)
		}
		r := csv.NewReader(f)
		r.Comma = rune(name[at])
		r.LazyQuotes = true
		r.ReuseRecord = true
		fields := 0
		for err == nil {
			var record []string
			if record, err = r.Read(); err == nil {
				fields = len(record)
			} else if errors.Is(err, csv.ErrFieldCount) {
				f.Close()
				line, _ := r.FieldPos(0)
				return dataError("%s: line %d has %s, the lines before have %d", path, line, count(int64(len(record)), "field"), fields)
			}
		}
		f.Close()
	}
	return nil
}
