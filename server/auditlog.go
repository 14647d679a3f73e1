package server

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"strings"

	"github.com/headgate/headgate/hooks"
	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/refs"
)

// AuditLog keeps the audit logs of lakes.
type AuditLog interface {
	// Record is durable when it returns.
	Record(ctx context.Context, l *lake.Lake, who hooks.Identity, what, on, decision, why string) error
	// AuditEvents calls fn for each event, the newest first, until fn fails.
	AuditEvents(ctx context.Context, l *lake.Lake, fn func(hooks.AuditEvent) error) error
}

// auditRefs are for administrators only: they hold the addresses of all users.
const auditRefs = "refs/audit/"

// done puts an administrative act into a lake's audit log, or for a nil lake into
// the server's own. It has happened, so a failure is the log's alone.
func (c *session) done(l *lake.Lake, what, on string) {
	c.audited(l, what, on, hooks.DecisionAccepted, "")
}

func (c *session) audited(l *lake.Lake, what, on, decision, why string) {
	if l == nil {
		l = c.cfg.House
	}
	if c.cfg.Audit == nil || l == nil {
		return
	}
	if err := c.cfg.Audit.Record(c.lifetime, l, c.who, what, on, decision, why); err != nil {
		c.log.Error("audit log", "what", what, "on", on, "err", err)
	}
}

type auditOptions struct {
	json  *bool
	limit *int
}

func auditFlags(fs *flag.FlagSet) any {
	return &auditOptions{json: fs.Bool("json", false, "print one JSON object a line"), limit: fs.Int("n", 100, "print at most `N` events; 0 prints all")}
}

const auditHelp = "Who asked for what, from where, and what became of it, the newest first; without <lake>, the acts of administrators on the server as a\n" +
	"whole. Administrators fetch a lake's log with git, too: git fetch origin refs/audit/log:refs/audit/log, and headgate audit --log reads it."

// errEnough ends a walk of a log that was asked for so many events.
var errEnough = errors.New("enough")

func lakeAudit(c *session, args []string, flags any) int {
	opt := flags.(*auditOptions)
	l := c.cfg.House
	if len(args) > 0 {
		var code int
		if l, code = c.open(args[0]); l == nil {
			return code
		}
	}
	if c.cfg.Audit == nil || l == nil {
		return c.fail("this server keeps no audit log")
	}
	n := 0
	err := c.cfg.Audit.AuditEvents(c.client, l, func(e hooks.AuditEvent) error {
		line := e.Text()
		if *opt.json {
			doc, err := json.Marshal(e)
			if err != nil {
				return err
			}
			line = string(doc)
		}
		if _, err := fmt.Fprintln(c.out, line); err != nil {
			return err
		}
		if n++; n == *opt.limit {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return c.broken("cannot read the audit log", err)
	}
	if n == 0 && !*opt.json {
		return c.print("nothing so far\n")
	}
	return exitOK
}

// visibleRefs are the refs of a lake that the user may know of.
func (c *session) visibleRefs(l *lake.Lake) refs.Store {
	if c.who.Admin {
		return l.Refs
	}
	return withoutAudit{l.Refs}
}

// withoutAudit is a lake's refs without its audit log.
type withoutAudit struct{ refs.Store }

// Get implements refs.Store.
func (s withoutAudit) Get(ctx context.Context, name refs.Name) (refs.OID, error) {
	if strings.HasPrefix(string(name), auditRefs) {
		return refs.OID{}, fmt.Errorf("%w: %s", refs.ErrNotFound, name)
	}
	return s.Store.Get(ctx, name)
}

// List implements refs.Store.
func (s withoutAudit) List(ctx context.Context, prefix string) ([]refs.Ref, error) {
	all, err := s.Store.List(ctx, prefix)
	seen := all[:0]
	for _, r := range all {
		if !strings.HasPrefix(string(r.Name), auditRefs) {
			seen = append(seen, r)
		}
	}
	return seen, err
}
