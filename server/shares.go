package server

import "sync"

// shares counts what many hold of something, so that nobody holds more than a
// share of it. It is safe for concurrent use.
type shares[K comparable] struct {
	limit int

	mu   sync.Mutex
	held map[K]int
}

func newShares[K comparable](limit int) *shares[K] {
	return &shares[K]{limit: limit, held: make(map[K]int)}
}

// take returns false if who holds all that it may.
func (s *shares[K]) take(who K) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[who] >= s.limit {
		return false
	}
	s.held[who]++
	return true
}

// give returns what was taken.
func (s *shares[K]) give(who K) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[who]--; s.held[who] <= 0 {
		delete(s.held, who)
	}
}
