package exec

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/sandbox"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/table"
)

// merging are sandboxes that answer merges, and say that they were given too few parts
// until so many are staged behind the merged rows.
type merging struct {
	wants, conflicts int
	orders           []*protocol.Merge
	inputs           []int
}

func (m *merging) Run(_ context.Context, job sandbox.Job) (*sandbox.Report, error) {
	order := job.Order.Merge
	m.orders, m.inputs = append(m.orders, order), append(m.inputs, len(job.Inputs))
	a := &protocol.Answer{Merged: &protocol.Merged{Conflicts: int64(m.conflicts)}}
	staged := 0
	for _, s := range order.Segments {
		staged += s.Staged
	}
	if staged < m.wants {
		a.Merged.Short = true
		return &sandbox.Report{Answer: a}, nil
	}
	part := []byte("PAR1 merged PAR1")
	if err := job.Files("part-0", int64(len(part)), bytes.NewReader(part)); err != nil {
		return nil, err
	}
	a.Snapshot = &protocol.Snapshot{Columns: order.Columns}
	for _, s := range order.Segments {
		if len(s.Keep) == 0 {
			a.Snapshot.Parts = append(a.Snapshot.Parts, protocol.Part{File: "part-0", Rows: 2, Stats: make([]protocol.ColumnStats, len(order.Columns))})
		}
		for _, f := range s.Keep {
			a.Snapshot.Parts = append(a.Snapshot.Parts, protocol.Part{File: f})
		}
	}
	return &sandbox.Report{Answer: a}, nil
}

// versioned makes versions of a table with a key, each of parts with the given contents.
func versioned(t *testing.T, boxes Sandboxes) (*Session, func(contents string) *Table) {
	store, _ := stored(t, 1, 64)
	s := New(boxes, Environments{}, Budget{CPUs: 1, Memory: 1 << 30}, slog.New(slog.DiscardHandler)).Session(store, nil, Options{Limits: sandbox.Limits{Memory: 1 << 30, CPUs: 1}})
	return s, func(contents string) *Table {
		tab := &Table{Meta: &table.Snapshot{Format: table.Format, Columns: []table.Column{{Name: "id", Type: "BIGINT"}}, Key: []string{"id"}}}
		for _, c := range contents {
			data := fmt.Appendf(nil, "PAR1 part %c PAR1", c)
			oid, err := store.Put(t.Context(), objects.Blob, int64(len(data)), bytes.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			tab.Parts = append(tab.Parts, oid)
			tab.Meta.Parts = append(tab.Meta.Parts, table.Part{File: table.PartName(oid), Rows: 1, Bytes: int64(len(data)), Columns: []table.Stats{{}}})
		}
		return tab
	}
}

// Where each side changed other parts no sandbox is started, whatever the table's size.
func TestMergeOfOtherPartsReadsNothing(t *testing.T) {
	boxes := &merging{}
	s, version := versioned(t, boxes)
	readme, err := putBytes(t.Context(), s.store, objects.Blob, []byte("read me"))
	if err != nil {
		t.Fatal(err)
	}
	keep := []gitobj.Entry{{Name: "README.md", Mode: gitobj.ModeFile, OID: readme}}
	m, err := s.Merge(t.Context(), Versions{version("abcdef"), version("aBcdef"), version("abcdEF")}, keep)
	if err != nil {
		t.Fatal(err)
	}
	if want := version("aBcdEF"); !slices.Equal(m.Table.Parts, want.Parts) || len(boxes.orders) > 0 || m.Opened != 0 {
		t.Errorf("parts %v, want %v; %d sandboxes", m.Table.Parts, want.Parts, len(boxes.orders))
	}
	if _, err := LoadTable(t.Context(), s.store, m.Table.Tree); err != nil {
		t.Error(err)
	}
	if entries, err := s.treeEntries(t.Context(), m.Table.Tree); err != nil || !slices.Contains(entries, keep[0]) {
		t.Errorf("the directory has %v, %v; want the README too", entries, err)
	}
}

// Only parts that both sides changed are staged, and a few behind them: more if the
// rows go on for longer.
func TestMergeStagesWhatItNeeds(t *testing.T) {
	long := ""
	for c := 'A'; c <= 'Z'; c++ {
		long += string(c)
	}
	boxes := &merging{wants: 17}
	s, version := versioned(t, boxes)
	m, err := s.Merge(t.Context(), Versions{version("ab" + long), version("a1" + long), version("a2" + long)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	// Three versions of the part, and 4, 16, and at last all 26 behind it.
	if want := []int{3 + 4, 3 + 16, 3 + 26}; !slices.Equal(boxes.inputs, want) {
		t.Errorf("staged %v, want %v", boxes.inputs, want)
	}
	if m.Opened != 1 || len(m.Table.Parts) != 28 || m.Table.Rows() != 29 {
		t.Errorf("%d parts, %d anew, %d rows", len(m.Table.Parts), m.Opened, m.Table.Rows())
	}
	boxes.wants = 100
	if _, err := s.Merge(t.Context(), Versions{version("ab"), version("a1"), version("a2")}, nil); err == nil || !strings.Contains(err.Error(), "more parts than there are") {
		t.Errorf("a worker that is never content: %v", err)
	}
}

// A part goes by its name, so a version in which a name stands for other bytes would
// put them where another version's are.
func TestMergeRefusesNamesThatLie(t *testing.T) {
	s, version := versioned(t, &merging{})
	theirs, other := version("abC"), version("z")
	theirs.Parts[0] = other.Parts[0]
	_, err := s.Merge(t.Context(), Versions{version("abc"), version("aBc"), theirs}, nil)
	if f, ok := err.(*Failure); !ok || !strings.Contains(f.Text, "holds other bytes than its name says") {
		t.Errorf("got %v", err)
	}
}
