// Package history answers questions on the graph of commits. It asks the
// reachability index where a store has one, and reads commits where that knows
// nothing; the answers are the same. It knows nothing of refs or trees.
package history

import (
	"context"
	"fmt"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
)

// Commit reads one commit.
func Commit(ctx context.Context, r objects.Reader, oid objects.OID) (*gitobj.Commit, error) {
	data, err := objects.ReadAll(ctx, r, oid, objects.Commit, gitobj.MaxBytes)
	if err != nil {
		return nil, err
	}
	c, err := gitobj.ParseCommit(data)
	if err != nil {
		return nil, fmt.Errorf("commit %s: %w", oid, err)
	}
	return c, nil
}

// FirstParent calls fn for tip and its first parents until fn returns false or
// an error, or there is none left.
func FirstParent(ctx context.Context, r objects.Reader, tip objects.OID, fn func(objects.OID, *gitobj.Commit) (bool, error)) error {
	for oid := tip; ; {
		c, err := Commit(ctx, r, oid)
		if err != nil {
			return err
		}
		more, err := fn(oid, c)
		if err != nil || !more || len(c.Parents) == 0 {
			return err
		}
		oid = c.Parents[0]
	}
}
