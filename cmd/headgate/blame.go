package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/hooks/trailer"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/table"
	"github.com/headgate/headgate/objects/table/blame"
)

type blameCmd struct {
	Table   string   `arg:"" help:"The table: tables/flights, or flights."`
	Rev     string   `arg:"" optional:"" help:"The revision whose row it is." default:"HEAD"`
	Key     []string `help:"Columns and values that one row has: --key id=7, or --key day=2026-11-24,origin=ORD." required:"" placeholder:"COLUMN=VALUE"`
	Columns []string `help:"Only these columns." placeholder:"COLUMN"`
	JSON    bool     `help:"Print one JSON object." name:"json"`
	Lake    string   `help:"The checkout's directory." default:"." type:"existingdir" placeholder:"DIR"`
	workerFlag
}

// Help is shown below the command's flags.
func (blameCmd) Help() string {
	return `Examples:
  headgate blame --key flight_id=17 tables/flights
  headgate blame --key day=2026-11-24,origin=ORD --columns delay daily_delay main~3
  headgate blame --key id=7 --json stock | jq -r '.cells[] | [.column, .author] | @tsv'

Says of each cell of a row which commit set it, and which gate commit published
that. A commit set a cell if none of its parents has a row of the same key with
the same value there; if several have, the first counts. Values are compared as
text. What a model made was set by the gate commit; then the proposal's author is
named with it. A row that was removed and came again is as old as that; so is one
whose key was changed. Tables that were renamed are not followed further.

A table without a key has no rows that can be told apart, but for what they hold:
name as many columns as leave one row. Where several rows have had those values,
blame stops and says so.

Snapshots are compared by oid, and of a snapshot only the parts are read where the
row can be, by the bounds in table.json. A partial clone fetches just those.`
}

// blamed is what --json prints.
type blamed struct {
	Format int               `json:"format"`
	Table  string            `json:"table"`
	Commit string            `json:"commit"` // whose row it is
	Key    map[string]string `json:"key"`
	Cells  []blamedCell      `json:"cells"`
}

type blamedCell struct {
	Column string  `json:"column"`
	Value  *string `json:"value"` // as text; null is NULL
	blamedCommit
	Boundary  bool          `json:"boundary,omitempty"`  // the history of a shallow clone ends there
	Ambiguous bool          `json:"ambiguous,omitempty"` // before it several rows have that key
	Published *publishedBy  `json:"published,omitempty"` // absent: not by a gate
	Proposal  *blamedCommit `json:"proposal,omitempty"`  // of a cell that the gate commit itself set
	Model     string        `json:"model,omitempty"`     // that made the table in it
}

type blamedCommit struct {
	Commit  string `json:"commit"`
	Author  string `json:"author"`
	Email   string `json:"email"`
	Time    string `json:"time"` // of the author, RFC 3339
	Subject string `json:"subject"`
}

type publishedBy struct {
	Commit   string `json:"commit"`
	Run      string `json:"run"`
	PushedBy string `json:"pushed_by"`
}

// Run finds who set the cells.
func (c *blameCmd) Run(ctx context.Context, std streams) error {
	key, err := parseKey(c.Key)
	if err != nil {
		return err
	}
	lake, err := findCheckout(c.Lake)
	if err != nil {
		return err
	}
	at, err := lake.stateAt(ctx, c.Rev)
	if err != nil {
		return err
	}
	t, err := at.table(tableNamed(c.Table))
	if err != nil {
		return err
	}
	dir, err := table.Dir(t.name)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "headgate-blame-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	tip, err := objects.ParseOID(at.commit)
	if err != nil {
		return err
	}
	h, err := newRowHistory(ctx, lake, c.workerFlag, dir, key, tmp)
	if err != nil {
		return err
	}
	defer h.close()
	if err := h.settleKey(ctx, t, tip); err != nil {
		return err
	}
	origins, err := blame.Cells(ctx, h, tip)
	if err != nil {
		return err
	}
	if origins == nil {
		return fmt.Errorf("%s has no row with %s at %s", dir, keyText(h.key), at.name)
	}
	answer := &blamed{Format: 1, Table: t.name, Commit: at.commit, Key: make(map[string]string)}
	for _, k := range h.key {
		answer.Key[k.column] = k.value
	}
	if origins, err = c.chosen(origins); err != nil {
		return err
	}
	if answer.Cells, err = lake.whoSet(ctx, h, t.name, origins); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(std.out, answer)
	}
	answer.print(std.out)
	return nil
}

// parseKey reads COLUMN=VALUE.
func parseKey(list []string) ([]keyValue, error) {
	var key []keyValue
	for _, text := range list {
		column, value, ok := strings.Cut(text, "=")
		if !ok || column == "" {
			return nil, usagef("--key %s: want COLUMN=VALUE (a comma in a value is written as \\,)", text)
		}
		if slices.ContainsFunc(key, func(k keyValue) bool { return strings.EqualFold(k.column, column) }) {
			return nil, usagef("--key names the column %q twice", column)
		}
		key = append(key, keyValue{column, value})
	}
	return key, nil
}

func keyText(key []keyValue) string {
	texts := make([]string, len(key))
	for i, k := range key {
		texts[i] = k.column + "=" + k.value
	}
	return visible(strings.Join(texts, ", "))
}

// tableNamed takes a table's directory for its name.
func tableNamed(text string) string {
	rest, ok := strings.CutPrefix(strings.TrimPrefix(text, "./"), table.Root+"/")
	if !ok {
		return text
	}
	return strings.ReplaceAll(strings.TrimSuffix(rest, "/"), "/", ".")
}

// settleKey spells the key as DuckDB does, so that it compares with the bounds of
// parts, and makes sure that it is one row's.
func (h *rowHistory) settleKey(ctx context.Context, t *localTable, tip objects.OID) error {
	if err := h.load(ctx, []objects.OID{tip}); err != nil {
		return err
	}
	v := h.versions[h.trees[tip]]
	if v != nil && v.unsound != nil {
		return fmt.Errorf("%s is no sound table at that revision: %w", h.dir, v.unsound)
	}
	if v == nil || len(v.columns) == 0 {
		return fmt.Errorf("%s has no parts at that revision", h.dir)
	}
	var casts []string
	for i, k := range h.key {
		at := slices.IndexFunc(v.columns, func(c table.Column) bool { return strings.EqualFold(c.Name, k.column) })
		if at < 0 {
			have := make([]string, len(v.columns))
			for j, c := range v.columns {
				have[j] = c.Name
			}
			return fmt.Errorf("%s has no column %q; it has %s", h.dir, k.column, visible(strings.Join(have, ", ")))
		}
		h.key[i].column = v.columns[at].Name
		casts = append(casts, fmt.Sprintf("CAST(CAST(%s AS %s) AS VARCHAR)", quoteText(k.value), v.columns[at].Type))
	}
	spelled, err := h.spell(ctx, casts)
	if err != nil {
		return fmt.Errorf("--key %s: %w", keyText(h.key), err)
	}
	for i := range h.key {
		h.key[i].value = spelled[i]
	}
	// What was excluded was by another spelling.
	clear(h.outside)
	clear(h.versions)
	clear(h.trees)
	rows, err := h.Rows(ctx, []objects.OID{tip})
	if err != nil {
		return err
	}
	if rows[0] != nil && rows[0].Several {
		return h.severalRows(ctx, t)
	}
	return nil
}

func (h *rowHistory) severalRows(ctx context.Context, t *localTable) error {
	snap, err := h.lake.snapshot(ctx, t)
	if err != nil {
		return err
	}
	if snap != nil && len(snap.Key) > 0 {
		return fmt.Errorf("several rows of %s have %s: name its key, which is %s", h.dir, keyText(h.key), strings.Join(snap.Key, ", "))
	}
	return fmt.Errorf("several rows of %s have %s, and the table has no key that tells them apart: name more columns, until one row is left", h.dir, keyText(h.key))
}

// spell asks the worker for the values of expressions.
func (h *rowHistory) spell(ctx context.Context, expressions []string) ([]string, error) {
	order := &protocol.Order{Op: protocol.OpQuery, Format: "json", SQL: "SELECT 0 AS version, [" + strings.Join(expressions, ", ") + "] AS cells"}
	var out strings.Builder
	_, err := h.worker.runWorker(ctx, order, func(_ string, _ int64, r io.Reader) error {
		_, err := io.Copy(&out, r)
		return err
	}, nil)
	if err != nil {
		return nil, err
	}
	const scratch = "spelling"
	v := &rowVersion{print: scratch, columns: make([]table.Column, len(expressions))}
	if err := h.keep(strings.NewReader(out.String()), []*rowVersion{v}); err != nil {
		return nil, err
	}
	row := h.rows[scratch]
	delete(h.rows, scratch)
	if row == nil {
		return nil, errors.New("the worker gave no answer")
	}
	values := make([]string, len(row.Cells))
	for i, c := range row.Cells {
		values[i] = c.Value
	}
	return values, nil
}

// chosen keeps the columns that were asked for.
func (c *blameCmd) chosen(origins []blame.Origin) ([]blame.Origin, error) {
	if len(c.Columns) == 0 {
		return origins, nil
	}
	var out []blame.Origin
	for _, name := range c.Columns {
		i := slices.IndexFunc(origins, func(o blame.Origin) bool { return strings.EqualFold(o.Cell.Column, name) })
		if i < 0 {
			return nil, fmt.Errorf("there is no column %q", name)
		}
		out = append(out, origins[i])
	}
	return out, nil
}

// whoSet tells of each cell's commit who made it, and by which gate commit it came
// to the branch.
func (c *checkout) whoSet(ctx context.Context, h *rowHistory, tableName string, origins []blame.Origin) ([]blamedCell, error) {
	shallow, err := c.shallow(ctx)
	if err != nil {
		return nil, err
	}
	cells := make([]blamedCell, 0, len(origins))
	for _, o := range origins {
		cell := blamedCell{Column: o.Cell.Column, Ambiguous: o.Several, Boundary: shallow[o.Commit.String()]}
		if !o.Cell.Null {
			value := o.Cell.Value
			cell.Value = &value
		}
		commit, err := h.commit(o.Commit)
		if err != nil {
			return nil, err
		}
		cell.blamedCommit = signedBy(o.Commit, commit)
		if g, err := trailer.Parse(commit.Message); err == nil {
			cell.Published = &publishedBy{o.Commit.String(), g.RunID, g.PushedBy}
			for _, m := range g.Models {
				if m.Name == tableName {
					cell.Model = m.Name
				}
			}
			// A clone without the proposals' history lacks it.
			if p, err := h.commit(g.Proposal); err == nil {
				by := signedBy(g.Proposal, p)
				cell.Proposal = &by
			}
		}
		// The oldest gate commit through which it came brought it to its branch.
		for i := len(o.Merges) - 1; i >= 0 && cell.Published == nil; i-- {
			merge, err := h.commit(o.Merges[i])
			if err != nil {
				return nil, err
			}
			if g, err := trailer.Parse(merge.Message); err == nil {
				cell.Published = &publishedBy{o.Merges[i].String(), g.RunID, g.PushedBy}
			}
		}
		cells = append(cells, cell)
	}
	return cells, nil
}

func (h *rowHistory) commit(oid objects.OID) (*gitobj.Commit, error) {
	data, err := h.git.read(oid.String(), gitobj.MaxBytes)
	if err != nil {
		return nil, err
	}
	return gitobj.ParseCommit(data)
}

func signedBy(oid objects.OID, c *gitobj.Commit) blamedCommit {
	subject, _, _ := strings.Cut(c.Message, "\n")
	return blamedCommit{Commit: oid.String(), Author: c.Author.Name, Email: c.Author.Email, Time: c.Author.When.Format(timeFormat), Subject: subject}
}

// print writes a line for each cell, as git blame does for each line.
func (b *blamed) print(w io.Writer) {
	columns, authors, values := 0, 0, 0
	for i := range b.Cells {
		c := &b.Cells[i]
		columns = max(columns, utf8.RuneCountInString(visible(c.Column)))
		authors = max(authors, utf8.RuneCountInString(c.who()))
		values = max(values, utf8.RuneCountInString(c.text()))
	}
	for i := range b.Cells {
		c := &b.Cells[i]
		mark := " "
		if c.Boundary {
			mark = "^"
		}
		line := fmt.Sprintf("%s%s (%-*s %s) %-*s  %-*s  %s", mark, c.Commit[:10], authors, c.who(), c.Time[:16], columns, visible(c.Column), values, c.text(), c.how())
		fmt.Fprintln(w, strings.TrimRight(line, " "))
	}
}

// who is the author; of what a gate commit made itself, that of its proposal.
func (c *blamedCell) who() string {
	if c.Proposal != nil {
		return visible(c.Proposal.Author)
	}
	return visible(c.Author)
}

func (c *blamedCell) text() string {
	if c.Value == nil {
		return "NULL"
	}
	const most = 40
	runes := []rune(visible(*c.Value))
	if len(runes) > most {
		return string(runes[:most-3]) + "..."
	}
	return string(runes)
}

func (c *blamedCell) how() string {
	var parts []string
	switch {
	case c.Model != "":
		parts = append(parts, fmt.Sprintf("model %s in run %s, proposal %s %s", visible(c.Model), c.Published.Run, c.Proposal.short(), visible(c.Proposal.subject())))
	case c.Published != nil:
		parts = append(parts, fmt.Sprintf("%s; published by %s, run %s, pushed by %s", visible(c.Subject), c.Published.Commit[:10], c.Published.Run, visible(c.Published.PushedBy)))
	default:
		parts = append(parts, visible(c.Subject)+"; not published by a gate")
	}
	if c.Ambiguous {
		parts = append(parts, "before it several rows have that key")
	}
	if c.Boundary {
		parts = append(parts, "this clone's history ends there (git fetch --unshallow)")
	}
	return strings.Join(parts, "; ")
}

func (c *blamedCommit) short() string {
	if c == nil {
		return "unknown"
	}
	return c.Commit[:10]
}

func (c *blamedCommit) subject() string {
	if c == nil {
		return ""
	}
	return c.Subject
}
