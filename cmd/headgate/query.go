package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/headgate/headgate/exec/protocol"
)

type queryCmd struct {
	SQL     string `arg:"" name:"sql" help:"One SELECT. Tables go by their names: flights, ns.flights, \"flights@HEAD~3\", base.flights."`
	Ref     string `help:"Ask this revision instead of the files on disk: main, HEAD~3, an oid." placeholder:"REV"`
	Base    string `help:"What base.<table> is; by default the first parent of --ref, or where this branch left its upstream." placeholder:"REV"`
	Format  string `help:"How the rows are printed: ${enum}." enum:"table,csv,json,parquet" default:"table"`
	JSON    bool   `help:"Same as --format json: one object a line." name:"json"`
	MaxRows int64  `help:"Print at most this many rows; 0 prints all." default:"0" placeholder:"N"`
	Lake    string `help:"The checkout's directory." default:"." type:"existingdir" placeholder:"DIR"`
	workerFlag
}

// Help is shown below the command's flags.
func (queryCmd) Help() string {
	return `Examples:
  headgate query 'SELECT * FROM daily_delay ORDER BY day'
  headgate query 'SELECT count(*) FROM flights' --ref HEAD~1
  headgate query 'FROM airport_delay' --format csv > airports.csv
  headgate query 'FROM flights EXCEPT ALL FROM flights@v1'
  headgate query 'SELECT * FROM "flights@main@{yesterday}" ANTI JOIN flights USING (id)'
  headgate query 'FROM base.flights ANTI JOIN flights USING (id)'

<table>@<revision> is the table at any revision that git knows: a branch, a tag, an
oid, HEAD~3. In double quotes it may be any, without them one of letters, digits
and . _ / - ~ ^ @{...}. base.<table> is the table at the old tip, as in verifiers: at
the first parent of --ref, or where this branch left its upstream, or at --base.

Runs as your own process on your own files. Of a revision, only the parts of the
tables that the query names are read; a partial clone fetches just those.`
}

// Run answers the query.
func (c *queryCmd) Run(ctx context.Context, std streams) error {
	if c.JSON {
		c.Format = "json"
	}
	if c.Format == "parquet" && isTerminal(std.out) {
		return usagef("Parquet is not for a terminal: add > FILE")
	}
	lake, err := findCheckout(c.Lake)
	if err != nil {
		return err
	}
	for _, rev := range []string{c.Ref, c.Base} {
		if rev == "" {
			continue
		}
		if _, err := lake.commitOf(ctx, rev); err != nil {
			return err // also where the query does not come to it
		}
	}
	inputs, cleanup, err := c.inputs(ctx, lake)
	if err != nil {
		return err
	}
	defer cleanup()
	order := &protocol.Order{Op: protocol.OpQuery, SQL: c.SQL, Format: c.Format, MaxRows: c.MaxRows, Inputs: inputs}
	_, err = c.runWorker(ctx, order, func(_ string, _ int64, r io.Reader) error {
		_, err := io.Copy(std.out, r)
		return err
	}, nil)
	return err
}

// inputs brings the tables that the query names to disk.
func (c *queryCmd) inputs(ctx context.Context, lake *checkout) (in []protocol.Table, cleanup func(), err error) {
	answer, err := c.runWorker(ctx, &protocol.Order{Op: protocol.OpTables, Queries: []protocol.Query{{Name: "query", SQL: c.SQL}}}, nil, nil)
	if err != nil {
		return nil, nil, err
	}
	if len(answer.Tables) != 1 {
		return nil, nil, fmt.Errorf("the worker read %d queries, not one", len(answer.Tables))
	}
	if bad := answer.Tables[0].Error; bad != nil {
		return nil, nil, bad
	}
	dir, err := os.MkdirTemp("", "headgate-query-")
	if err != nil {
		return nil, nil, err
	}
	cleanup = func() { _ = os.RemoveAll(dir) }
	if in, err = c.bindTables(ctx, lake, answer.Tables[0].Tables, dir); err != nil {
		cleanup()
		return nil, nil, err
	}
	return in, cleanup, nil
}

// bindTables brings the tables of these names, as a query writes them, to disk.
func (c *queryCmd) bindTables(ctx context.Context, lake *checkout, written []string, dir string) ([]protocol.Table, error) {
	states := make(map[string]*state) // by revision
	folded := make(map[string]string)
	var in []protocol.Table
	for _, name := range written {
		if other, ok := folded[strings.ToLower(name)]; ok {
			// SQL takes them for one table, git for two revisions.
			return nil, fmt.Errorf("%q and %q differ in case only, which SQL does not tell: name one of the revisions in another way, by its oid", other, name)
		}
		folded[strings.ToLower(name)] = name
		tableName, rev, err := c.revisionOf(ctx, lake, name)
		if err != nil {
			return nil, err
		}
		at := states[rev]
		if at == nil {
			if at, err = lake.stateAt(ctx, rev); err != nil {
				return nil, err
			}
			states[rev] = at
		}
		t, err := at.table(tableName)
		if err != nil {
			return nil, err
		}
		bound, err := lake.input(ctx, c.workerFlag, t, dir)
		if err != nil {
			return nil, err
		}
		bound.Name = name
		in = append(in, bound)
	}
	return in, nil
}

// revisionOf returns which table, of which revision, a query means by a name.
func (c *queryCmd) revisionOf(ctx context.Context, lake *checkout, name string) (tableName, rev string, err error) {
	old, isBase := cutBase(name)
	tableName, rev, at := splitRevision(name)
	switch {
	case at && rev == "":
		return "", "", fmt.Errorf("%q: a revision belongs behind the @: %q", name, tableName+"@HEAD~1")
	case at && isBase:
		return "", "", fmt.Errorf("%q: base is a revision already: write %q for another one", name, strings.TrimPrefix(tableName, "base.")+"@"+rev)
	case at:
		return tableName, rev, nil
	case isBase:
		rev, err = c.baseRevision(ctx, lake)
		return old, rev, err
	}
	return name, c.Ref, nil
}

// cutBase cuts "base." off a table's name.
func cutBase(name string) (string, bool) {
	const prefix = "base."
	if len(name) > len(prefix) && strings.EqualFold(name[:len(prefix)], prefix) {
		return name[len(prefix):], true
	}
	return name, false
}

// baseRevision returns the commit whose tables base.<table> are. As in verifiers it
// is the old tip: of a revision its first parent, which for a gate commit is the
// tip that it was judged against, and of the files on disk the commit where their
// branch left its upstream, which is what a push of them would be judged against.
func (c *queryCmd) baseRevision(ctx context.Context, lake *checkout) (string, error) {
	if c.Base != "" {
		return c.Base, nil
	}
	rev := c.Ref
	if rev == "" && lake.bare {
		rev = "HEAD"
	}
	if rev != "" {
		commit, err := lake.commitOf(ctx, rev)
		if err != nil {
			return "", err
		}
		base, err := lake.commitOf(ctx, commit+"^1")
		if err != nil {
			return "", fmt.Errorf("revision %q has no parent here, so there is no base.<table>; name one with --base", rev)
		}
		return base, nil
	}
	for _, upstream := range []string{"@{upstream}", "refs/remotes/origin/HEAD", "refs/remotes/origin/main"} {
		if _, err := lake.commitOf(ctx, upstream); err != nil {
			continue
		}
		base, err := lake.gitOutput(ctx, "merge-base", "HEAD", upstream)
		if err != nil {
			return "", fmt.Errorf("HEAD and %s have no commit in common, so there is no base.<table>; name one with --base", upstream)
		}
		return strings.TrimSpace(base), nil
	}
	return "", errors.New("base.<table> is the table where this branch left its upstream, and it has none; name a revision with --base, or set one: git branch -u origin/main")
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
