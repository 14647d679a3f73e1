package objects

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/headgate/headgate/objects/gitobj"
)

// MissingError says that an object names one that is not there, or that is
// there but of another kind.
type MissingError struct {
	OID    OID
	Type   Type // what From takes it for; zero if it is a tip
	From   OID  // zero if OID is a tip
	Actual Type // what it is; zero if it is missing
}

func (e *MissingError) Error() string {
	switch {
	case e.From.IsZero():
		return fmt.Sprintf("object %s is missing", e.OID)
	case e.Actual != 0:
		return fmt.Sprintf("object %s names %s as a %s, but that is a %s", e.From, e.OID, e.Type, e.Actual)
	}
	return fmt.Sprintf("%s %s is missing, which object %s names", e.Type, e.OID, e.From)
}

// Unwrap makes a missing object match ErrNotFound.
func (e *MissingError) Unwrap() error {
	if e.Actual != 0 {
		return nil
	}
	return ErrNotFound
}

// link is an object as another one names it.
type link struct {
	oid OID
	t   Type
}

// links is what is left to check of a quarantine's connectivity. The store is
// closed, everything in it has all that it names, because only connected
// quarantines migrate. So it is enough that each new object names only new or
// stored ones, and those that are stored are settled when the object lands.
type links struct {
	open  map[link]OID // named, not in the store; the value is one that names it
	rules map[rule]OID // blobs that a tree gives such a name, and that tree
}

// rule is a blob that clients take for a file which git itself reads.
type rule struct {
	oid        OID
	attributes bool // .gitattributes, not .gitmodules
}

func newLinks() links {
	return links{open: make(map[link]OID), rules: make(map[rule]OID)}
}

func (l *links) add(from OID, open []link, rules []rule) {
	for _, k := range open {
		if _, ok := l.open[k]; !ok {
			l.open[k] = from
		}
	}
	for _, r := range rules {
		l.rules[r] = from
	}
}

// namedBy checks an object and returns what it names. Gitlinks name commits of
// other repositories and are left out.
func namedBy(t Type, data []byte) (named []link, rules []rule, err error) {
	switch t {
	case Blob:
		return nil, nil, nil
	case Tree:
		entries, err := gitobj.ParseTree(data)
		if err != nil {
			return nil, nil, err
		}
		named = make([]link, 0, len(entries))
		for _, e := range entries {
			switch {
			case e.Mode == gitobj.ModeTree:
				named = append(named, link{e.OID, Tree})
			case e.Mode.IsBlob():
				named = append(named, link{e.OID, Blob})
				switch {
				case e.Mode == gitobj.ModeSymlink: // git does not read through it
				case gitobj.IsDotGitmodules(e.Name):
					rules = append(rules, rule{e.OID, false})
				case gitobj.IsDotGitattributes(e.Name):
					rules = append(rules, rule{e.OID, true})
				}
			}
		}
		return named, rules, nil
	case Commit:
		c, err := gitobj.ParseCommit(data)
		if err != nil {
			return nil, nil, err
		}
		named = append(named, link{c.Tree, Tree})
		for _, p := range c.Parents {
			named = append(named, link{p, Commit})
		}
		return named, nil, nil
	case Tag:
		tag, err := gitobj.ParseTag(data)
		if err != nil {
			return nil, nil, err
		}
		return []link{{tag.Object, tag.Type}}, nil, nil
	}
	return nil, nil, gitobj.Check(t, data)
}

// notInStore returns the links whose objects the store does not have. One that
// is there with another type is kept: the check will find it out.
func (q *Quarantine) notInStore(ctx context.Context, from OID, named []link) ([]link, error) {
	open, hide := named[:0], q.hides()
	for _, k := range named {
		if k.t != Blob {
			// Only blobs are raw, so the packs' indexes have the answer; the
			// type is left to the check, most of these are new anyway.
			if !q.s.hasSmall(k.oid, hide) {
				open = append(open, k)
				continue
			}
		}
		info, err := q.s.stat(ctx, k.oid, hide)
		switch {
		case err == nil && info.Type == k.t:
		case err == nil, errors.Is(err, ErrNotFound):
			open = append(open, k)
		default:
			return nil, fmt.Errorf("look up what %s names: %w", from, err)
		}
	}
	return open, nil
}

// maxGitmodules is far above any real .gitmodules, which git itself bounds too.
const maxGitmodules = 1 << 20

// CheckConnected checks that the tips are there, that every object in the
// quarantine names only objects of the right kind in the quarantine or the
// store, and that files which clients take for .gitmodules or .gitattributes are harmless. The
// error is a *MissingError, or wraps a *gitobj.CheckError, if an object is at
// fault; any other error means that it could not tell.
func (q *Quarantine) CheckConnected(ctx context.Context, tips []OID) error {
	for _, tip := range tips {
		_, err := q.Stat(ctx, tip)
		if errors.Is(err, ErrNotFound) {
			return &MissingError{OID: tip}
		}
		if err != nil {
			return err
		}
	}
	q.mu.Lock()
	for _, tip := range tips {
		q.tips[tip] = true
	}
	q.mu.Unlock()
	q.mu.RLock()
	if q.err != nil {
		defer q.mu.RUnlock()
		return q.err
	}
	open := make(map[link]OID, len(q.links.open))
	for k, from := range q.links.open {
		if info, ok := q.lookupLocked(k.oid); !ok || info.Type != k.t {
			open[k] = from
		}
	}
	rules := slices.Collect(maps.Keys(q.links.rules))
	q.mu.RUnlock()

	for k, from := range open {
		if err := ctx.Err(); err != nil {
			return err
		}
		info, err := q.Stat(ctx, k.oid)
		switch {
		case errors.Is(err, ErrNotFound):
			return &MissingError{OID: k.oid, Type: k.t, From: from}
		case err != nil:
			return err
		case info.Type != k.t:
			return &MissingError{OID: k.oid, Type: k.t, From: from, Actual: info.Type}
		}
	}
	for _, r := range rules {
		if err := q.checkRules(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// checkRules checks the content of a .gitmodules or .gitattributes.
func (q *Quarantine) checkRules(ctx context.Context, r rule) (err error) {
	if r.attributes {
		info, rc, err := q.Open(ctx, r.oid)
		if err != nil {
			return err
		}
		err = gitobj.CheckGitattributes(info.Size, rc)
		if err = errors.Join(err, rc.Close()); err != nil {
			return fmt.Errorf("blob %s: %w", r.oid, err)
		}
		return nil
	}
	info, err := q.Stat(ctx, r.oid)
	if err != nil {
		return err
	}
	if info.Size > maxGitmodules {
		err = &gitobj.CheckError{Type: Blob, ID: "gitmodulesLarge", Detail: fmt.Sprintf(".gitmodules has %d bytes", info.Size)}
		return fmt.Errorf("blob %s: %w", r.oid, err)
	}
	data, err := ReadAll(ctx, q, r.oid, Blob, maxGitmodules)
	if err != nil {
		return err
	}
	if err := gitobj.CheckGitmodules(data); err != nil {
		return fmt.Errorf("blob %s: %w", r.oid, err)
	}
	return nil
}
