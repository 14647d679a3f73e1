package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// timeFormat is how times are printed for programs.
const timeFormat = time.RFC3339

// splitRevision cuts "flights@HEAD~3" into a table's name and a revision. A
// table's name has no "@", a revision may.
func splitRevision(name string) (table, rev string, ok bool) {
	return strings.Cut(name, "@")
}

// state is the tables of one revision of a lake, or of the files on disk.
type state struct {
	name   string // as messages call it: this checkout, revision "v1"
	commit string // "" for the files on disk
	tables map[string]*localTable
}

// stateAt lists the tables of a revision, by any name that git knows for it, or
// for "" those of the work tree. It reads nothing but trees.
func (c *checkout) stateAt(ctx context.Context, rev string) (*state, error) {
	if rev == "" && c.bare {
		rev = "HEAD"
	}
	if rev == "" {
		tables, err := c.tablesOnDisk()
		return &state{name: "this checkout", tables: tables}, err
	}
	commit, err := c.commitOf(ctx, rev)
	if err != nil {
		return nil, err
	}
	tables, err := c.tablesAt(ctx, commit)
	return &state{name: fmt.Sprintf("revision %q", rev), commit: commit, tables: tables}, err
}

// commitOf returns the oid of the commit that a revision names.
func (c *checkout) commitOf(ctx context.Context, rev string) (string, error) {
	if strings.TrimSpace(rev) == "" {
		return "", fmt.Errorf("%q is no revision of this repository", rev)
	}
	oid, err := c.gitOutput(ctx, "rev-parse", "--verify", "--quiet", "--end-of-options", rev+"^{commit}")
	if err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", fmt.Errorf("%q is no revision of this repository", rev)
	}
	return strings.TrimSpace(oid), nil
}

// table finds a table by its SQL name, which does not tell upper case from lower.
// The error says what is there instead.
func (s *state) table(name string) (*localTable, error) {
	if t := s.tables[strings.ToLower(name)]; t != nil {
		return t, nil
	}
	return nil, fmt.Errorf("no table %q in %s; there are: %s", name, s.name, orNone(names(s.tables)))
}

// tableAt resolves "flights", of the files on disk, and "flights@REVISION".
// Together with checkout.input it leads to the parts.
func (c *checkout) tableAt(ctx context.Context, name string) (*localTable, error) {
	table, rev, ok := splitRevision(name)
	if ok && rev == "" {
		return nil, fmt.Errorf("%q: a revision belongs behind the @: %s@HEAD~1", name, table)
	}
	s, err := c.stateAt(ctx, rev)
	if err != nil {
		return nil, err
	}
	return s.table(table)
}

// shallow returns the commits at which the history of a shallow clone ends.
func (c *checkout) shallow(ctx context.Context) (map[string]bool, error) {
	path, err := c.gitOutput(ctx, "rev-parse", "--git-path", "shallow")
	if err != nil {
		return nil, err
	}
	path = strings.TrimSpace(path)
	if !filepath.IsAbs(path) {
		path = filepath.Join(c.root, path)
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	ends := make(map[string]bool)
	for _, oid := range strings.Fields(string(data)) {
		ends[oid] = true
	}
	return ends, err
}
