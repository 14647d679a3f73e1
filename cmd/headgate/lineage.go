package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/headgate/headgate/hooks"
	"github.com/headgate/headgate/hooks/lineage"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
)

// shownPriors is how far a table is followed back that grows by appending.
const shownPriors = 10

type lineageCmd struct {
	Table   string `arg:"" help:"The table: tables/daily_delay, or daily_delay."`
	At      string `help:"The revision whose table it is." default:"HEAD" placeholder:"REV"`
	All     bool   `help:"Follow a table that its model appends to back to its beginning, not just its last 10 states."`
	JSON    bool   `help:"Print one JSON object." name:"json" xor:"form"`
	Dot     bool   `help:"Print the graph for Graphviz: headgate lineage x --dot | dot -Tsvg." xor:"form"`
	GateKey string `help:"Believe only commits with a signature of this allowed-signers file (ssh host gate-key prints one)." name:"gate-key" type:"existingfile" placeholder:"FILE"`
	Lake    string `help:"The checkout's directory, or a bare clone's." default:"." type:"existingdir" placeholder:"DIR"`
}

// Help is shown below the command's flags.
func (lineageCmd) Help() string {
	return `Examples:
  headgate lineage tables/daily_delay
  headgate lineage daily_delay --at main~10 --json
  headgate lineage daily_delay --dot | dot -Tsvg > lineage.svg

Draws what a table was made from, up to the sources: each model with its code,
environment and parameters, each snapshot by its oid, and since which gate commit
the branch has it, who pushed that and whose commit it was. It is what the gate's
commits say; with --gate-key only signed ones count. Commits and trees are read,
and no tables: a bare clone with --filter=blob:none will do.`
}

// Run draws the graph.
func (c *lineageCmd) Run(ctx context.Context, std streams) error {
	lake, err := findCheckout(c.Lake)
	if err != nil {
		return err
	}
	at, err := lake.commitOf(ctx, c.At)
	if err != nil {
		return err
	}
	tip, err := objects.ParseOID(at)
	if err != nil {
		return err
	}
	opt := lineage.Options{Priors: shownPriors}
	if c.All {
		opt.Priors = 0
	}
	if c.GateKey != "" {
		text, err := os.ReadFile(c.GateKey)
		if err != nil {
			return err
		}
		signers, err := hooks.ParseAllowedSigners(text)
		if err != nil {
			return fmt.Errorf("%s: %w", c.GateKey, err)
		}
		opt.IsGate = func(c *gitobj.Commit) bool { return signers.Verify(c) == nil }
	}
	h, err := newGitHistory(ctx, lake)
	if err != nil {
		return err
	}
	defer h.close()
	g, err := lineage.Draw(ctx, h, tip, tableNamed(c.Table), opt)
	var none *lineage.NoTableError
	if errors.As(err, &none) {
		s, serr := lake.stateAt(ctx, c.At)
		if serr != nil {
			return serr
		}
		return fmt.Errorf("%w; the commit has: %s", err, orNone(names(s.tables)))
	}
	if err != nil {
		return err
	}
	if err := h.boundaries(ctx, g); err != nil {
		return err
	}
	switch {
	case c.JSON:
		return printJSON(std.out, g)
	case c.Dot:
		return g.WriteDOT(std.out)
	}
	return g.WriteText(std.out)
}

// gitHistory reads a repository's commits, and the oids of its trees, for lineage.
type gitHistory struct {
	lake *checkout
	repoReader
	commits map[objects.OID]*gitobj.Commit
}

func newGitHistory(ctx context.Context, lake *checkout) (*gitHistory, error) {
	h := &gitHistory{lake: lake, commits: make(map[objects.OID]*gitobj.Commit)}
	var err error
	if h.repoReader, err = lake.reader(ctx); err != nil {
		return nil, err
	}
	return h, nil
}

// Commit implements lineage.History.
func (h *gitHistory) Commit(_ context.Context, oid objects.OID) (*gitobj.Commit, error) {
	if c := h.commits[oid]; c != nil {
		return c, nil
	}
	data, err := h.git.read(oid.String(), gitobj.MaxBytes)
	if errors.Is(err, errNoObject) {
		return nil, fmt.Errorf("%w: commit %s", objects.ErrNotFound, oid)
	}
	if err != nil {
		return nil, err
	}
	c, err := gitobj.ParseCommit(data)
	if err != nil {
		return nil, fmt.Errorf("commit %s: %w", oid, err)
	}
	h.commits[oid] = c
	return c, nil
}

// Tree implements lineage.History.
func (h *gitHistory) Tree(ctx context.Context, commit objects.OID, dir string) (objects.OID, error) {
	if _, err := h.Commit(ctx, commit); err != nil {
		return objects.OID{}, err
	}
	oid, kind, _, err := h.names.find(commit.String() + ":" + dir)
	if errors.Is(err, errNoObject) || err == nil && kind != "tree" {
		return objects.OID{}, nil
	}
	if err != nil {
		return objects.OID{}, err
	}
	return objects.ParseOID(oid)
}

// LastChange implements lineage.History.
func (h *gitHistory) LastChange(ctx context.Context, tip objects.OID, dir string) (objects.OID, error) {
	if _, err := h.Commit(ctx, tip); err != nil {
		return objects.OID{}, err
	}
	out, err := h.lake.gitOutput(ctx, "log", "-1", "--first-parent", "--format=%H", tip.String(), "--", ":(top,literal)"+dir)
	if err != nil {
		return objects.OID{}, err
	}
	out = strings.TrimSpace(out)
	if out == "" {
		return objects.OID{}, nil
	}
	return objects.ParseOID(out)
}

// boundaries marks what may be older than this clone knows.
func (h *gitHistory) boundaries(ctx context.Context, g *lineage.Graph) error {
	ends, err := h.lake.shallow(ctx)
	if err != nil {
		return err
	}
	for _, n := range g.Nodes {
		if n.Since != nil && ends[n.Since.Commit] {
			n.Since.Boundary = true
		}
	}
	return nil
}
