package backend

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// Memory is a Backend for tests and for lakes that need not last.
type Memory struct {
	mu   sync.RWMutex
	data map[string]content
}

// content is never changed in place.
type content struct {
	b        []byte
	modified time.Time
}

func (c content) info(key string) Info {
	return Info{Key: key, Size: int64(len(c.b)), Modified: c.modified}
}

// NewMemory returns an empty backend.
func NewMemory() *Memory {
	return &Memory{data: make(map[string]content)}
}

// Put implements Backend.
func (m *Memory) Put(ctx context.Context, key string, r io.Reader) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	b, err := io.ReadAll(ctxReader{ctx, r})
	if err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.data[key] = content{b, time.Now()}
	return nil
}

func (m *Memory) get(ctx context.Context, key string) (content, error) {
	if err := ctx.Err(); err != nil {
		return content{}, err
	}
	if err := CheckKey(key); err != nil {
		return content{}, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	c, ok := m.data[key]
	if !ok {
		return content{}, fmt.Errorf("%w: %s", ErrNotFound, key)
	}
	return c, nil
}

// Get implements Backend.
func (m *Memory) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	c, err := m.get(ctx, key)
	if err != nil {
		return nil, err
	}
	b := c.b
	if off < 0 {
		return nil, fmt.Errorf("get %s: negative offset %d", key, off)
	}
	b = b[min(off, int64(len(b))):]
	if n >= 0 {
		b = b[:min(n, int64(len(b)))]
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

// Stat implements Backend.
func (m *Memory) Stat(ctx context.Context, key string) (Info, error) {
	c, err := m.get(ctx, key)
	if err != nil {
		return Info{}, err
	}
	return c.info(key), nil
}

// Delete implements Backend.
func (m *Memory) Delete(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := CheckKey(key); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.data, key)
	return nil
}

// List implements Backend.
func (m *Memory) List(ctx context.Context, prefix string, fn func(Info) error) error {
	m.mu.RLock()
	var found []Info
	for key, c := range m.data {
		if strings.HasPrefix(key, prefix) {
			found = append(found, c.info(key))
		}
	}
	m.mu.RUnlock()
	slices.SortFunc(found, func(a, b Info) int { return strings.Compare(a.Key, b.Key) })
	for _, info := range found {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fn(info); err != nil {
			return err
		}
	}
	return nil
}

// ctxReader ends a copy when its context ends.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
