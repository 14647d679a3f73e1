package conformance

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	git "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	gitssh "github.com/go-git/go-git/v5/plumbing/transport/ssh"
	"github.com/go-git/go-git/v5/storage/memory"
)

// goGit is the library in this process.
type goGit struct {
	s    *site
	auth transport.AuthMethod
}

func openGoGit(t testing.TB, s *site) client {
	t.Helper()
	auth, err := gitssh.NewPublicKeysFromFile("git", filepath.Join(s.dir, "key"), "")
	if err != nil {
		t.Fatal(err)
	}
	if auth.HostKeyCallback, err = gitssh.NewKnownHostsCallback(filepath.Join(s.dir, knownHosts)); err != nil {
		t.Fatal(err)
	}
	return &goGit{s, auth}
}

func (g *goGit) Close() error { return nil }

func (g *goGit) Do(r request) (reply, error) {
	out := reply{Refs: map[string]string{}}
	err := g.do(r, &out)
	if err != nil && !errors.Is(err, git.NoErrAlreadyUpToDate) {
		out.Error = err.Error()
	}
	return out, nil
}

func (g *goGit) do(r request, out *reply) error {
	auth := g.auth
	if r.Password != "" {
		auth = &githttp.BasicAuth{Username: r.User, Password: r.Password}
	}
	remote := &config.RemoteConfig{Name: "anonymous", URLs: []string{r.URL}}
	var specs []config.RefSpec
	for _, spec := range r.Refspecs {
		specs = append(specs, config.RefSpec(spec))
	}
	switch r.Op {
	case "refs":
		list, err := git.NewRemote(memory.NewStorage(), remote).List(&git.ListOptions{Auth: auth, PeelingOption: git.AppendPeeled})
		for _, ref := range list {
			if ref.Type() == plumbing.HashReference {
				out.Refs[ref.Name().String()] = ref.Hash().String()
			}
		}
		if errors.Is(err, transport.ErrEmptyRemoteRepository) {
			return nil
		}
		return err
	case "clone":
		o := &git.CloneOptions{URL: r.URL, Auth: auth, Depth: r.Depth, Tags: git.AllTags}
		if r.Branch != "" {
			o.ReferenceName = plumbing.NewBranchReferenceName(r.Branch)
		}
		_, err := git.PlainClone(r.Dir, r.Bare, o)
		return err
	}
	repo, err := git.PlainOpen(r.Dir)
	if err != nil {
		return err
	}
	switch r.Op {
	case "fetch":
		o := &git.FetchOptions{RemoteName: remote.Name, Auth: auth, RefSpecs: specs, Depth: r.Depth, Tags: git.TagFollowing}
		if r.Tags {
			o.Tags = git.AllTags
		}
		return git.NewRemote(repo.Storer, remote).Fetch(o)
	case "push":
		return git.NewRemote(repo.Storer, remote).Push(&git.PushOptions{
			RemoteName: remote.Name, Auth: auth, RefSpecs: specs, Atomic: r.Atomic,
			Force: len(r.Refspecs) > 0 && strings.HasPrefix(r.Refspecs[0], "+"),
		})
	}
	return fmt.Errorf("no operation %q", r.Op)
}
