package hooks

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// options are the push options of one push (git push -o).
type options struct {
	run     bool // run the pipeline on an ungated branch too
	dryRun  bool // everything but the publication
	noCache bool // run every model and verifier
	strict  bool // a warning refuses

	target   string // of an approval: the branch that it is for; "" is main
	withdraw bool   // of an approval: take it back

	params map[string]string // texts of headgate.Parameter's values, by name
}

var knownOptions = []string{"run", "dry-run", "no-cache", "strict", "param.<name>=<value>", "target=<branch>", "withdraw"}

// OptionError says that a push option is not one of the server's.
type OptionError struct {
	Option string
	Reason string
}

func (e *OptionError) Error() string {
	return fmt.Sprintf("push option %q: %s; known are: %s", e.Option, e.Reason, strings.Join(knownOptions, ", "))
}

// parseOptions reads push options. An unknown one refuses the push: a mistyped
// "dry-run" must not publish.
func parseOptions(texts []string) (options, error) {
	var o options
	flags := map[string]*bool{"run": &o.run, "dry-run": &o.dryRun, "no-cache": &o.noCache, "strict": &o.strict, "withdraw": &o.withdraw}
	for _, text := range texts {
		name, value, hasValue := strings.Cut(text, "=")
		if param, ok := strings.CutPrefix(name, "param."); ok {
			if !hasValue || param == "" {
				return o, &OptionError{text, "want param.<name>=<value>"}
			}
			if o.params == nil {
				o.params = make(map[string]string)
			}
			if _, twice := o.params[param]; twice {
				return o, &OptionError{text, "the parameter is given twice"}
			}
			o.params[param] = value
			continue
		}
		if name == "target" {
			if value == "" || o.target != "" {
				return o, &OptionError{text, "want target=<branch>, once"}
			}
			o.target = value
			continue
		}
		flag, ok := flags[name]
		switch {
		case name == "async":
			return o, &OptionError{text, "this server runs the gate while you wait; push without it"}
		case !ok:
			return o, &OptionError{text, "unknown"}
		case hasValue:
			return o, &OptionError{text, "takes no value"}
		}
		*flag = true
	}
	return o, nil
}

// needsRun names an option that says something to a run and nothing to a push
// without one; "" if there is none. Like an unknown option it refuses: whoever
// gives it believes that something is run.
func (o options) needsRun() string {
	switch {
	case o.noCache:
		return "no-cache"
	case o.strict:
		return "strict"
	case len(o.params) > 0:
		return "param." + slices.Min(slices.Collect(maps.Keys(o.params)))
	}
	return ""
}
