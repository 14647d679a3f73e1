package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The rows that are looked at lie among this many others, so that the table has
// some parts and most parts cannot hold a row.
const (
	fillerRows = 60_000
	watched    = 12
	stride     = fillerRows / watched
)

// rowState is a row's cells by column; nil if there is no row.
type rowState map[string]string

type tableState struct {
	rows  map[int]rowState // of the watched ids
	extra bool             // has a third column
}

// csv writes the whole table.
func (s tableState) csv() []byte {
	var b bytes.Buffer
	b.WriteString("id,n")
	if s.extra {
		b.WriteString(",extra")
	}
	b.WriteByte('\n')
	for id := range fillerRows {
		row := rowState{"n": fmt.Sprint(id % 97), "extra": "f"}
		if id%stride == 7 {
			if row = s.rows[id]; row == nil {
				continue
			}
		}
		fmt.Fprintf(&b, "%d,%s", id, row["n"])
		if s.extra {
			b.WriteString("," + row["extra"])
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}

func (s tableState) copy() tableState {
	c := tableState{rows: make(map[int]rowState), extra: s.extra}
	for id, row := range s.rows {
		c.rows[id] = maps.Clone(row)
	}
	return c
}

// cells are those that a reader sees: without a third column there is none.
func (s tableState) cells(id int) rowState {
	row := s.rows[id]
	if row == nil {
		return nil
	}
	seen := rowState{"id": fmt.Sprint(id), "n": row["n"]}
	if s.extra {
		seen["extra"] = row["extra"]
	}
	return seen
}

type madeCommit struct {
	oid     string
	parents []int
	state   tableState
}

// origin is what blame is to say, by its definition.
func origin(commits []madeCommit, at, id int, column string) string {
	value := commits[at].state.cells(id)[column]
	for _, p := range commits[at].parents {
		row := commits[p].state.cells(id)
		if v, ok := row[column]; ok && v == value {
			return origin(commits, p, id, column)
		}
	}
	return commits[at].oid
}

// TestBlameOnRandomHistories holds headgate blame, with real parts, a real git and
// the worker, against the definition, on histories with merges in which rows come, go
// and change, and a column comes and goes.
func TestBlameOnRandomHistories(t *testing.T) {
	tools := findTools(t)
	headgate := filepath.Join(tools.bin, "headgate")
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 1))
			dir := t.TempDir()
			do := func(args ...string) string {
				t.Helper()
				cmd := exec.Command(args[0], args[1:]...)
				cmd.Dir = dir
				cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b")
				var stderr bytes.Buffer
				cmd.Stderr = &stderr
				out, err := cmd.Output()
				if err != nil {
					t.Fatalf("%v: %v: %s", args, err, &stderr)
				}
				return strings.TrimSpace(string(out))
			}
			do("git", "init", "-q")
			var commits []madeCommit
			for i := range 12 {
				c := madeCommit{}
				var s tableState
				if i == 0 {
					s = tableState{rows: make(map[int]rowState)}
				} else {
					c.parents = []int{i - 1 - rng.IntN(min(i, 3))}
					if other := i - 1 - rng.IntN(min(i, 3)); other != c.parents[0] && rng.IntN(2) == 0 {
						c.parents = append(c.parents, other)
					}
					s = commits[c.parents[0]].state.copy()
					for _, p := range c.parents[1:] { // a merge takes some rows of the other side
						for id, row := range commits[p].state.rows {
							if rng.IntN(2) == 0 {
								s.rows[id] = maps.Clone(row)
							}
						}
					}
				}
				s.extra = s.extra != (rng.IntN(5) == 0)
				for range 1 + rng.IntN(4) {
					id := rng.IntN(watched)*stride + 7
					switch row := s.rows[id]; {
					case row == nil || rng.IntN(4) == 0:
						s.rows[id] = rowState{"n": fmt.Sprint(rng.IntN(3)), "extra": string(rune('a' + rng.IntN(3)))}
					case rng.IntN(4) == 0:
						delete(s.rows, id)
					default:
						row["n"] = fmt.Sprint(rng.IntN(3))
					}
				}
				c.state = s
				if err := os.WriteFile(filepath.Join(dir, ".git", "in.csv"), s.csv(), 0o600); err != nil {
					t.Fatal(err)
				}
				do(headgate, "import", ".git/in.csv", "--table", "x", "--key", "id", "--replace")
				do("git", "add", "-A")
				args := []string{"git", "commit-tree", do("git", "write-tree"), "-m", fmt.Sprint(i)}
				for _, p := range c.parents {
					args = append(args, "-p", commits[p].oid)
				}
				c.oid = do(args...)
				commits = append(commits, c)
			}
			tip := len(commits) - 1
			if parts, err := filepath.Glob(filepath.Join(dir, "tables", "x", "*.parquet")); err != nil || len(parts) < 3 {
				t.Fatalf("%d parts: too few for one to be passed over", len(parts))
			}
			asked := 0
			for _, id := range slices.Sorted(maps.Keys(commits[tip].state.rows)) {
				var got struct {
					Cells []struct{ Column, Value, Commit string }
				}
				if err := json.Unmarshal([]byte(do(headgate, "blame", "--json", "--key", fmt.Sprintf("id=%d", id), "x", commits[tip].oid)), &got); err != nil {
					t.Fatal(err)
				}
				want := commits[tip].state.cells(id)
				if len(got.Cells) != len(want) {
					t.Fatalf("row %d has %d cells, want %d", id, len(got.Cells), len(want))
				}
				for _, c := range got.Cells {
					asked++
					if from := origin(commits, tip, id, c.Column); c.Value != want[c.Column] || c.Commit != from {
						t.Errorf("row %d, %s=%s is of %s, want %s of %s", id, c.Column, c.Value, c.Commit, want[c.Column], from)
					}
				}
			}
			if asked < 8 {
				t.Errorf("only %d cells were asked for", asked)
			}
		})
	}
}
