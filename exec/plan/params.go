package plan

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/headgate/headgate/exec/spelling"
)

// The types of parameters. One of no declared type is a number, a boolean or
// null if it reads as one in JSON, else a text.
const (
	ParamStr       = "str"
	ParamInt       = "int"       // 64 bits
	ParamFloat     = "float"     // 64 bits, finite
	ParamBool      = "bool"      // true or false
	ParamDate      = "date"      // 2001-01-31
	ParamTimestamp = "timestamp" // microseconds, without a time zone: UTC
)

// ParamTypes lists the types that a parameter can be declared with.
var ParamTypes = []string{ParamStr, ParamInt, ParamFloat, ParamBool, ParamDate, ParamTimestamp}

// maxParam bounds a parameter's value, in bytes: the lineage repeats it.
const maxParam = 4096

// Parameter is what the settings say of a parameter.
type Parameter struct {
	Type    string // one of ParamTypes
	Default any    // as ParseParam returns it; nil if there is none
	Line    int
}

var (
	paramName  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,99}$`)
	integer    = regexp.MustCompile(`^[+-]?[0-9]{1,100}$`)
	decimal    = regexp.MustCompile(`^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$`)
	timeOfDay  = []string{"2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"}
	withOffset = []string{"2006-01-02T15:04:05Z07:00", "2006-01-02T15:04Z07:00"}
)

// The layouts of canonical dates and timestamps.
const (
	dateLayout      = "2006-01-02"
	timestampLayout = "2006-01-02T15:04:05.999999"
)

// ValidParamName reports whether a parameter that is declared with a type may
// have this name.
func ValidParamName(name string) bool { return paramName.MatchString(name) }

// ParseParam reads the text of a parameter's value. What it returns has one JSON
// form for each value, so that equal values are equal in a digest: a string, an
// int64, a bool, nil, or a json.Number for a float (which always has a point or
// an exponent) and for an integer beyond 64 bits. Dates and timestamps are
// strings; a timestamp with an offset becomes UTC. typ "" guesses the type.
func ParseParam(typ, text string) (any, error) {
	bad := func(want string) (any, error) {
		return nil, fmt.Errorf("%q is not %s", clip(text), want)
	}
	switch {
	case len(text) > maxParam:
		return nil, fmt.Errorf("the value has %d bytes, the limit is %d", len(text), maxParam)
	case !utf8.ValidString(text) || strings.ContainsRune(text, 0):
		return nil, fmt.Errorf("the value is not UTF-8 text")
	}
	switch typ {
	case "":
		return guessParam(text), nil
	case ParamStr:
		return text, nil
	case ParamInt:
		if !integer.MatchString(text) {
			return bad("an int such as 42")
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return bad("an int of 64 bits")
		}
		return n, nil
	case ParamFloat:
		if !decimal.MatchString(text) {
			return bad("a float such as 0.5")
		}
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsInf(f, 0) {
			return bad("a float of 64 bits")
		}
		return floatParam(f), nil
	case ParamBool:
		switch strings.ToLower(text) {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
		return bad("a bool: true or false")
	case ParamDate:
		t, err := time.Parse(dateLayout, text)
		if err != nil || t.Year() < 1 {
			return bad("a date such as 2001-01-31")
		}
		return text, nil
	case ParamTimestamp:
		if t, ok := parseTimestamp(text); ok {
			return t.Format(timestampLayout), nil
		}
		return bad("a timestamp such as 2001-01-31T12:00:00 (of at most microseconds)")
	}
	return nil, fmt.Errorf("there is no parameter type %q%s", clip(typ), spelling.MeantOr(typ, ParamTypes))
}

func parseTimestamp(text string) (time.Time, bool) {
	if len(text) > len(dateLayout) && text[len(dateLayout)] == ' ' {
		text = text[:len(dateLayout)] + "T" + text[len(dateLayout)+1:]
	}
	for _, layout := range slices.Concat(timeOfDay, withOffset) {
		// time.Parse takes a comma for the point of the seconds; nobody else does.
		t, err := time.Parse(layout, text)
		if err == nil && !strings.Contains(text, ",") {
			t = t.UTC()
			return t, t.Nanosecond()%1000 == 0 && t.Year() >= 1 && t.Year() <= 9999
		}
	}
	return time.Time{}, false
}

// floatParam writes a float so that it does not read as an integer.
func floatParam(f float64) json.Number {
	if f == 0 {
		f = 0 // there is one zero
	}
	text := strconv.FormatFloat(f, 'g', -1, 64)
	if !strings.ContainsAny(text, ".e") {
		text += ".0"
	}
	return json.Number(text)
}

// jsonNumber is what JSON calls a number, which has no leading zeros: 007 is a name.
var jsonNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]{0,99})(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)

// guessParam reads a value of no declared type: "-o param.day=2001-01-01" and
// "-o param.n=3" need no quotes.
func guessParam(text string) any {
	switch {
	case text == "null":
		return nil
	case text == "true", text == "false":
		return text == "true"
	case !jsonNumber.MatchString(text):
		return text
	case strings.ContainsAny(text, ".eE"):
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return text
		}
		return floatParam(f)
	}
	n, _ := new(big.Int).SetString(text, 10) // digits only
	if n.IsInt64() {
		return n.Int64()
	}
	return json.Number(n.String())
}

// ParamText returns a text that ParseParam reads as v, a value that it returned
// or one that was read from that value's JSON.
func ParamText(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case string:
		return v
	}
	return fmt.Sprint(v)
}

// param returns a function's parameter with what the settings say of it.
func (b *builder) param(file string, line int, argument, name string) Param {
	p := Param{Param: argument, Name: name}
	if declared, ok := b.settings.Parameters[name]; ok {
		if !slices.Contains(ParamTypes, declared.Type) {
			b.problem(file, line, "parameter %q is declared with the type %q%s", clip(name), clip(declared.Type), spelling.MeantOr(declared.Type, ParamTypes))
		}
		p.Type, p.Default = declared.Type, declared.Default
	}
	return p
}

// paramOf returns a function's parameter with what the pipeline that it is in, or
// else the settings, say of it. secret says that it is one of the lake's secrets.
func (b *builder) paramOf(f *code, line int, argument, name string) (p Param, secret bool) {
	if f.project == nil {
		return b.param(f.Path, line, argument, name), false
	}
	if f.project.secrets[name] {
		return Param{Param: argument, Name: name}, true
	}
	if declared, ok := f.project.params[name]; ok {
		return Param{Param: argument, Name: name, Type: declared.Type, Default: declared.Default}, false
	}
	return b.param(f.Path, line, argument, name), false
}

// variable is the argument of a parameter that a function's inputs are filtered
// by: it is a value for the filter, not for the function.
func variable(name string) string { return "$" + name }

// IsVariable reports whether a parameter is one of filters only, which the
// function does not receive.
func (p Param) IsVariable() bool { return strings.HasPrefix(p.Param, "$") }

// filtered returns the filter of an input as SQL, and adds the parameters that it
// reads ("day = $day") to those of the function. names are those parameters.
func (b *builder) filtered(f *code, line int, filter string, params []Param) (sql string, names []string, all []Param) {
	sql, names = withVariables(filter)
	if len(names) > maxNames {
		b.problem(f.Path, line, "a filter reads %d variables, the limit is %d", len(names), maxNames)
		return sql, nil, params
	}
	for _, name := range names {
		p, secret := b.paramOf(f, line, variable(name), name)
		switch {
		case secret:
			b.problem(f.Path, line, "a filter reads $%s, which is a secret", clip(name))
		case p.Type == "":
			b.unknownVariable(f, line, "a filter", name)
		case !slices.ContainsFunc(params, func(o Param) bool { return o.Param == p.Param }):
			params = append(params, p)
		}
	}
	return sql, names, params
}

func (b *builder) unknownVariable(f *code, line int, who, name string) {
	if b.enough() {
		b.more++
		return
	}
	known := slices.Collect(maps.Keys(b.settings.Parameters))
	if f.project != nil {
		known = slices.AppendSeq(known, maps.Keys(f.project.params))
	}
	slices.Sort(known)
	next := spelling.DidYouMean(name, slices.Compact(known))
	if next == "" {
		next = "; declare it in parameters of headgate.yaml"
	}
	b.problem(f.Path, line, "%s reads $%s, but there is no parameter of that name%s", who, clip(name), next)
}

// sqlParams returns the parameters that a SQL file's header lists.
func (b *builder) sqlParams(file string, line int, names []string) []Param {
	if !b.distinct(file, line, "params names", names, maxNames) {
		return nil
	}
	var params []Param
	for _, name := range names {
		if !ValidParamName(name) {
			b.problem(file, line, "params: %q is not the name of a parameter", clip(name))
			continue
		}
		params = append(params, b.param(file, line, name, name))
	}
	return params
}

// checkVariables refuses a variable that no parameter gives a value: DuckDB would
// take it for NULL.
func (b *builder) checkVariables(f *code, params []Param, used []string) {
	if len(used) > maxNames {
		b.problem(f.Path, 1, "reads %d variables, the limit is %d", len(used), maxNames)
		return
	}
	names := make([]string, len(params))
	for i, p := range params {
		names[i] = p.Name
	}
	for _, v := range used {
		if slices.ContainsFunc(names, func(s string) bool { return strings.EqualFold(s, v) }) {
			continue
		}
		if b.enough() {
			b.more++
			continue
		}
		if !f.mayModel() {
			b.problem(f.Path, lineOf(f.text, v), "reads variable %q; what holds of the data cannot depend on a push option", clip(v))
			continue
		}
		b.problem(f.Path, lineOf(f.text, v), "reads variable %q, which the file does not declare; add: -- headgate: params=[%s]", clip(v), clip(v))
	}
}
