package sandbox

import (
	"context"
	"path/filepath"
	"runtime"
	"sort"
	"time"
)

const (
	// settle is how long after the last change the refill waits: the orders of
	// one run follow each other closely, and starting a sandbox takes 0.3 s of CPU.
	settle = 50 * time.Millisecond
	// retry is how long after a sandbox that failed to start another is tried.
	retry = 10 * time.Second
)

// begin counts a job in; jobs hold back the refill.
func (m *Manager) begin() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	m.active++
	m.wg.Add(1)
	return nil
}

func (m *Manager) end() {
	m.mu.Lock()
	m.active--
	m.signal()
	m.mu.Unlock()
	m.wg.Done()
}

// signal wakes everybody who waits for the pool to change. The caller holds m.mu.
func (m *Manager) signal() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// plan is what a pooled sandbox is started with.
func (m *Manager) plan(prog program, lim Limits, w weight) boxPlan {
	p := boxPlan{prog: prog, pids: lim.Pids, weight: w}
	if m.rootless {
		p.bytes = addressSpace(lim.Memory)
	}
	return p
}

// take returns a sandbox for a job: a waiting one, else one that is starting,
// else a new one.
func (m *Manager) take(prog program, lim Limits) (b *box, warm bool, err error) {
	plan := m.plan(prog, lim, weightJob)
	for {
		b := m.pop(plan)
		if b == nil {
			break
		}
		if b.hasExited() {
			m.log.Warn("a waiting sandbox died", "sandbox", b.id, "program", prog.String(), "err", b.died())
			m.retire(b)
			continue
		}
		return b, b.isReady(), nil
	}
	b, err = m.start(plan)
	return b, false, err
}

// pop takes the best fitting sandbox out of the pool.
func (m *Manager) pop(plan boxPlan) *box {
	m.mu.Lock()
	defer m.mu.Unlock()
	boxes := m.pool[plan.prog]
	best := -1
	for i, b := range boxes {
		if b.pids != plan.pids || b.bytes != plan.bytes {
			continue
		}
		if best < 0 || !boxes[best].isReady() && b.isReady() {
			best = i
		}
	}
	if best < 0 {
		return nil
	}
	b := boxes[best]
	m.pool[plan.prog] = append(boxes[:best:best], boxes[best+1:]...)
	m.signal()
	return b
}

// wanted is how many sandboxes of each program wait when all is quiet.
func (m *Manager) wanted(prog program) int {
	if prog.kind == KindPython {
		return m.cfg.WarmPython
	}
	return m.cfg.WarmWorkers
}

// lacking returns a program whose pool is not full, and whether all are full
// and ready. The caller holds m.mu.
func (m *Manager) lacking() (prog program, some, settled bool) {
	progs := make([]program, 0, len(m.programs))
	for p := range m.programs {
		progs = append(progs, p)
	}
	// Workers first: every run needs them.
	sort.Slice(progs, func(i, j int) bool {
		if progs[i].kind != progs[j].kind {
			return progs[i].kind == KindWorker
		}
		return progs[i].python < progs[j].python
	})
	settled = true
	for _, p := range progs {
		if !some && len(m.pool[p]) < m.wanted(p) {
			prog, some = p, true
		}
		for _, b := range m.pool[p] {
			settled = settled && b.isReady()
		}
	}
	return prog, some, settled && !some
}

// refill keeps the pool full. It starts one sandbox at a time, at the lowest CPU
// weight, and only while fewer jobs run than the machine has processors, so that
// it lives on what runs leave idle. Ten jobs in a row of 0.6 s each on two cores,
// both ways interleaved on a loaded machine, took 5.9 to 10.1 s this way (7 to 10
// of them warm) and 6.5 to 13.1 s with a refill that waits for the last one (4 warm).
func (m *Manager) refill() {
	defer m.wg.Done()
	cores := runtime.NumCPU()
	for m.ctx.Err() == nil {
		m.mu.Lock()
		prog, some, _ := m.lacking()
		busy := m.active >= cores
		changed := m.changed
		m.mu.Unlock()
		if !some || busy {
			select {
			case <-changed:
				m.pause(settle)
			case <-m.ctx.Done():
			}
			continue
		}
		if err := m.add(prog); err != nil && m.ctx.Err() == nil {
			m.log.Error("cannot start a sandbox ahead of time", "program", prog.String(), "err", err)
			m.pause(retry)
		}
	}
}

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
func (m *Manager) add(prog program) error {
	b, err := m.start(m.plan(prog, DefaultLimits, weightBoot))
	if err != nil {
		return err
	}
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		m.retire(b)
		return ErrClosed
	}
	m.pool[prog] = append(m.pool[prog], b)
	m.mu.Unlock()
	err = b.await(m.ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.signal()
	if err == nil {
		return nil
	}
	for i, other := range m.pool[prog] {
		if other == b {
			m.pool[prog] = append(m.pool[prog][:i:i], m.pool[prog][i+1:]...)
			m.retire(b)
			return err
		}
	}
	return nil // a job took it, and reports how it ended
}

// AwaitWarm returns when the pool is full and every sandbox in it waits for its
// order, or when ctx ends.
func (m *Manager) AwaitWarm(ctx context.Context) error {
	for {
		m.mu.Lock()
		_, _, settled := m.lacking()
		closed, changed := m.closed, m.changed
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
