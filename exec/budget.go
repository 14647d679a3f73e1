package exec

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/headgate/headgate/exec/sandbox"
)

// Budget is what all functions of a server together may use at a time. A job
// counts with its limits, so that functions that stay within theirs never press
// each other out of memory.
type Budget struct {
	CPUs   float64
	Memory int64 // bytes
}

// maxOvertaken is how often others may start before a job that waits because it
// is large. After that nobody starts until it fits: it must not starve.
const maxOvertaken = 8

// errTooLarge says that a job fits no budget that is free, however long it waits.
var errTooLarge = errors.New("larger than the whole budget")

// amount is a share of a Budget. Processors are counted in thousandths, so that
// what is given back adds up to what was taken.
type amount struct {
	milliCPUs int64
	memory    int64
}

func (a amount) plus(b amount) amount {
	return amount{a.milliCPUs + b.milliCPUs, a.memory + b.memory}
}
func (a amount) minus(b amount) amount {
	return amount{a.milliCPUs - b.milliCPUs, a.memory - b.memory}
}
func (a amount) fitsIn(b amount) bool { return a.milliCPUs <= b.milliCPUs && a.memory <= b.memory }

// amountOf is what a job with these limits takes.
func amountOf(l sandbox.Limits) amount {
	if l.CPUs <= 0 {
		l.CPUs = sandbox.DefaultLimits.CPUs
	}
	if l.Memory <= 0 {
		l.Memory = sandbox.DefaultLimits.Memory
	}
	return amount{milliCPUs: int64(l.CPUs*1000 + 0.5), memory: l.Memory}
}

// scheduler shares a budget among sessions. Whoever uses least of it is served
// next, so a run of a thousand functions does not keep a run of one waiting.
// Within a session jobs start in the order in which they came. It is safe for
// concurrent use.
type scheduler struct {
	total amount

	mu       sync.Mutex
	free     amount
	sessions map[*Session]*account
	turn     int64 // rises by two with each start
}

// account is what one session uses and waits for; it exists as long as either.
type account struct {
	used    amount
	served  int64 // turn of its last start
	waiting []*waiter
}

type waiter struct {
	amount
	start     chan struct{} // closed when the job may start
	started   bool
	overtaken int
}

func newScheduler(b Budget) *scheduler {
	total := amount{milliCPUs: int64(b.CPUs*1000 + 0.5), memory: b.Memory}
	return &scheduler{total: total, free: total, sessions: make(map[*Session]*account)}
}

// acquire waits until the session may use need and returns how to give it back.
// It fails with errTooLarge, or when ctx ends. A session must not acquire while
// it holds what another job of its own waits for: a job takes all that it needs at once.
func (sc *scheduler) acquire(ctx context.Context, s *Session, need amount) (release func(), err error) {
	if !need.fitsIn(sc.total) {
		return nil, errTooLarge
	}
	w := &waiter{amount: need, start: make(chan struct{})}
	sc.mu.Lock()
	a := sc.sessions[s]
	if a == nil {
		a = &account{served: sc.turn - 1} // before who was served last, behind who waits longer
		sc.sessions[s] = a
	}
	a.waiting = append(a.waiting, w)
	sc.dispatch()
	sc.mu.Unlock()
	select {
	case <-w.start:
	case <-ctx.Done():
		sc.mu.Lock()
		defer sc.mu.Unlock()
		if w.started {
			sc.giveBack(s, need)
		} else {
			a.waiting = slices.DeleteFunc(a.waiting, func(o *waiter) bool { return o == w })
			sc.forget(s)
		}
		sc.dispatch() // it may have been what others waited behind
		return nil, ctx.Err()
	}
	var once sync.Once
	return func() {
		once.Do(func() {
			sc.mu.Lock()
			defer sc.mu.Unlock()
			sc.giveBack(s, need)
			sc.dispatch()
		})
	}, nil
}

// giveBack returns what a job used. The caller holds sc.mu.
func (sc *scheduler) giveBack(s *Session, used amount) {
	sc.free = sc.free.plus(used)
	sc.sessions[s].used = sc.sessions[s].used.minus(used)
	sc.forget(s)
}

// forget drops the account of a session that neither uses nor waits. The caller holds sc.mu.
func (sc *scheduler) forget(s *Session) {
	if a := sc.sessions[s]; a != nil && len(a.waiting) == 0 && a.used == (amount{}) {
		delete(sc.sessions, s)
	}
}

// dispatch starts all jobs that may start. The caller holds sc.mu.
func (sc *scheduler) dispatch() {
	for sc.startOne() {
	}
}

func (sc *scheduler) startOne() bool {
	var queue []*account
	for _, a := range sc.sessions {
		if len(a.waiting) > 0 {
			queue = append(queue, a)
		}
	}
	passed := func(a *account) int { return min(a.waiting[0].overtaken, maxOvertaken) / maxOvertaken }
	slices.SortFunc(queue, func(a, b *account) int {
		return cmp.Or(cmp.Compare(passed(b), passed(a)), cmp.Compare(sc.share(a.used), sc.share(b.used)), cmp.Compare(a.served, b.served))
	})
	for _, a := range queue {
		w := a.waiting[0]
		if !w.fitsIn(sc.free) {
			if w.overtaken >= maxOvertaken {
				return false
			}
			continue
		}
		// Those behind it count, too: whoever comes next may again use less than they.
		for _, o := range queue {
			if !o.waiting[0].fitsIn(sc.free) {
				o.waiting[0].overtaken++
			}
		}
		sc.turn += 2
		a.waiting, a.served, a.used = a.waiting[1:], sc.turn, a.used.plus(w.amount)
		sc.free = sc.free.minus(w.amount)
		w.started = true
		close(w.start)
		return true
	}
	return false
}

// share is how much of the budget an amount is, by what it takes most of.
func (sc *scheduler) share(a amount) float64 {
	return max(float64(a.milliCPUs)/float64(sc.total.milliCPUs), float64(a.memory)/float64(sc.total.memory))
}

// tooLarge is what whoever wrote the function is told.
func (b Budget) tooLarge(l sandbox.Limits) *Failure {
	return &Failure{Kind: "limits", Text: fmt.Sprintf("asks for %s of memory and %g processor(s); this server has %s and %g for all functions together. Ask for less, or have the administrator raise --function-memory or --function-cpus",
		size(l.Memory), l.CPUs, size(b.Memory), b.CPUs)}
}
