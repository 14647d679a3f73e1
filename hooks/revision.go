package hooks

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/refs"
)

// Bounds of a revision. Each step reads a commit.
const (
	maxRevision = 1 << 10
	maxSteps    = 100_000
	maxTagDepth = 20
	maxReflog   = 10_000
)

// resolveCommit returns the commit that a user names, as gitrevisions(7) has it: a
// ref ("main", "v1.0", "refs/scratch/<id>"), the oid of a commit or its first digits,
// "HEAD" or "@" for main, and behind them "~<n>", "^<n>", "^{commit}", "^{}",
// "@{<n>}" and "@{<time>}" by the ref's log here on the server. "" is main.
// Errors for the asker are *QueryError.
func resolveCommit(ctx context.Context, l *lake.Lake, text string) (objects.OID, error) {
	if len(text) > maxRevision {
		return objects.OID{}, &QueryError{fmt.Sprintf("a revision of %d bytes; %d is the most", len(text), maxRevision)}
	}
	at := len(text)
	for _, end := range []string{"~", "^", "@{"} {
		if i := strings.Index(text, end); i >= 0 {
			at = min(at, i)
		}
	}
	name, suffix := text[:at], text[at:]
	if strings.ContainsAny(name, ": ") || strings.Contains(name, "..") {
		return objects.OID{}, &QueryError{fmt.Sprintf("%q is not one commit: name a branch, a tag, an oid, or one of them with ~<n> or ^<n>", text)}
	}
	commit, suffix, err := resolveName(ctx, l, name, suffix)
	if err != nil {
		return objects.OID{}, err
	}
	steps := 0
	for suffix != "" {
		var step string
		step, suffix = cutStep(suffix)
		if commit, err = takeStep(ctx, l, text, step, commit, &steps); err != nil {
			return objects.OID{}, err
		}
	}
	return peel(ctx, l, text, commit)
}

// resolveName resolves what stands before all steps, with a ref's "@{...}".
func resolveName(ctx context.Context, l *lake.Lake, name, suffix string) (oid objects.OID, rest string, err error) {
	if name == "" || name == "@" || name == "HEAD" {
		name = "main"
	}
	if spec, rest, ok := cutBraces(suffix, "@{"); ok {
		ref, _, err := findRef(ctx, l, name)
		if err != nil {
			return objects.OID{}, "", err
		}
		oid, err := refAt(ctx, l, ref, spec, time.Now())
		return oid, rest, err
	}
	if oid, err := objects.ParseOID(name); err == nil {
		return oid, suffix, nil
	}
	_, oid, err = findRef(ctx, l, name)
	var unknown *QueryError
	if !errors.As(err, &unknown) {
		return oid, suffix, err
	}
	oid, aerr := l.Objects.FindAbbreviated(ctx, name, objects.Commit)
	var several *objects.AmbiguousError
	switch {
	case errors.As(aerr, &several):
		return objects.OID{}, "", &QueryError{several.Error()}
	case errors.Is(aerr, objects.ErrNotFound):
		return objects.OID{}, "", err
	}
	return oid, suffix, aerr
}

// findRef tries a name as git's rev-parse does: as it is, as a branch, as a tag.
func findRef(ctx context.Context, l *lake.Lake, text string) (refs.Name, objects.OID, error) {
	for _, prefix := range []string{"", headsPrefix, tagsPrefix, "refs/"} {
		name, err := refs.Parse(prefix + text)
		if err != nil {
			continue
		}
		oid, err := l.Refs.Get(ctx, name)
		if err == nil {
			return name, oid, nil
		}
		if !errors.Is(err, refs.ErrNotFound) {
			return "", objects.OID{}, err
		}
	}
	return "", objects.OID{}, &QueryError{fmt.Sprintf("there is no branch, tag, ref or commit %q in lake %s", text, l.Name)}
}

// cutBraces cuts "{...}" behind open off the front of s.
func cutBraces(s, open string) (inside, rest string, ok bool) {
	s, ok = strings.CutPrefix(s, open)
	if !ok {
		return "", "", false
	}
	return strings.Cut(s, "}")
}

// cutStep cuts "~3", "^2" or "^{commit}" off the front of a suffix.
func cutStep(s string) (step, rest string) {
	if inside, rest, ok := cutBraces(s, "^{"); ok {
		return "^{" + inside + "}", rest
	}
	n := 1
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return s[:n], s[n:]
}

// takeStep follows one step from an object; steps counts the commits that were read.
func takeStep(ctx context.Context, l *lake.Lake, text, step string, from objects.OID, steps *int) (objects.OID, error) {
	commit, err := peel(ctx, l, text, from)
	if err != nil || step == "^{}" || step == "^{commit}" || step == "^0" {
		return commit, err
	}
	n := 1
	if len(step) > 1 {
		if n, err = strconv.Atoi(step[1:]); err != nil {
			n = -1
		}
	}
	if n < 0 || step[0] != '~' && step[0] != '^' {
		return objects.OID{}, &QueryError{fmt.Sprintf("%q in revision %q is not known here: the server follows ~<n>, ^<n>, ^{commit} and a ref's @{<n>} and @{<time>}", step, text)}
	}
	parent, times := 0, n
	if step[0] == '^' {
		parent, times = n-1, 1
	}
	for range times {
		if *steps++; *steps > maxSteps {
			return objects.OID{}, &QueryError{fmt.Sprintf("revision %q goes back more than %d commits; name the commit by its oid", text, maxSteps)}
		}
		c, err := readCommit(ctx, l.Objects, commit)
		if err != nil {
			return objects.OID{}, err
		}
		if parent >= len(c.Parents) {
			return objects.OID{}, &QueryError{fmt.Sprintf("revision %q: commit %s has %d parent(s)", text, short(commit), len(c.Parents))}
		}
		commit = c.Parents[parent]
	}
	return commit, nil
}

// peel follows annotated tags to a commit.
func peel(ctx context.Context, l *lake.Lake, text string, oid objects.OID) (objects.OID, error) {
	for range maxTagDepth {
		info, err := l.Objects.Stat(ctx, oid)
		if errors.Is(err, objects.ErrNotFound) {
			return objects.OID{}, &QueryError{fmt.Sprintf("there is no commit %s", oid)}
		}
		if err != nil {
			return objects.OID{}, err
		}
		if info.Type == objects.Commit {
			return oid, nil
		}
		if info.Type != objects.Tag {
			break
		}
		data, err := objects.ReadAll(ctx, l.Objects, oid, objects.Tag, gitobj.MaxBytes)
		if err != nil {
			return objects.OID{}, err
		}
		tag, err := gitobj.ParseTag(data)
		if err != nil {
			return objects.OID{}, err
		}
		oid = tag.Object
	}
	return objects.OID{}, &QueryError{fmt.Sprintf("%q is not a commit", text)}
}

// refAt returns where a ref was by its log: "2" is two moves ago, a time is what it
// was then.
func refAt(ctx context.Context, l *lake.Lake, name refs.Name, spec string, now time.Time) (objects.OID, error) {
	moves, err := l.Refs.Log(ctx, name, maxReflog)
	if err != nil {
		return objects.OID{}, err
	}
	if n, err := strconv.Atoi(spec); err == nil && n >= 0 {
		switch {
		case n < len(moves):
			return existed(name, spec, moves[n].New)
		case n == len(moves) && n > 0:
			return existed(name, spec, moves[n-1].Old)
		}
		return objects.OID{}, &QueryError{fmt.Sprintf("the log of %s has only %d move(s)", name, len(moves))}
	}
	when, err := parseTime(spec, now)
	if err != nil {
		return objects.OID{}, &QueryError{fmt.Sprintf("@{%s}: %v", spec, err)}
	}
	for _, m := range moves { // the newest first
		if !m.When.After(when) {
			return existed(name, spec, m.New)
		}
	}
	return objects.OID{}, &QueryError{fmt.Sprintf("the log of %s does not go back to %s", name, when.UTC().Format(time.RFC3339))}
}

func existed(name refs.Name, spec string, oid objects.OID) (objects.OID, error) {
	if oid.IsZero() {
		return objects.OID{}, &QueryError{fmt.Sprintf("%s was not there at @{%s}", name, spec)}
	}
	return oid, nil
}

// spans are the units of "3 days ago".
var spans = map[string]time.Duration{
	"second": time.Second, "minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour, "week": 7 * 24 * time.Hour,
}

// parseTime reads the times that need no guess, of all that git takes: "yesterday",
// "3 days ago", a date, a date with a time, in UTC unless it says otherwise.
func parseTime(text string, now time.Time) (time.Time, error) {
	words := strings.FieldsFunc(strings.ToLower(text), func(c rune) bool { return c == ' ' || c == '.' })
	switch {
	case len(words) == 1 && words[0] == "now":
		return now, nil
	case len(words) == 1 && words[0] == "yesterday":
		return now.Add(-spans["day"]), nil
	case len(words) == 3 && words[2] == "ago":
		n, err := strconv.Atoi(words[0])
		unit, ok := spans[strings.TrimSuffix(words[1], "s")]
		if err == nil && ok && n >= 0 && n < 1<<31 {
			if ago := time.Duration(n) * unit; ago/unit == time.Duration(n) {
				return now.Add(-ago), nil
			}
		}
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02T15:04"} {
		if t, err := time.Parse(layout, strings.ToUpper(text)); err == nil {
			return t, nil
		}
	}
	if t, err := time.Parse(time.DateOnly, text); err == nil {
		return t, nil
	}
	return time.Time{}, errors.New("want a number of moves, yesterday, <n> days ago, or a time such as 2026-11-24 or 2026-11-24T15:00:00Z")
}
