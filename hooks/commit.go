package hooks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/headgate/headgate/hooks/policy"
	"github.com/headgate/headgate/hooks/trailer"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/tree"
)

// maxCommit bounds a commit object, in bytes.
const maxCommit = 4 << 20

func readCommit(ctx context.Context, r objects.Reader, oid objects.OID) (*gitobj.Commit, error) {
	data, err := objects.ReadAll(ctx, r, oid, objects.Commit, maxCommit)
	if err != nil {
		return nil, err
	}
	return gitobj.ParseCommit(data)
}

// PolicyAt reads the policy of a commit; one without a headgate.yaml has the
// defaults. Errors are *policy.Error if the file is there and wrong.
func PolicyAt(ctx context.Context, r objects.Reader, commit objects.OID) (*policy.Policy, error) {
	return policyAt(ctx, r, commit)
}

// policyAt reads the policy of a commit. Errors are *policy.Error if the file is
// there and wrong.
func policyAt(ctx context.Context, r objects.Reader, commit objects.OID) (*policy.Policy, error) {
	c, err := readCommit(ctx, r, commit)
	if err != nil {
		return nil, err
	}
	return policyOf(ctx, r, c.Tree)
}

// policyOf reads the policy of a tree.
func policyOf(ctx context.Context, r objects.Reader, root objects.OID) (*policy.Policy, error) {
	e, err := tree.Lookup(ctx, r, root, PolicyFile)
	if errors.Is(err, objects.ErrNotFound) {
		return policy.Default(), nil
	}
	if err != nil {
		return nil, err
	}
	if e.Mode != gitobj.ModeFile && e.Mode != gitobj.ModeExec {
		return nil, badPolicy("is not a regular file")
	}
	info, err := r.Stat(ctx, e.OID)
	if err != nil {
		return nil, err
	}
	if info.Size > maxPolicy {
		return nil, badPolicy(fmt.Sprintf("has %d bytes, the limit is %d", info.Size, maxPolicy))
	}
	data, err := objects.ReadAll(ctx, r, e.OID, objects.Blob, maxPolicy)
	if err != nil {
		return nil, err
	}
	return policy.Parse(PolicyFile, data)
}

func badPolicy(message string) error {
	return &policy.Error{Problems: []policy.Problem{{File: PolicyFile, Message: message}}}
}

// readFile returns the content of a small file of a tree.
func readFile(ctx context.Context, r objects.Reader, root objects.OID, path string, limit int64) ([]byte, error) {
	e, err := tree.Lookup(ctx, r, root, path)
	if err != nil {
		return nil, err
	}
	return objects.ReadAll(ctx, r, e.OID, objects.Blob, limit)
}

func subject(message string) string {
	line, _, _ := strings.Cut(message, "\n")
	return line
}

// commit makes the signed gate commit: parent 1 is the old tip, parent 2 the
// proposal. A branch that starts gets an empty, signed first commit as its old
// tip, so that every commit on its first-parent line is a gate commit.
func (r *run) commit(ctx context.Context) (objects.OID, error) {
	parent := r.base
	if parent.IsZero() {
		empty, err := tree.Apply(ctx, r.q, objects.OID{}, nil)
		if err != nil {
			return objects.OID{}, err
		}
		if parent, err = r.sign(ctx, &gitobj.Commit{
			Tree:    empty,
			Message: fmt.Sprintf("Open lake %s\n\nThe empty state, from which the first proposal is judged.\n", r.lake.Name),
		}); err != nil {
			return objects.OID{}, err
		}
	}
	t := trailer.Gate{
		RunID: r.id(), Base: parent, Proposal: r.proposal, PushedBy: r.who.Name,
		Models: r.rec.modelTrailers(), Verifiers: r.rec.verifierTrailers(), ApprovedBy: r.rec.approvers(),
	}
	branch := strings.TrimPrefix(string(r.target), headsPrefix)
	message := fmt.Sprintf("Publish to %s: %s\n\n%s\n\n%s", branch, r.rec.Subject, r.rec.summary(), t.Format())
	return r.sign(ctx, &gitobj.Commit{Tree: r.tree, Parents: []objects.OID{parent, r.proposal}, Message: message})
}

// house is the author of what the server commits.
func (g *Gate) house() gitobj.Signature {
	return gitobj.Signature{Name: "Headgate", Email: GateEmail, When: g.cfg.Now().UTC()}
}

// isGateCommit tells whether this server's gate published the commit: it is
// signed, and has the trailers that only a verified state is given.
func (g *Gate) isGateCommit(c *gitobj.Commit) bool {
	_, err := trailer.Parse(c.Message)
	return err == nil && g.cfg.Signer.Verify(c) == nil
}

func (r *run) sign(ctx context.Context, c *gitobj.Commit) (objects.OID, error) {
	return r.gate.sign(ctx, r.q, c)
}

// sign stores a commit of the server's.
func (g *Gate) sign(ctx context.Context, w objects.Writer, c *gitobj.Commit) (objects.OID, error) {
	house := g.house()
	c.Author, c.Committer = house, house
	if err := g.cfg.Signer.Sign(c); err != nil {
		return objects.OID{}, err
	}
	data := c.Encode()
	return w.Put(ctx, objects.Commit, int64(len(data)), bytes.NewReader(data))
}

func (r *run) put(ctx context.Context, c *gitobj.Commit) (objects.OID, error) {
	data := c.Encode()
	return r.q.Put(ctx, objects.Commit, int64(len(data)), bytes.NewReader(data))
}
