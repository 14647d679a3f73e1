// Package lineage draws what a table was made from: the graph that the trailers of
// gate commits tell, up to the sources, and for each snapshot in it the commit that
// brought it. It reads commits and the oids of trees, never a table, so it works
// where the tables are not.
package lineage

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/headgate/headgate/hooks/trailer"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/table"
)

// Format is the version of a Graph as JSON.
const Format = 1

// History is what is read. Errors wrap objects.ErrNotFound where a clone lacks a commit.
type History interface {
	Commit(ctx context.Context, oid objects.OID) (*gitobj.Commit, error)
	// Tree returns the oid of a directory in a commit; zero if it has none.
	Tree(ctx context.Context, commit objects.OID, dir string) (objects.OID, error)
	// LastChange returns the newest commit on the line of first parents from tip, tip
	// too, whose directory is not its first parent's; zero if there is none.
	LastChange(ctx context.Context, tip objects.OID, dir string) (objects.OID, error)
}

// Options of a drawing.
type Options struct {
	// Priors bounds the states that a table is followed back to which it builds on
	// (strategies APPEND and OVERWRITE_PARTITIONS); 0 follows all.
	Priors int
	// IsGate says which commits with trailers are believed; nil believes all.
	IsGate func(*gitobj.Commit) bool
}

// Graph is the lineage of one table in one commit. The first node is that table.
type Graph struct {
	Format int      `json:"format"`
	Table  string   `json:"table"`
	Commit string   `json:"commit"`         // that was asked about
	Gate   string   `json:"gate,omitempty"` // whose trailers tell of the table; absent: none do
	Nodes  []*Node  `json:"nodes"`
	Notes  []string `json:"notes,omitempty"` // what is not as it should be, or not told
}

// Node is a snapshot of a table.
type Node struct {
	ID       string `json:"id"` // table@snapshot
	Table    string `json:"table"`
	Snapshot string `json:"snapshot"`
	Kind     string `json:"kind"` // "source", "derived"; "unknown" if no gate commit tells
	// Since is the commit that brought the snapshot to the branch; absent if it is not
	// in the tree (strategy NONE) or not in this clone.
	Since *Since `json:"since,omitempty"`
	Model *Model `json:"model,omitempty"` // of a derived one
	// Inputs are the ids of what the model read, Prior that of the state of this same
	// table that the model's rows were added to.
	Inputs []string `json:"inputs,omitempty"`
	Prior  string   `json:"prior,omitempty"`
}

// Model is how a derived snapshot was made.
type Model struct {
	Gate             string `json:"gate"` // the gate commit that says so
	Code             string `json:"code"`
	Env              string `json:"env"`
	Params           string `json:"params,omitempty"` // canonical JSON
	Strategy         string `json:"strategy,omitempty"`
	Rows             int64  `json:"rows"`
	Cached           bool   `json:"cached"`
	NotDeterministic bool   `json:"not_deterministic,omitempty"`
}

// Since says when a snapshot came, and from whom.
type Since struct {
	Commit   string `json:"commit"`
	Time     string `json:"time"`          // RFC 3339
	Run      string `json:"run,omitempty"` // absent: not a gate commit
	PushedBy string `json:"pushed_by,omitempty"`
	By       *By    `json:"by,omitempty"` // who made it, in the proposal or in Commit itself
	Boundary bool   `json:"boundary,omitempty"`
}

// By is a commit of a user.
type By struct {
	Commit  string `json:"commit"`
	Author  string `json:"author"`
	Email   string `json:"email"`
	Time    string `json:"time"`
	Subject string `json:"subject"`
}

// NoTableError says that the commit has no such table.
type NoTableError struct {
	Table  string
	Commit objects.OID
}

func (e *NoTableError) Error() string {
	return fmt.Sprintf("there is no table %q in commit %s, and no gate commit before it tells of a model of that name", e.Table, e.Commit.String()[:10])
}

// Draw returns the lineage of a table in a commit. What the nearest gate commit on
// the line of first parents says of it counts, if the table is the same there.
func Draw(ctx context.Context, h History, tip objects.OID, name string, opt Options) (*Graph, error) {
	dir, err := table.Dir(name)
	if err != nil {
		return nil, err
	}
	d := &drawing{h: h, opt: opt, nodes: make(map[string]*Node), g: &Graph{Format: Format, Table: name, Commit: tip.String()}}
	snapshot, err := h.Tree(ctx, tip, dir)
	if err != nil {
		return nil, err
	}
	gate, said, err := d.nearestGate(ctx, tip, dir, snapshot)
	if err != nil {
		return nil, err
	}
	if said != nil {
		d.g.Gate = gate.String()
		if m := modelOf(said, name); snapshot.IsZero() && m != nil {
			_, err = d.node(ctx, name, m.Out, gate, said) // not stored: strategy NONE
			return d.g, err
		}
	}
	if snapshot.IsZero() {
		return nil, &NoTableError{name, tip}
	}
	if said == nil {
		gate = tip
		d.g.Notes = append(d.g.Notes, "no gate commit has this state of the table: what it was made from is not told")
	}
	_, err = d.node(ctx, name, snapshot.String(), gate, said)
	return d.g, err
}

type drawing struct {
	h     History
	opt   Options
	g     *Graph
	nodes map[string]*Node
}

// maxLocal bounds the commits on top of a gate commit.
const maxLocal = 10_000

// nearestGate returns the newest gate commit on tip's line that has the table as tip has it.
func (d *drawing) nearestGate(ctx context.Context, tip objects.OID, dir string, snapshot objects.OID) (objects.OID, *trailer.Gate, error) {
	at := tip
	for range maxLocal {
		c, err := d.h.Commit(ctx, at)
		if errors.Is(err, objects.ErrNotFound) && at != tip {
			return objects.OID{}, nil, nil // a shallow clone ends
		}
		if err != nil {
			return objects.OID{}, nil, err
		}
		if at != tip {
			here, err := d.h.Tree(ctx, at, dir)
			if err != nil {
				return objects.OID{}, nil, err
			}
			if here != snapshot {
				return objects.OID{}, nil, nil
			}
		}
		if g := d.gate(c); g != nil {
			return at, g, nil
		}
		if len(c.Parents) == 0 {
			break
		}
		at = c.Parents[0]
	}
	return objects.OID{}, nil, nil
}

// gate returns what a gate commit says; nil if it is none.
func (d *drawing) gate(c *gitobj.Commit) *trailer.Gate {
	g, err := trailer.Parse(c.Message)
	if err != nil || d.opt.IsGate != nil && !d.opt.IsGate(c) {
		return nil
	}
	return &g
}

func modelOf(g *trailer.Gate, name string) *trailer.Model {
	if g == nil {
		return nil
	}
	for i := range g.Models {
		if g.Models[i].Name == name {
			return &g.Models[i]
		}
	}
	return nil
}

// node adds a snapshot, and all that it was made from. at is a commit that has it.
func (d *drawing) node(ctx context.Context, name, snapshot string, at objects.OID, said *trailer.Gate) (*Node, error) {
	id := name + "@" + snapshot
	if n := d.nodes[id]; n != nil {
		return n, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	n := &Node{ID: id, Table: name, Snapshot: snapshot, Kind: "source"}
	d.nodes[id] = n
	d.g.Nodes = append(d.g.Nodes, n)
	if said == nil {
		n.Kind = "unknown"
	}
	since, err := d.since(ctx, n, at)
	if err != nil {
		return nil, err
	}
	m := modelOf(said, name)
	if m == nil {
		return n, nil
	}
	n.Kind = "derived"
	n.Model = &Model{
		Gate: at.String(), Code: m.Code, Env: m.Env, Params: m.Params, Strategy: m.Strategy, Rows: m.Rows, Cached: m.Cached, NotDeterministic: m.NotDeterministic,
	}
	if m.Out != snapshot {
		d.note("commit %s says that model %s gave %s, and has %s", short(at.String()), name, short(m.Out), short(snapshot))
	}
	for _, in := range m.Inputs {
		source, err := d.node(ctx, in.Table, in.Snapshot, at, said)
		if err != nil {
			return nil, err
		}
		n.Inputs = append(n.Inputs, source.ID)
	}
	if m.Prior != "" && m.Prior != snapshot {
		return n, d.prior(ctx, n, m.Prior, since)
	}
	return n, nil
}

func (d *drawing) note(format string, args ...any) {
	d.g.Notes = append(d.g.Notes, fmt.Sprintf(format, args...))
}

// prior adds the state that a table builds on, with what the commit said that
// brought it.
func (d *drawing) prior(ctx context.Context, n *Node, snapshot string, since objects.OID) error {
	n.Prior = n.Table + "@" + snapshot
	if d.nodes[n.Prior] != nil {
		return nil
	}
	depth := 0
	for _, other := range d.g.Nodes {
		if other.Table == n.Table {
			depth++
		}
	}
	if d.opt.Priors > 0 && depth > d.opt.Priors {
		n.Prior = ""
		d.note("table %s builds on %s and what came before, which is not shown", n.Table, short(snapshot))
		return nil
	}
	dir, err := table.Dir(n.Table)
	if err != nil {
		return err
	}
	// It was at the commit's base, or, after a revert, further down.
	at := since
	for !at.IsZero() {
		c, err := d.h.Commit(ctx, at)
		if errors.Is(err, objects.ErrNotFound) {
			break
		}
		if err != nil {
			return err
		}
		if len(c.Parents) == 0 {
			break
		}
		if at, err = d.h.LastChange(ctx, c.Parents[0], dir); errors.Is(err, objects.ErrNotFound) {
			break
		}
		if err != nil {
			return err
		}
		if at.IsZero() {
			break
		}
		here, err := d.h.Tree(ctx, at, dir)
		if err != nil {
			return err
		}
		if here.String() != snapshot {
			continue
		}
		if c, err = d.h.Commit(ctx, at); err != nil {
			return err
		}
		_, err = d.node(ctx, n.Table, snapshot, at, d.gate(c))
		return err
	}
	_, err = d.node(ctx, n.Table, snapshot, objects.OID{}, nil)
	d.note("the history here has no commit with %s, which %s builds on", n.Prior, n.ID)
	return err
}

// since finds the commit that brought a snapshot to the line of at, and returns it.
func (d *drawing) since(ctx context.Context, n *Node, at objects.OID) (objects.OID, error) {
	dir, err := table.Dir(n.Table)
	if err != nil {
		return objects.OID{}, err
	}
	if at.IsZero() {
		return at, nil
	}
	here, err := d.h.Tree(ctx, at, dir)
	if err != nil {
		return objects.OID{}, err
	}
	if here.String() != n.Snapshot {
		if !here.IsZero() {
			d.note("commit %s says %s, and its tree has %s", short(at.String()), n.ID, short(here.String()))
		}
		return objects.OID{}, nil
	}
	first, err := d.h.LastChange(ctx, at, dir)
	if errors.Is(err, objects.ErrNotFound) || err == nil && first.IsZero() {
		return objects.OID{}, nil
	}
	if err != nil {
		return objects.OID{}, err
	}
	c, err := d.h.Commit(ctx, first)
	if err != nil {
		return objects.OID{}, err
	}
	n.Since = &Since{Commit: first.String(), Time: c.Committer.When.Format(time.RFC3339)}
	who := first
	if g := d.gate(c); g != nil {
		n.Since.Run, n.Since.PushedBy = g.RunID, g.PushedBy
		who = g.Proposal
	}
	n.Since.By, err = d.by(ctx, who, dir, here)
	return first, err
}

// by finds the commit, in the history of a proposal, that made a snapshot; if the
// gate made it, that is the proposal itself.
func (d *drawing) by(ctx context.Context, at objects.OID, dir string, snapshot objects.OID) (*By, error) {
	for range maxLocal {
		here, err := d.h.Tree(ctx, at, dir)
		if errors.Is(err, objects.ErrNotFound) {
			return nil, nil // a shallow clone does not have the proposal
		}
		if err != nil {
			return nil, err
		}
		next := objects.OID{}
		if here == snapshot {
			if at, err = d.h.LastChange(ctx, at, dir); err != nil || at.IsZero() {
				return nil, notMissing(err)
			}
		}
		c, err := d.h.Commit(ctx, at)
		if err != nil {
			return nil, notMissing(err)
		}
		if here == snapshot {
			// A merge that has it from another side did not make it.
			for _, p := range c.Parents[min(1, len(c.Parents)):] {
				if there, err := d.h.Tree(ctx, p, dir); err == nil && there == snapshot {
					next = p
					break
				}
			}
		}
		if next.IsZero() {
			subject, _, _ := strings.Cut(c.Message, "\n")
			return &By{at.String(), c.Author.Name, c.Author.Email, c.Author.When.Format(time.RFC3339), subject}, nil
		}
		at = next
	}
	return nil, nil
}

// notMissing drops the error of a clone that does not have everything.
func notMissing(err error) error {
	if errors.Is(err, objects.ErrNotFound) {
		return nil
	}
	return err
}

func short(oid string) string { return oid[:min(10, len(oid))] }
