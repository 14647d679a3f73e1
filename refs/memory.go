package refs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

var errClosed = errors.New("ref store is closed")

// memory is a Store that forgets.
type memory struct {
	mu     sync.RWMutex
	refs   map[Name]OID
	log    map[Name][]LogEntry // oldest first
	events []Event
	last   uint64 // number of the newest event
	closed bool
}

// NewMemory returns an empty store that keeps nothing on disk.
func NewMemory() Store {
	return &memory{refs: make(map[Name]OID), log: make(map[Name][]LogEntry)}
}

func (m *memory) get(name Name) (OID, bool) {
	oid, ok := m.refs[name]
	return oid, ok
}

func (m *memory) under(prefix string, gone map[Name]OID) (Name, bool) {
	for name := range m.refs {
		if _, leaves := gone[name]; !leaves && strings.HasPrefix(string(name), prefix) {
			return name, true
		}
	}
	return "", false
}

// rlock takes the lock for reading, if the store can be read.
func (m *memory) rlock(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.RLock()
	if m.closed {
		m.mu.RUnlock()
		return errClosed
	}
	return nil
}

func (m *memory) Get(ctx context.Context, name Name) (OID, error) {
	if err := m.rlock(ctx); err != nil {
		return OID{}, err
	}
	defer m.mu.RUnlock()
	oid, ok := m.refs[name]
	if !ok {
		return OID{}, fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	return oid, nil
}

func (m *memory) List(ctx context.Context, prefix string) ([]Ref, error) {
	if err := m.rlock(ctx); err != nil {
		return nil, err
	}
	defer m.mu.RUnlock()
	var list []Ref
	for _, name := range slices.Sorted(maps.Keys(m.refs)) {
		if strings.HasPrefix(string(name), prefix) {
			list = append(list, Ref{name, m.refs[name]})
		}
	}
	return list, nil
}

func (m *memory) Apply(ctx context.Context, updates []Update, cause Cause) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errClosed
	}
	if err := check(m, updates); err != nil {
		return err
	}
	cause = stamp(cause)
	if cause.Taken > 0 {
		m.events = slices.DeleteFunc(m.events, func(e Event) bool { return e.Number <= cause.Taken })
	}
	if cause.Event != nil {
		m.last++
		m.events = append(m.events, Event{m.last, slices.Clone(cause.Event)})
	}
	cause.Event, cause.Taken = nil, 0
	for _, u := range updates {
		if u.Old == u.New {
			continue
		}
		if u.New.IsZero() {
			delete(m.refs, u.Name)
		} else {
			m.refs[u.Name] = u.New
		}
		m.log[u.Name] = append(m.log[u.Name], LogEntry{u, cause})
	}
	return nil
}

func (m *memory) Log(ctx context.Context, name Name, limit int) ([]LogEntry, error) {
	if err := m.rlock(ctx); err != nil {
		return nil, err
	}
	defer m.mu.RUnlock()
	log := m.log[name]
	log = slices.Clone(log[max(0, len(log)-max(limit, 0)):])
	slices.Reverse(log)
	return log, nil
}

func (m *memory) LogSince(ctx context.Context, since time.Time, fn func(LogEntry) error) error {
	if err := m.rlock(ctx); err != nil {
		return err
	}
	var list []LogEntry
	for _, log := range m.log {
		for _, e := range log {
			if !e.When.Before(since) {
				list = append(list, e)
			}
		}
	}
	m.mu.RUnlock()
	slices.SortStableFunc(list, func(a, b LogEntry) int { return b.When.Compare(a.When) })
	for _, e := range list {
		if err := fn(e); err != nil {
			return err
		}
	}
	return nil
}

// Events implements Journal.
func (m *memory) Events(ctx context.Context, limit int) ([]Event, error) {
	if err := m.rlock(ctx); err != nil {
		return nil, err
	}
	defer m.mu.RUnlock()
	return slices.Clone(m.events[:min(limit, len(m.events))]), nil
}

func (m *memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}
