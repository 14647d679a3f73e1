package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// pushing is a push under way.
type pushing struct {
	q        *Quarantine
	tip      OID
	ref      string
	migrated bool
}

// lakeModel drives a store through random histories.
type lakeModel struct {
	t       *rapid.T
	w       *world
	dir     string
	s       *Store
	c       client
	refs    map[string]OID
	commits []OID
	pushes  []*pushing
	serial  int
}

// roots also takes pushes further while a collection is under way: into the
// store if they can get there at that moment, and to refs.
func (m *lakeModel) roots(context.Context) (Roots, error) {
	if left := m.w.left; len(m.pushes) > 0 && rapid.Bool().Draw(m.t, "meanwhile") {
		open := m.s.gate.TryRLock()
		if open {
			m.s.gate.RUnlock()
		}
		m.w.left = -1
		i := rapid.IntRange(0, len(m.pushes)-1).Draw(m.t, "push")
		switch p := m.pushes[i]; {
		case p.migrated:
			m.refs[p.ref] = p.tip
			m.end(i)
		case open:
			m.tick()
			err := p.q.CheckConnected(m.t.Context(), []OID{p.tip})
			if err == nil {
				err = p.q.Migrate(m.t.Context())
				p.migrated = true
			}
			var missing *MissingError
			if err != nil && !errors.As(err, &missing) {
				m.t.Fatal(err)
			}
		}
		m.w.left = left
	}
	return Roots{Refs: slices.Collect(maps.Values(m.refs))}, nil
}

func (m *lakeModel) tick() { m.w.clock = m.w.clock.Add(10 * time.Second) }

// survive opens the store anew if err is a kill.
func (m *lakeModel) survive(err error) bool {
	if err == nil {
		return true
	}
	if !errors.Is(err, errKilled) {
		m.t.Fatal(err)
	}
	m.restart()
	return false
}

func (m *lakeModel) restart() {
	if err := m.s.Close(); err != nil {
		m.t.Fatal(err)
	}
	m.w.left = -1
	m.pushes = nil
	s, err := OpenStore(m.w, m.dir+"/staging", Options{RawThreshold: 100})
	if err != nil {
		m.t.Fatal(err)
	}
	s.now = m.w.now
	m.s = s
}

// mayDie lets the next changes end in a kill, now and then.
func (m *lakeModel) mayDie() {
	if rapid.IntRange(0, 2).Draw(m.t, "dies") == 0 {
		m.w.left = rapid.IntRange(0, 12).Draw(m.t, "after")
	}
}

// begin starts a push: of a new commit, or of one that was there before. The
// client leaves out what the refs that it saw lead to, and sometimes other things,
// which may be there and may not.
func (m *lakeModel) begin() {
	if len(m.pushes) >= 3 {
		return
	}
	known := m.c.reach(slices.Collect(maps.Values(m.refs))...)
	var tip OID
	if len(m.commits) > 0 && rapid.IntRange(0, 2).Draw(m.t, "again") == 0 {
		tip = rapid.SampledFrom(m.commits).Draw(m.t, "tip")
	} else {
		var blobs, parents []OID
		for range rapid.IntRange(1, 3).Draw(m.t, "blobs") {
			blobs = append(blobs, m.c.blob(rapid.IntRange(0, 19).Draw(m.t, "blob")))
		}
		if len(m.commits) > 0 && rapid.Bool().Draw(m.t, "child") {
			parents = []OID{rapid.SampledFrom(m.commits).Draw(m.t, "parent")}
		}
		m.serial++
		tip = m.c.commit(m.serial, m.c.tree(m.t, blobs...), parents...)
		m.commits = append(m.commits, tip)
	}
	send := m.c.reach(tip)
	maps.DeleteFunc(send, func(oid OID, _ bool) bool { return known[oid] })
	if rapid.IntRange(0, 2).Draw(m.t, "lazy") == 0 {
		for _, oid := range slices.SortedFunc(maps.Keys(send), compareOIDs) {
			if rapid.Bool().Draw(m.t, "left out") {
				delete(send, oid)
			}
		}
	}
	q, err := m.s.Quarantine()
	if err == nil {
		err = m.c.send(m.t.Context(), q, send)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	m.pushes = append(m.pushes, &pushing{q: q, tip: tip, ref: fmt.Sprint("r", rapid.IntRange(0, 3).Draw(m.t, "ref"))})
}

// proceed takes a push one step further: to the store, or to its ref.
func (m *lakeModel) proceed() {
	if len(m.pushes) == 0 {
		return
	}
	i := rapid.IntRange(0, len(m.pushes)-1).Draw(m.t, "push")
	p := m.pushes[i]
	if p.migrated {
		m.refs[p.ref] = p.tip
		m.end(i)
		return
	}
	err := p.q.CheckConnected(m.t.Context(), []OID{p.tip})
	if err == nil {
		m.mayDie()
		err = p.q.Migrate(m.t.Context())
	}
	var missing *MissingError
	if errors.As(err, &missing) {
		m.end(i)
		m.w.left = -1
		return
	}
	if m.survive(err) {
		m.w.left = -1
		p.migrated = true
	}
}

func (m *lakeModel) end(i int) {
	if err := m.pushes[i].q.Discard(); err != nil {
		m.t.Fatal(err)
	}
	m.pushes = slices.Delete(m.pushes, i, i+1)
}

// sound checks what must hold at every moment.
func (m *lakeModel) sound() {
	for oid := range m.c.reach(slices.Collect(maps.Values(m.refs))...) {
		o := m.c[oid]
		data, err := ReadAll(m.t.Context(), m.s, oid, o.t, 1<<20)
		if err != nil || !bytes.Equal(data, o.data) {
			m.t.Fatalf("%s %s, which a ref leads to: %v", o.t, oid, err)
		}
	}
	_, err := m.s.Check(m.t.Context(), func(f Fault) { m.t.Errorf("fault: %+v", f) })
	if err != nil {
		m.t.Fatal(err)
	}
	if m.t.Failed() {
		m.t.FailNow()
	}
}

// Whatever pushes, ref deletions, joins and collections come in whatever order,
// and wherever the process is killed: what a ref leads to is there, and so is what
// any object names that a push may rely on.
func TestPropertyCollect(t *testing.T) {
	dir := fastDir(t)
	rapid.Check(t, func(t *rapid.T) {
		if err := os.RemoveAll(dir + "/staging"); err != nil {
			t.Fatal(err)
		}
		m := &lakeModel{t: t, w: newWorld(), dir: dir, c: make(client), refs: make(map[string]OID)}
		s, err := OpenStore(m.w, dir+"/staging", Options{RawThreshold: 100})
		if err != nil {
			t.Fatal(err)
		}
		s.now, m.s = m.w.now, s
		t.Repeat(map[string]func(*rapid.T){
			"":        func(*rapid.T) { m.tick(); m.sound() },
			"begin":   func(*rapid.T) { m.begin() },
			"proceed": func(*rapid.T) { m.proceed() },
			"abandon": func(t *rapid.T) {
				if len(m.pushes) > 0 {
					m.end(rapid.IntRange(0, len(m.pushes)-1).Draw(t, "push"))
				}
			},
			"delete ref": func(t *rapid.T) { delete(m.refs, fmt.Sprint("r", rapid.IntRange(0, 3).Draw(t, "ref"))) },
			"gc": func(t *rapid.T) {
				grace := time.Duration(rapid.SampledFrom([]int{-1000, 0, 30}).Draw(t, "grace")) * time.Second
				m.mayDie()
				_, err := m.s.GC(t.Context(), GCOptions{Roots: m.roots, Grace: grace})
				if m.survive(err) {
					m.w.left = -1
				}
			},
			"repack": func(t *rapid.T) {
				m.mayDie()
				_, err := m.s.Repack(t.Context())
				if m.survive(err) {
					m.w.left = -1
				}
			},
			"restart": func(*rapid.T) { m.restart() },
		})
		// With nothing under way, nothing stays but what refs lead to.
		for len(m.pushes) > 0 {
			m.end(0)
		}
		m.tick()
		if _, err := m.s.GC(t.Context(), GCOptions{Roots: m.roots, Grace: -time.Hour}); err != nil {
			t.Fatal(err)
		}
		m.sound()
		live := m.c.reach(slices.Collect(maps.Values(m.refs))...)
		stats, err := m.s.Check(t.Context(), func(Fault) {})
		if err != nil || stats.Objects != len(live) {
			t.Fatalf("%d objects are left, want %d, %v", stats.Objects, len(live), err)
		}
		if err := m.s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
