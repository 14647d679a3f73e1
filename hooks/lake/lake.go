// Package lake is one repository on the server: a directory with its objects,
// its refs, its action cache, its run journal and its secrets, and the directory of all such
// lakes. It does not know what is pushed to them or by whom.
package lake

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/refs"
)

// Name is a valid lake name such as "flights" or "team/flights". ParseName makes one.
type Name string

// maxName bounds a name, in bytes; the file system's limit is 255 after escaping.
const maxName = 100

var segment = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*$`)

// NameError says why a text is not a lake name.
type NameError struct{ Text, Reason string }

func (e *NameError) Error() string {
	return fmt.Sprintf("%q is not a lake name: %s; use one to three words of a-z, 0-9, '.', '_', '-', joined by '/', such as flights or team/flights", e.Text, e.Reason)
}

// ParseName reads a lake name as it stands in a URL's path: one leading slash
// and a ".git" suffix are allowed and dropped.
func ParseName(text string) (Name, error) {
	bad := func(reason string) (Name, error) { return "", &NameError{Text: text, Reason: reason} }
	s := strings.TrimSuffix(strings.TrimPrefix(text, "/"), ".git")
	if s == "" {
		return bad("it is empty")
	}
	if len(s) > maxName {
		return bad(fmt.Sprintf("it is longer than %d bytes", maxName))
	}
	parts := strings.Split(s, "/")
	if len(parts) > 3 {
		return bad("it has more than three parts")
	}
	for _, p := range parts {
		switch {
		case !segment.MatchString(p):
			return bad(fmt.Sprintf("part %q is not allowed", p))
		case strings.Contains(p, ".."), strings.HasSuffix(p, "."), strings.HasSuffix(p, ".git"), strings.HasSuffix(p, ".lock"):
			return bad(fmt.Sprintf("part %q is not allowed", p))
		}
	}
	return Name(s), nil
}

// Lake is an open lake. It stays open until the Directory is closed or the lake
// removed, and is safe for concurrent use.
type Lake struct {
	Name    Name
	Objects *objects.Store
	Refs    refs.Store
	Actions *exec.Cache
	Runs    *Journal
	Secrets *Secrets

	upkeep *upkeep
}

// close closes what is open; a nil part was never opened.
func (l *Lake) close() error {
	var errs []error
	if l.upkeep != nil {
		l.upkeep.end()
	}
	if l.Secrets != nil {
		errs = append(errs, l.Secrets.Close())
	}
	if l.Runs != nil {
		errs = append(errs, l.Runs.Close())
	}
	if l.Actions != nil {
		errs = append(errs, l.Actions.Close())
	}
	if l.Refs != nil {
		errs = append(errs, l.Refs.Close())
	}
	if l.Objects != nil {
		errs = append(errs, l.Objects.Close())
	}
	return errors.Join(errs...)
}
