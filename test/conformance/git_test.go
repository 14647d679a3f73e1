package conformance

import (
	"errors"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// stockGit is the git that is installed, with one version of the protocol.
type stockGit struct {
	s       *site
	version int
}

func openGit(version int) func(testing.TB, *site) client {
	return func(_ testing.TB, s *site) client { return &stockGit{s, version} }
}

func (g *stockGit) Close() error { return nil }

func (g *stockGit) Do(r request) (reply, error) {
	args := []string{"-c", "protocol.version=" + strconv.Itoa(g.version)}
	if r.Password != "" {
		r.URL = strings.Replace(r.URL, "://", "://"+r.User+":"+r.Password+"@", 1)
	}
	dir := r.Dir
	switch r.Op {
	case "refs":
		dir = g.s.dir
		args = append(args, "ls-remote", r.URL)
	case "clone":
		dir = g.s.dir
		args = append(args, "clone", "--quiet", "--no-single-branch")
		if r.Branch != "" {
			args = append(args, "--branch", r.Branch)
		}
		if r.Bare {
			args = append(args, "--bare")
		}
		if r.Depth > 0 {
			args = append(args, "--depth", strconv.Itoa(r.Depth))
		}
		if r.Filter != "" {
			args = append(args, "--no-checkout", "--filter="+r.Filter)
		}
		args = append(args, r.URL, r.Dir)
	case "checkout": // what a partial clone lacks is fetched
		args = append(args, "checkout", "--quiet", r.Branch)
	case "fetch":
		args = append(args, "fetch", "--quiet")
		if r.Tags {
			args = append(args, "--tags")
		}
		if r.Depth > 0 {
			args = append(args, "--depth", strconv.Itoa(r.Depth))
		}
		args = append(append(args, r.URL), r.Refspecs...)
	case "push":
		args = append(args, "push", "--porcelain")
		if r.Atomic {
			args = append(args, "--atomic")
		}
		args = append(append(args, r.URL), r.Refspecs...)
	}
	out, err := g.s.try(dir, "git", args...)
	answer := reply{Refs: map[string]string{}, Rejected: map[string]string{}}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		answer.Error = err.Error()
	case err != nil:
		return reply{}, err
	}
	for line := range strings.Lines(out) {
		fields := strings.Split(strings.TrimSpace(line), "\t")
		switch {
		case r.Op == "refs" && len(fields) == 2:
			answer.Refs[fields[1]] = fields[0]
		case r.Op == "push" && len(fields) == 3 && fields[0] == "!":
			_, name, _ := strings.Cut(fields[1], ":")
			answer.Rejected[name] = fields[2]
		}
	}
	return answer, nil
}
