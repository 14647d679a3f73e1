package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/headgate/headgate/exec/protocol"
)

type queryCmd struct {
	SQL     string `arg:"" name:"sql" help:"One SELECT. Tables go by their names: flights, ns.flights."`
	Ref     string `help:"Ask this revision instead of the files on disk: main, HEAD~3, an oid." placeholder:"REV"`
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
	var tables map[string]*localTable
	where := "this checkout"
	if c.Ref == "" {
		tables, err = lake.tablesOnDisk()
	} else {
		where = fmt.Sprintf("revision %q", c.Ref)
		tables, err = lake.tablesAt(ctx, c.Ref)
	}
	if err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp("", "headgate-query-")
	if err != nil {
		return nil, nil, err
	}
	cleanup = func() { _ = os.RemoveAll(dir) }
	for _, name := range answer.Tables[0].Tables {
		t := tables[strings.ToLower(name)]
		if t == nil {
			cleanup()
			return nil, nil, fmt.Errorf("no table %q in %s; there are: %s", name, where, orNone(names(tables)))
		}
		table, err := lake.input(ctx, c.workerFlag, t, dir)
		if err != nil {
			cleanup()
			return nil, nil, err
		}
		in = append(in, table)
	}
	return in, cleanup, nil
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
