package plan

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/headgate/headgate/exec/spelling"
	"github.com/headgate/headgate/objects/table"
)

// bauplanSettings are those of a comment "-- bauplan: name=value" that say
// something here; refusedSettings those that cannot be followed, and why.
var (
	bauplanSettings = []string{"cache_strategy", "columns", "materialization_strategy", "name", "output_schema", "partitioned_by"}
	refusedSettings = map[string]string{
		"internet_access":  "functions have no network",
		"overwrite_filter": "OVERWRITE_PARTITIONS replaces the partitions (values of partitioned_by) that occur in the result",
	}
)

var bauplanSetting = regexp.MustCompile(`(?:^|\s)([A-Za-z_]+)\s*=\s*`)

// bauplanComments adds the settings of a project's SQL file to its header: lines
// of its leading comments that begin with "-- bauplan:". output_schema names a
// class of the project's Python files, which is returned.
func (b *builder) bauplanComments(f *code, h *header) (schema string, schemaLine int) {
	number := 0
	for line := range strings.SplitSeq(f.text, "\n") {
		number++
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		comment, ok := strings.CutPrefix(line, "--")
		if !ok {
			return schema, schemaLine
		}
		const mark = "bauplan:"
		comment = strings.TrimSpace(comment)
		if len(comment) < len(mark) || !strings.EqualFold(comment[:len(mark)], mark) {
			continue
		}
		settings := comment[len(mark):]
		found := bauplanSetting.FindAllStringSubmatchIndex(settings, -1)
		if len(found) == 0 || strings.TrimSpace(settings[:found[0][0]]) != "" {
			b.problem(f.Path, number, "%q is not a setting; write name=value", clip(strings.TrimSpace(settings)))
			continue
		}
		for i, at := range found {
			end := len(settings)
			if i+1 < len(found) {
				end = found[i+1][0]
			}
			name, value := settings[at[2]:at[3]], strings.TrimSpace(settings[at[1]:end])
			if name == "output_schema" && h.lines[name] == 0 {
				schema, schemaLine = unquote(value), number
			}
			b.bauplanSetting(f.Path, number, h, name, value)
		}
	}
	return schema, schemaLine
}

// projectModel reads a SQL model of a pipeline of Bauplan. Its name is the
// file's, and $name in it is a parameter.
func (b *builder) projectModel(f *code, index int) Model {
	h := b.header(f, modelSettings)
	schema, line := b.bauplanComments(f, &h)
	m := Model{Path: f.Path, Line: 1, Kind: KindSQL, Key: h.key, Name: h.name}
	if m.Name == "" {
		m.Name = strings.TrimSuffix(path.Base(f.Path), ".sql")
	}
	if err := table.ValidName(m.Name); err != nil {
		b.problem(f.Path, h.lines["name"], "%v", err)
	}
	var names []string
	f.text, names = withVariables(f.text)
	m.SQL = f.text
	if most := max(len(h.params), len(names)); most > maxNames {
		b.problem(f.Path, 1, "reads %d parameters, the limit is %d", most, maxNames)
		h.params, names = nil, nil
	}
	for i, name := range slices.Concat(h.params, names) {
		at := max(1, h.lines["params"])
		if i >= len(h.params) {
			at = lineOf(f.text, name)
		}
		p, secret := b.paramOf(f, at, name, name)
		switch {
		case secret:
			b.problem(f.Path, at, "reads $%s, which is a secret: those are for Python models", clip(name))
		case p.Type == "":
			b.unknownVariable(f, at, "the query", name)
		}
		if !slices.ContainsFunc(m.Params, func(o Param) bool { return strings.EqualFold(o.Name, name) }) {
			m.Params = append(m.Params, p)
		}
	}
	_, timeout, strategy, _ := f.project.withDefaults("", h.rest["timeout"], h.rest["strategy"], nil)
	m.Strategy = b.strategy(f.Path, h.lines["strategy"], strategy)
	m.PartitionedBy = b.partitionedBy(f.Path, h.lines["partitioned_by"], m.Strategy, h.partitionedBy)
	b.checkKey(f.Path, h.lines["key"], m.Key)
	m.Resources = b.resources(f.Path, h.lines["memory"], h.rest["memory"], h.lines["timeout"], timeout)
	m.Columns, m.Types = h.columns, h.types
	b.checkContract(f.Path, h.lines["columns"], m.Columns)
	if schema != "" {
		if len(h.columns) > 0 {
			b.problem(f.Path, line, "columns are declared twice: by columns and by output_schema")
		}
		b.awaiting = append(b.awaiting, schemaUse{schemaID{f.project, schema}, index, line})
	}
	return m
}

func (b *builder) bauplanSetting(file string, line int, h *header, name, value string) {
	values := settingValues(value)
	// The same thing by its name here, so that it is not said in both ways.
	own := map[string]string{"materialization_strategy": "strategy"}[name]
	if own == "" {
		own = name
	}
	reason, refused := refusedSettings[name]
	switch {
	case refused:
		if !strings.EqualFold(value, "false") && !strings.EqualFold(value, "none") {
			b.problem(file, line, "%s is not supported: %s", name, reason)
		}
	case !slices.Contains(bauplanSettings, name):
		b.problem(file, line, "unknown setting %q%s", clip(name), spelling.MeantOr(name, bauplanSettings))
	case h.lines[own] != 0:
		b.problem(file, line, "setting %s is given twice (first on line %d)", name, h.lines[own])
	case len(values) == 0:
		b.problem(file, line, "setting %s has no value", name)
	case name == "columns":
		if !slices.Equal(values, []string{"*"}) {
			h.columns = values
		}
	case name == "partitioned_by":
		h.partitionedBy = values
	case len(values) > 1:
		b.problem(file, line, "setting %s takes one value", name)
	case name == "cache_strategy":
		if !strings.EqualFold(values[0], "default") {
			b.problem(file, line, "cache_strategy %s is not supported: results are kept by content; a push with -o no-cache runs everything again", clip(values[0]))
		}
	case name == "name":
		h.name = values[0]
	case name == "materialization_strategy":
		h.rest["strategy"] = values[0]
	}
	if h.lines[own] == 0 {
		h.lines[own] = line
	}
}

// settingValues returns the items of "a", "'a, b'", "[a, 'b']" or "hour(a), b".
func settingValues(text string) []string {
	text = unquote(text)
	if strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]") {
		text = text[1 : len(text)-1]
	}
	var values []string
	depth, from := 0, 0
	add := func(to int) {
		if v := unquote(strings.TrimSpace(text[from:to])); v != "" {
			values = append(values, v)
		}
		from = to + 1
	}
	for i := range len(text) {
		switch c := text[i]; {
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ',' && depth == 0:
			add(i)
		}
	}
	add(len(text))
	return values
}

func unquote(s string) string {
	if n := len(s); n >= 2 && (s[0] == '\'' || s[0] == '"') && s[n-1] == s[0] && strings.IndexByte(s[1:n-1], s[0]) < 0 {
		return s[1 : n-1]
	}
	return s
}

// withVariables returns SQL in which each parameter $name is read as DuckDB's
// variable of that name, which a function is given as a value, and the names in
// order of appearance. Literals, quoted names and comments stay as they are.
func withVariables(sql string) (string, []string) {
	if !strings.Contains(sql, "$") {
		return sql, nil
	}
	var out strings.Builder
	var names []string
	known := make(map[string]bool)
	for at := 0; at < len(sql); {
		end := at + 1
		switch c := sql[at]; {
		case c == '\'' || c == '"':
			escapes := c == '\'' && at > 0 && (sql[at-1] == 'e' || sql[at-1] == 'E') && (at < 2 || !wordByte(lower(sql[at-2])))
			end = afterQuote(sql, at, escapes)
		case strings.HasPrefix(sql[at:], "--"):
			if n := strings.IndexByte(sql[at:], '\n'); n >= 0 {
				end = at + n
			} else {
				end = len(sql)
			}
		case strings.HasPrefix(sql[at:], "/*"):
			if n := strings.Index(sql[at+2:], "*/"); n >= 0 {
				end = at + 2 + n + 2
			} else {
				end = len(sql)
			}
		case c == '$' && (at == 0 || !wordByte(lower(sql[at-1]))):
			for end < len(sql) && wordByte(lower(sql[end])) {
				end++
			}
			name := sql[at+1 : end]
			if end < len(sql) && sql[end] == '$' { // $tag$ ... $tag$ is a literal
				tag := sql[at : end+1]
				if n := strings.Index(sql[end+1:], tag); n >= 0 {
					end = end + 1 + n + len(tag)
				} else {
					end = len(sql)
				}
			} else if name != "" && (name[0] < '0' || name[0] > '9') {
				out.WriteString("getvariable('" + name + "')")
				if !known[name] {
					known[name] = true
					names = append(names, name)
				}
				at = end
				continue
			}
		}
		out.WriteString(sql[at:end])
		at = end
	}
	return out.String(), names
}

// afterQuote returns where the literal or quoted name that begins at at has ended.
func afterQuote(sql string, at int, escapes bool) int {
	quote := sql[at]
	for at++; at < len(sql); at++ {
		switch {
		case escapes && sql[at] == '\\':
			at++
		case sql[at] != quote:
		case at+1 < len(sql) && sql[at+1] == quote:
			at++
		default:
			return at + 1
		}
	}
	return len(sql)
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
