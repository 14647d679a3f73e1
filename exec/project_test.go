package exec

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/sandbox"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/table"
)

// cutters answer OpProject with files that say what was asked. A filter "BAD" is
// the user's error.
type cutters struct {
	mu     sync.Mutex
	orders [][]string // the inputs of each
	hold   chan struct{}
}

func asked(t protocol.Table) string { return fmt.Sprint(t.Name, t.Select, t.Filter) }

func (c *cutters) Run(_ context.Context, job sandbox.Job) (*sandbox.Report, error) {
	var inputs []string
	for _, in := range job.Order.Inputs {
		inputs = append(inputs, asked(in))
	}
	c.mu.Lock()
	c.orders = append(c.orders, inputs)
	c.mu.Unlock()
	if c.hold != nil {
		<-c.hold
	}
	if job.Order.Op != protocol.OpProject {
		return nil, fmt.Errorf("order %q", job.Order.Op)
	}
	a := &protocol.Answer{}
	for i, in := range job.Order.Inputs {
		if in.Filter == "BAD" {
			return &sandbox.Report{Answer: &protocol.Answer{Error: &protocol.UserError{Kind: "sql", Message: "filter of table: BAD"}}}, nil
		}
		name := fmt.Sprintf("%d.parquet", i)
		if err := job.Files(name, int64(len(asked(in))), strings.NewReader(asked(in))); err != nil {
			return nil, err
		}
		a.Projected = append(a.Projected, protocol.Projection{File: name, Columns: []protocol.Column{{Name: "c", Type: "BIGINT"}}})
	}
	return &sandbox.Report{Answer: a}, nil
}

func projecting(t *testing.T) (*cutters, *Session) {
	boxes := &cutters{}
	rt := New(boxes, Environments{}, Budget{CPUs: 8, Memory: 1 << 40}, slog.New(slog.DiscardHandler))
	s := rt.Session(nil, nil, Options{TempDir: t.TempDir()})
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if left, _ := os.ReadDir(s.opt.TempDir); len(left) > 0 {
			t.Errorf("%d files are left", len(left))
		}
	})
	return boxes, s
}

func input(name string, tree byte, filter string, columns ...string) Bound {
	meta := &table.Snapshot{Format: table.Format, Columns: []table.Column{{Name: "a", Type: "BIGINT"}, {Name: "b", Type: "BIGINT"}}}
	return Bound{Input: plan.Input{Table: name, Param: "p", Columns: columns, Filter: filter}, Table: &Table{Tree: objects.OID{tree}, Meta: meta}}
}

// stageInto stages inputs and returns what the function finds in each file.
func stageInto(t *testing.T, s *Session, bound ...Bound) ([]string, Usage, error) {
	var u Usage
	job := sandbox.Job{Order: &protocol.Order{}}
	if err := s.stageProjected(t.Context(), &job, bound, &u); err != nil {
		return nil, u, err
	}
	var found []string
	for i, in := range job.Inputs {
		path := filepath.Join(t.TempDir(), fmt.Sprint(i))
		if err := in.Link(path); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, string(text))
	}
	return found, u, nil
}

func TestInputsAreCutOnce(t *testing.T) {
	boxes, s := projecting(t)
	found, u, err := stageInto(t, s, input("x", 1, "a > 1", "a"), input("x", 1, "", "b"), input("y", 2, "", "a", "B"))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"x[a]a > 1", "x[b]"}; fmt.Sprint(found) != fmt.Sprint(want) {
		t.Errorf("the function finds %q, want %q", found, want)
	}
	// All columns and all rows: the parts themselves, in no sandbox.
	if len(boxes.orders) != 1 || len(boxes.orders[0]) != 2 || u.Sandboxes != 1 {
		t.Errorf("orders %q in %d sandboxes, want one with two inputs", boxes.orders, u.Sandboxes)
	}
	if _, u, err := stageInto(t, s, input("x", 1, "", "b")); err != nil || u.Sandboxes != 0 || len(boxes.orders) != 1 {
		t.Errorf("the same input again: %v, %d sandboxes", err, u.Sandboxes)
	}
	for _, other := range []Bound{input("x", 9, "", "b"), input("x", 1, "true", "b"), input("x", 1, "", "b", "a"), input("x", 1, "", "c")} {
		before := len(boxes.orders)
		if _, _, err := stageInto(t, s, other); err != nil {
			t.Fatal(err)
		}
		cut := len(boxes.orders) - before
		if want := 1; cut != want && len(other.Columns) < 2 {
			t.Errorf("another input %+v is cut %d times", other.Input, cut)
		}
	}
}

// Functions that need each other's inputs at the same time cut each once, and
// none waits for ever.
func TestConcurrentFunctionsShareInputs(t *testing.T) {
	boxes, s := projecting(t)
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			var bound []Bound
			for j := range 4 {
				bound = append(bound, input(fmt.Sprint("t", (i+j*(1+i%3))%7), 1, "", "a"))
			}
			found, _, err := stageInto(t, s, bound...)
			if err != nil {
				t.Error(err)
			}
			for j, b := range bound {
				if found[j] != b.Input.Table+"[a]" {
					t.Errorf("function %d finds %q in input %d", i, found[j], j)
				}
			}
		})
	}
	wg.Wait()
	cut := make(map[string]int)
	for _, o := range boxes.orders {
		for _, in := range o {
			cut[in]++
		}
	}
	if len(cut) != 7 {
		t.Errorf("cut: %v", cut)
	}
	for in, n := range cut {
		if n != 1 {
			t.Errorf("%s was cut %d times", in, n)
		}
	}
}

// A filter that fails is the failure of the function that wrote it, not of
// others that happen to read the same tables.
func TestBadFilterIsItsFunctionsOwn(t *testing.T) {
	boxes, s := projecting(t)
	boxes.hold = make(chan struct{}, 100)
	bad := make(chan error, 1)
	go func() {
		_, _, err := stageInto(t, s, input("x", 1, "", "a"), input("y", 1, "BAD"))
		bad <- err
	}()
	for held := false; !held; { // the bad one has claimed x
		boxes.mu.Lock()
		held = len(boxes.orders) == 1
		boxes.mu.Unlock()
	}
	good := make(chan error, 1)
	go func() {
		_, _, err := stageInto(t, s, input("x", 1, "", "a"))
		good <- err
	}()
	for range 3 {
		boxes.hold <- struct{}{}
	}
	var f *Failure
	if err := <-bad; !errors.As(err, &f) || !strings.Contains(f.Text, "filter of table: BAD") {
		t.Errorf("the function with the bad filter: %v", err)
	}
	if err := <-good; err != nil {
		t.Errorf("the other: %v", err)
	}
}
