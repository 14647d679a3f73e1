package lineage

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// WriteText draws the graph as a tree, the table that was asked for at its root.
// What stands there before is not drawn again.
func (g *Graph) WriteText(w io.Writer) error {
	p := &printer{w: bufio.NewWriter(w), nodes: g.byID(), seen: make(map[string]bool)}
	if len(g.Nodes) > 0 {
		p.node(g.Nodes[0], "", "", "")
	}
	for _, note := range g.Notes {
		fmt.Fprintf(p.w, "note: %s\n", visible(note))
	}
	return p.w.Flush()
}

func (g *Graph) byID() map[string]*Node {
	nodes := make(map[string]*Node, len(g.Nodes))
	for _, n := range g.Nodes {
		nodes[n.ID] = n
	}
	return nodes
}

type printer struct {
	w     *bufio.Writer
	nodes map[string]*Node
	seen  map[string]bool
}

// node draws one node: first is what stands before its name, rest before the lines
// below, and how before what it is to the node above.
func (p *printer) node(n *Node, first, rest, how string) {
	fmt.Fprintf(p.w, "%s%s%s@%s", first, how, visible(n.Table), short(visible(n.Snapshot)))
	if p.seen[n.ID] {
		fmt.Fprintln(p.w, "  (see above)")
		return
	}
	p.seen[n.ID] = true
	if m := n.Model; m != nil {
		fmt.Fprintf(p.w, "  %s", rows(m.Rows))
		if m.Cached {
			fmt.Fprint(p.w, ", cached")
		}
		if m.NotDeterministic {
			fmt.Fprint(p.w, ", not deterministic")
		}
	} else {
		fmt.Fprintf(p.w, "  %s", n.Kind)
	}
	fmt.Fprintln(p.w)
	below := n.Inputs
	if n.Prior != "" {
		below = append(below[:len(below):len(below)], n.Prior)
	}
	margin := rest + "    "
	if len(below) > 0 {
		margin = rest + "│   "
	}
	if m := n.Model; m != nil {
		line := fmt.Sprintf("model code=%s env=%s", short(visible(m.Code)), short(visible(m.Env)))
		if m.Params != "" {
			line += " params=" + visible(m.Params)
		}
		if m.Strategy != "" {
			line += " strategy=" + visible(m.Strategy)
		}
		fmt.Fprintf(p.w, "%s%s\n", margin, line)
	}
	if s := n.Since; s != nil {
		fmt.Fprintf(p.w, "%s%s\n", margin, s.text())
	}
	for i, id := range below {
		branch, indent := "├── ", "│   "
		if i == len(below)-1 {
			branch, indent = "└── ", "    "
		}
		label := ""
		if n.Prior != "" && i == len(below)-1 {
			label = "builds on "
		}
		p.node(p.nodes[id], rest+branch, rest+indent, label)
	}
}

func (s *Since) text() string {
	text := fmt.Sprintf("since %s, %s", short(s.Commit), s.Time)
	if s.Run != "" {
		text += fmt.Sprintf(", run %s, pushed by %s", visible(s.Run), visible(s.PushedBy))
	} else {
		text += ", not published by a gate"
	}
	if s.By != nil {
		text += fmt.Sprintf(": %s %s (%s)", short(s.By.Commit), visible(s.By.Subject), visible(s.By.Author))
	}
	if s.Boundary {
		text += "; or earlier: this clone's history ends there"
	}
	return text
}

// WriteDOT writes the graph for Graphviz, from the sources to the table.
func (g *Graph) WriteDOT(w io.Writer) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "digraph %s {\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\"];\n", quote(g.Table))
	for _, n := range g.Nodes {
		lines := []string{n.Table, short(n.Snapshot)}
		if n.Model != nil {
			lines = append(lines, fmt.Sprintf("%s, code %s", rows(n.Model.Rows), short(n.Model.Code)))
		}
		if n.Since != nil {
			who := ""
			if n.Since.By != nil {
				who = ", " + n.Since.By.Author
			}
			lines = append(lines, "since "+short(n.Since.Commit)+who)
		}
		shape := ""
		if n.Kind != "derived" {
			shape = ", shape=cylinder"
		}
		fmt.Fprintf(b, "  %s [label=%s%s];\n", quote(n.ID), quote(strings.Join(lines, "\n")), shape)
	}
	for _, n := range g.Nodes {
		for _, in := range n.Inputs {
			fmt.Fprintf(b, "  %s -> %s;\n", quote(in), quote(n.ID))
		}
		if n.Prior != "" {
			fmt.Fprintf(b, "  %s -> %s [style=dashed, label=\"builds on\"];\n", quote(n.Prior), quote(n.ID))
		}
	}
	fmt.Fprintln(b, "}")
	return b.Flush()
}

func rows(n int64) string {
	if n == 1 {
		return "1 row"
	}
	return fmt.Sprintf("%d rows", n)
}

// quote writes a text as a quoted string of DOT.
func quote(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		lines[i] = strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(visible(line))
	}
	return `"` + strings.Join(lines, `\n`) + `"`
}

// visible replaces control characters: what others wrote must not speak to the
// reader's terminal.
func visible(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || (c >= 0x7f && c < 0xa0) {
			return '?'
		}
		return c
	}, s)
}
