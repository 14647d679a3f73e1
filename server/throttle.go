package server

import (
	"container/list"
	"net/netip"
	"sync"
	"time"
)

// Bounds of the throttle. Tokens have 256 bits: nobody guesses one, however fast.
// What it is for is the client that asks again and again with a token that has
// ended: it must not fill the log, or keep the processor busy for others.
const (
	freeFailures  = 3 // of an address, before it has to wait
	firstDelay    = 250 * time.Millisecond
	maxDelay      = 8 * time.Second
	forgetAfter   = 10 * time.Minute
	maxAddresses  = 4096
	maxWaiting    = 256 // answers that are held back at a time
	maxWaitingOne = 4   // of them, to one address
)

// throttle slows down addresses whose log-ins fail. Only failures wait: who shares
// an address with somebody who has a wrong token does not notice. Its memory is
// bounded; the addresses that failed least recently are forgotten first. It is safe
// for concurrent use.
type throttle struct {
	mu      sync.Mutex
	by      map[netip.Prefix]*list.Element // of *failures
	recent  list.List                      // the front failed last
	waiting int
}

// failures are those of one address.
type failures struct {
	from    netip.Prefix
	count   int
	last    time.Time
	waiting int
}

// network is what counts as one address: an IPv4 address, or an IPv6 /64, which is
// what one customer has at least.
func network(remote string) netip.Prefix {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{} // all that cannot be told apart are one
	}
	addr := ap.Addr().Unmap().WithZone("")
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	prefix, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}

// fail notes a failure. It returns how long the answer is to be held back, with a
// function to call when that is over; ok is false if as many as may wait do so.
func (t *throttle) fail(remote string, now time.Time) (delay time.Duration, done func(), ok bool) {
	from := network(remote)
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.of(from)
	if now.Sub(f.last) > forgetAfter {
		f.count = 0
	}
	f.count++
	f.last = now
	if f.count <= freeFailures {
		return 0, func() {}, true
	}
	if f.waiting == maxWaitingOne || t.waiting == maxWaiting {
		return maxDelay, nil, false
	}
	delay = min(maxDelay, firstDelay<<min(f.count-freeFailures-1, 10))
	f.waiting++
	t.waiting++
	return delay, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		f.waiting--
		t.waiting--
	}, true
}

// of returns the failures of an address, which is the most recent one then.
func (t *throttle) of(from netip.Prefix) *failures {
	if e, ok := t.by[from]; ok {
		t.recent.MoveToFront(e)
		return e.Value.(*failures)
	}
	if t.by == nil {
		t.by = make(map[netip.Prefix]*list.Element)
	}
	if len(t.by) == maxAddresses {
		oldest := t.recent.Back()
		delete(t.by, t.recent.Remove(oldest).(*failures).from)
	}
	f := &failures{from: from}
	t.by[from] = t.recent.PushFront(f)
	return f
}
