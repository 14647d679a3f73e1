package policy

import (
	"fmt"
	"maps"
	"slices"

	"github.com/headgate/headgate/exec/spelling"
)

// People are the users and groups that the server's configuration knows at one
// moment. A nil *People knows nobody, and is asked by those who cannot know: a
// policy that is read on a checkout.
type People struct {
	users  map[string]User
	groups map[string]bool
}

// NewPeople returns the users, of which one may be listed more than once: with
// each of their keys.
func NewPeople(users []User) *People {
	p := &People{users: make(map[string]User), groups: make(map[string]bool)}
	for _, u := range users {
		known := p.users[u.Name]
		known.Name, known.Admin = u.Name, known.Admin || u.Admin
		for _, g := range u.Groups {
			p.groups[g] = true
			if !slices.Contains(known.Groups, g) {
				known.Groups = append(known.Groups, g)
			}
		}
		p.users[u.Name] = known
	}
	return p
}

// Users returns everybody, by name.
func (p *People) Users() []User {
	if p == nil {
		return nil
	}
	var all []User
	for _, name := range slices.Sorted(maps.Keys(p.users)) {
		all = append(all, p.users[name])
	}
	return all
}

// User returns somebody by name.
func (p *People) User(name string) (User, bool) {
	if p == nil {
		return User{}, false
	}
	u, ok := p.users[name]
	return u, ok
}

// ambiguous tells whether a name is both a user's and a group's.
func (p *People) ambiguous(name string) bool {
	if p == nil {
		return false
	}
	_, user := p.users[name]
	return user && p.groups[name]
}

// problem says what is wrong with a name in a policy, "" if nothing is.
func (p *People) problem(name string) string {
	if p == nil || name == "*" {
		return ""
	}
	_, user := p.users[name]
	switch {
	case p.ambiguous(name):
		return fmt.Sprintf("%q is both a user and a group, so it would hold for neither; the administrator has to rename one", name)
	case !user && !p.groups[name]:
		known := append(slices.Collect(maps.Keys(p.users)), slices.Collect(maps.Keys(p.groups))...)
		slices.Sort(known)
		hint := spelling.DidYouMean(name, known)
		if hint == "" {
			hint = "; an administrator adds users and groups to the server's authorized_keys"
		}
		return fmt.Sprintf("there is no user or group %q%s", name, hint)
	}
	return ""
}
