package sandbox

import (
	"context"
	"math"
	"path/filepath"
	"runtime"
	"slices"
	"time"
)

const (
	// settle is how long after the last change the refill waits: the orders of
	// one run follow each other closely, and starting a sandbox takes 0.15 s of CPU.
	settle = 50 * time.Millisecond
	// retry is how long after a sandbox that failed to start another of its shape
	// is tried.
	retry = 10 * time.Second
	// idle is how long a shape that is no default keeps its warm sandboxes unused.
	idle = 30 * time.Minute
	// maxShelves bounds how many shapes are remembered: beyond it, the one that was
	// used longest ago is forgotten.
	maxShelves = 64
)

// What a waiting sandbox is taken to cost until one was measured.
const (
	presumedWorker = 40 << 20
	presumedPython = 120 << 20
)

// shape is what a sandbox was started for, and what of its limits cannot be
// changed from outside once it is: a job takes only a sandbox of its own shape.
type shape struct {
	program
	pids         int
	fileSize     int64 // RLIMIT_FSIZE
	addressSpace int64 // RLIMIT_AS, if rootless
}

// shelf holds the sandboxes of one shape that wait for an order.
type shelf struct {
	boxes    []*box
	starting int
	demand   int       // how many are worth having: one for each use so far
	used     time.Time // last, by a job; zero if never
	failed   time.Time // last, to start
	pinned   bool      // a default: kept though nobody used it yet
}

func (m *Manager) shapeOf(prog program, lim Limits) shape {
	sh := shape{program: prog, pids: lim.Pids, fileSize: m.cfg.Scratch}
	if lim.FileSize > 0 {
		sh.fileSize = min(lim.FileSize, m.cfg.Scratch)
	}
	if m.rootless {
		sh.addressSpace = addressSpace(lim.Memory)
	}
	return sh
}

// stock gives the defaults a shelf: the worker, which every run needs, and the
// first interpreter. Everything else earns its own by use.
func (m *Manager) stock() {
	m.shelves = make(map[shape]*shelf)
	m.costs = make(map[program]int64)
	pin := func(prog program) {
		m.shelves[m.shapeOf(prog, Limits{}.withDefaults())] = &shelf{pinned: true, demand: m.most(prog)}
	}
	pin(program{kind: KindWorker})
	if len(m.cfg.Interpreters) > 0 {
		pin(program{kind: KindPython, python: m.cfg.Interpreters[0].Version})
	}
}

// most is how many sandboxes of one shape wait at most.
func (m *Manager) most(prog program) int {
	if prog.kind == KindPython {
		return m.cfg.WarmPython
	}
	return m.cfg.WarmWorkers
}

// begin counts a job in, with the processors that it may use; jobs hold back the
// refill.
func (m *Manager) begin(cpus float64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	m.active++
	m.busy += thousandths(cpus)
	m.wg.Add(1)
	return nil
}

func (m *Manager) end(cpus float64) {
	m.mu.Lock()
	m.active--
	m.busy -= thousandths(cpus)
	m.signal()
	m.mu.Unlock()
	m.wg.Done()
}

// signal wakes everybody who waits for the pool to change. The caller holds m.mu.
func (m *Manager) signal() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// take returns a sandbox for a job: a waiting one, else one that is starting,
// else a new one.
func (m *Manager) take(sh shape) (b *box, warm bool, err error) {
	m.note(sh)
	for {
		b := m.pop(sh)
		if b == nil {
			break
		}
		if b.hasExited() {
			m.log.Warn("a waiting sandbox died", "sandbox", b.id, "program", sh.String(), "err", b.died())
			m.retire(b)
			continue
		}
		return b, b.isReady(), nil
	}
	b, err = m.start(sh, weightJob)
	return b, false, err
}

// note remembers that a job uses a shape.
func (m *Manager) note(sh shape) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.most(sh.program) == 0 {
		return
	}
	s := m.shelves[sh]
	if s == nil {
		if len(m.shelves) >= maxShelves {
			m.forget()
		}
		s = &shelf{}
		m.shelves[sh] = s
	}
	s.used = time.Now()
	s.demand = min(s.demand+1, m.most(sh.program))
}

// forget drops the shelf that was used longest ago. The caller holds m.mu.
func (m *Manager) forget() {
	order := m.byUse()
	for _, sh := range slices.Backward(order) {
		if !m.shelves[sh].pinned {
			m.drop(sh)
			return
		}
	}
}

func (m *Manager) drop(sh shape) {
	for _, b := range m.shelves[sh].boxes {
		m.retire(b)
	}
	delete(m.shelves, sh)
}

// pop takes the best sandbox off a shelf: one that is ready, if there is any.
func (m *Manager) pop(sh shape) *box {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.shelves[sh]
	if s == nil || len(s.boxes) == 0 {
		return nil
	}
	i := max(0, slices.IndexFunc(s.boxes, (*box).isReady))
	b := s.boxes[i]
	s.boxes = slices.Delete(s.boxes, i, i+1)
	m.signal()
	return b
}

// byUse orders the shapes by what comes first when memory is short: the default
// worker, then what was used last. The caller holds m.mu.
func (m *Manager) byUse() []shape {
	order := make([]shape, 0, len(m.shelves))
	for sh := range m.shelves {
		order = append(order, sh)
	}
	slices.SortFunc(order, func(a, b shape) int {
		sa, sb := m.shelves[a], m.shelves[b]
		first := func(sh shape, s *shelf) bool { return s.pinned && sh.kind == KindWorker }
		switch {
		case first(a, sa) != first(b, sb):
			if first(a, sa) {
				return -1
			}
			return 1
		default:
			return sb.used.Compare(sa.used)
		}
	})
	return order
}

// cost is what a waiting sandbox of a program takes of the memory budget.
func (m *Manager) cost(prog program) int64 {
	if n := m.costs[prog]; n > 0 {
		return n
	}
	if prog.kind == KindPython {
		return presumedPython
	}
	return presumedWorker
}

// measured takes in what a waiting sandbox holds, smoothed.
func (m *Manager) measured(prog program, n int64) {
	switch old := m.costs[prog]; {
	case n <= 0:
	case old == 0:
		m.costs[prog] = n
	default:
		m.costs[prog] = (3*old + n) / 4
	}
}

// targets is how many sandboxes of each shape should wait: one of each, the last
// used first, then a second of each that has seen that much demand, and so on, as
// long as the budget lasts. The caller holds m.mu.
func (m *Manager) targets() (order []shape, want map[shape]int) {
	order = m.byUse()
	want = make(map[shape]int, len(order))
	left := m.cfg.WarmMemory
	for grew := true; grew; {
		grew = false
		for _, sh := range order {
			if c := m.cost(sh.program); want[sh] < m.shelves[sh].demand && c <= left {
				want[sh]++
				left -= c
				grew = true
			}
		}
	}
	return order, want
}

// next brings the pool closer to its targets: it retires what is too much, and
// returns a shape of which one more should be started. settled means that
// there is nothing to do or to wait for. The caller holds m.mu.
func (m *Manager) next() (sh shape, some, settled bool) {
	now := time.Now()
	for sh, s := range m.shelves {
		if !s.pinned && now.Sub(s.used) > idle {
			m.drop(sh)
		}
	}
	order, want := m.targets()
	settled = true
	fewest := 0
	for _, o := range order {
		s := m.shelves[o]
		for len(s.boxes) > want[o] {
			last := len(s.boxes) - 1
			m.retire(s.boxes[last])
			s.boxes = s.boxes[:last]
		}
		for _, b := range s.boxes {
			settled = settled && b.isReady()
		}
		have := len(s.boxes) + s.starting
		settled = settled && s.starting == 0 && have >= want[o]
		if have < want[o] && now.Sub(s.failed) > retry && (!some || have < fewest) {
			sh, some, fewest = o, true, have
		}
	}
	return sh, some, settled
}

// refill keeps the pool at its targets. It starts sandboxes at the lowest CPU
// weight, and together with the jobs that run never more than the machine has
// processors, so that it lives on what they leave idle. Ten jobs in a row of 0.6 s
// each on two cores, both ways interleaved on a loaded machine, took 5.9 to 10.1 s
// this way (7 to 10 of them warm) and 6.5 to 13.1 s with a refill that waits for
// the last one (4 warm).
//
// Where jobs may use every processor, only what has run out is started: even at
// the lowest weight a start takes caches and turns from the threads of a job. That
// was the half of what a sandbox cost queries on two cores.
func (m *Manager) refill() {
	defer m.wg.Done()
	tick := time.NewTicker(retry)
	defer tick.Stop()
	for m.ctx.Err() == nil {
		m.mu.Lock()
		sh, some, _ := m.next()
		some = some && m.room(sh)
		changed := m.changed
		if some {
			m.starting++
			s := m.shelves[sh]
			s.starting++
			m.wg.Add(1)
			go m.add(sh, s)
		}
		m.mu.Unlock()
		if some {
			continue
		}
		select {
		case <-changed:
			m.pause(settle)
		case <-tick.C:
		case <-m.ctx.Done():
		}
	}
}

// room tells whether one more sandbox may be started ahead of time, of shape sh.
// The caller holds m.mu.
func (m *Manager) room(sh shape) bool {
	cores := runtime.NumCPU()
	if len(m.shelves[sh].boxes) == 0 && m.active+m.starting < cores {
		return true
	}
	return m.busy+1000*(m.starting+1) <= 1000*cores
}

// thousandths is cpus in thousandths of a processor, which add up without a rest.
func thousandths(cpus float64) int { return int(math.Ceil(cpus * 1000)) }

func (m *Manager) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-m.ctx.Done():
	}
}

// add starts one sandbox for the pool and waits until it waits. A job may take
// it before that.
func (m *Manager) add(sh shape, s *shelf) {
	defer m.wg.Done()
	b, err := m.start(sh, weightBoot)
	m.mu.Lock()
	switch {
	case err != nil:
	case m.shelves[sh] == s:
		s.boxes = append(s.boxes, b)
	default: // closed, or forgotten
		m.retire(b)
	}
	m.mu.Unlock()
	var held int64
	if err == nil {
		if err = b.await(m.ctx); err == nil {
			held = b.group.held()
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.signal()
	m.starting--
	s.starting--
	if err == nil {
		m.measured(sh.program, held)
		return
	}
	if i := slices.Index(s.boxes, b); i >= 0 {
		s.boxes = slices.Delete(s.boxes, i, i+1)
		m.retire(b)
	} else if b != nil {
		return // a job took it, and reports how it ended
	}
	if m.ctx.Err() == nil {
		s.failed = time.Now()
		m.log.Error("cannot start a sandbox ahead of time", "program", sh.String(), "err", err)
	}
}

// AwaitWarm returns when the pool is full and every sandbox in it waits for its
// order, or when ctx ends.
func (m *Manager) AwaitWarm(ctx context.Context) error {
	for {
		m.mu.Lock()
		closed, changed := m.closed, m.changed
		settled := false
		if !closed {
			_, _, settled = m.next()
		}
		m.mu.Unlock()
		switch {
		case closed:
			return ErrClosed
		case settled:
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (m *Manager) inDir(b *box) string { return filepath.Join(b.dir, "in") }
