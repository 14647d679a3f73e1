package server

import (
	"flag"
	"fmt"

	"github.com/headgate/headgate/hooks"
)

type replayOptions struct {
	json, verify *bool
	tables       []string
}

func replayFlags(fs *flag.FlagSet) any {
	opt := &replayOptions{
		json:   fs.Bool("json", false, "print JSON"),
		verify: fs.Bool("verify", false, "evaluate the verifiers again, too"),
	}
	fs.Func("table", "replay only the table `NAME`; may be given several times", func(name string) error {
		opt.tables = append(opt.tables, name)
		return nil
	})
	return opt
}

func runReplay(c *session, args []string, flags any) int {
	opt := flags.(*replayOptions)
	l, code := c.open(args[0])
	if l == nil {
		return code
	}
	if !c.beginReplay(c.who.Name) {
		return c.fail("you have a replay under way; one at a time is enough for this server")
	}
	defer c.endReplay(c.who.Name)
	q := hooks.ReplayQuestion{Tables: opt.tables, Verifiers: *opt.verify}
	if len(args) > 1 {
		q.Of = args[1]
	}
	if !*opt.json {
		q.Progress = func(line string) { fmt.Fprintln(c.out, line) }
	}
	report, err := c.cfg.Replayer.Replay(c.client, l, q)
	if err != nil {
		return c.unanswered("replay", err)
	}
	if *opt.json {
		code = c.printJSON(report)
	} else {
		code = c.print(report.Conclusion())
	}
	if err := report.Verdict(); code == exitOK && err != nil {
		return c.fail("%v", err)
	}
	return code
}

// beginReplay counts a user's replay in; false if there is one already. A replay
// costs what a run costs, and anybody may ask for it.
func (s *Server) beginReplay(user string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.replaying[user] {
		return false
	}
	s.replaying[user] = true
	return true
}

func (s *Server) endReplay(user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.replaying, user)
}
