package objects

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/headgate/headgate/objects/backend"
	"github.com/headgate/headgate/objects/pack"
)

// Waiting for the disk overlaps well; more than this many fsyncs at once gain nothing.
const syncsAtOnce = 8

// Migrate makes the quarantine's objects durable and then visible in the store,
// and leaves the quarantine empty: it may take new ones. It refuses a quarantine
// that is not connected. After any other error it can only be discarded.
//
// Raw blobs come first, they name nothing; then the pack, which nobody sees
// before its index; then the index. So a crash at any point leaves a closed store.
func (q *Quarantine) Migrate(ctx context.Context) error {
	if err := q.lockConnected(ctx); err != nil {
		return err
	}
	defer q.mu.Unlock()
	if err := q.migrate(ctx); err != nil {
		q.err = fmt.Errorf("migrate: %w", err)
		return q.err
	}
	return nil
}

// lockConnected takes the lock on a quarantine that is connected: objects may
// land while it is checked, then it is checked again.
func (q *Quarantine) lockConnected(ctx context.Context) error {
	for {
		q.mu.RLock()
		checked := q.packEnd
		q.mu.RUnlock()
		if err := q.CheckConnected(ctx, nil); err != nil {
			return fmt.Errorf("migrate: %w", err)
		}
		q.mu.Lock()
		if q.err != nil {
			defer q.mu.Unlock()
			return q.err
		}
		if q.packEnd == checked {
			return nil
		}
		q.mu.Unlock()
	}
}

func (q *Quarantine) migrate(ctx context.Context) error {
	q.s.gate.RLock()
	defer q.s.gate.RUnlock()
	if err := q.pardonNamed(ctx); err != nil {
		return err
	}
	var raws []backend.Adoption
	for oid := range q.raw {
		raws = append(raws, backend.Adoption{Key: rawKey(oid), Path: q.rawPath(oid)})
	}
	if err := syncFiles(raws); err != nil {
		return err
	}
	if err := q.s.take(ctx, raws); err != nil {
		return err
	}
	if q.pack != nil {
		if err := q.migratePack(ctx); err != nil {
			return err
		}
	}
	clear(q.raw)
	clear(q.small)
	q.links = newLinks()
	q.s.autoRepack()
	return nil
}

// migratePack ends the pack with its count and checksum and moves it.
func (q *Quarantine) migratePack(ctx context.Context) error {
	if _, err := q.pack.WriteAt(pack.AppendHeader(nil, uint32(len(q.small))), 0); err != nil {
		return err
	}
	h := sha1.New()
	if _, err := io.Copy(h, io.NewSectionReader(q.pack, 0, q.packEnd)); err != nil {
		return err
	}
	var sum OID
	h.Sum(sum[:0])
	if _, err := q.pack.WriteAt(sum[:], q.packEnd); err != nil {
		return err
	}
	if err := q.pack.Chmod(0o444); err != nil {
		return err
	}
	if err := q.pack.Sync(); err != nil {
		return err
	}
	entries := make([]pack.IndexEntry, 0, len(q.small))
	for oid, e := range q.small {
		entries = append(entries, pack.IndexEntry{OID: oid, Offset: e.offset, CRC: e.crc})
	}
	idx := filepath.Join(q.dir, "idx")
	encoded := pack.EncodeIndex(entries, sum)
	if err := writeFile(idx, func(w io.Writer) error { _, err := w.Write(encoded); return err }); err != nil {
		return err
	}
	id := sum.String()
	// The same bytes may be there, and condemned.
	if err := q.s.pardon(ctx, nil, []string{id}); err != nil {
		return err
	}
	if err := q.s.take(ctx, []backend.Adoption{{Key: packPrefix + id + packSuffix, Path: q.pack.Name()}}); err != nil {
		return err
	}
	if err := q.s.take(ctx, []backend.Adoption{{Key: packPrefix + id + idxSuffix, Path: idx}}); err != nil {
		return err
	}
	if err := q.s.addPack(ctx, id); err != nil {
		return err
	}
	err := q.pack.Close()
	q.pack, q.packEnd = nil, 0
	return err
}

// take moves finished, fsynced files into the backend, in order and durably.
func (s *Store) take(ctx context.Context, files []backend.Adoption) error {
	if len(files) == 0 {
		return nil
	}
	if a, ok := s.b.(backend.Adopter); ok {
		err := a.Adopt(ctx, files)
		if !cannotLink(err) {
			return err
		}
	}
	for _, file := range files {
		if err := s.putFile(ctx, file); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) putFile(ctx context.Context, file backend.Adoption) error {
	f, err := os.Open(file.Path)
	if errors.Is(err, os.ErrNotExist) {
		// Adopt took it before it failed on another one.
		_, err = s.b.Stat(ctx, file.Key)
		return err
	}
	if err != nil {
		return err
	}
	if err := errors.Join(s.b.Put(ctx, file.Key, f), f.Close()); err != nil {
		return err
	}
	return os.Remove(file.Path)
}

func syncFiles(files []backend.Adoption) error {
	var g errgroup.Group
	g.SetLimit(syncsAtOnce)
	for _, file := range files {
		g.Go(func() error {
			// fsync of a read-only descriptor writes the file's data all the same.
			f, err := os.Open(file.Path)
			if err != nil {
				return err
			}
			return errors.Join(f.Sync(), f.Close())
		})
	}
	return g.Wait()
}

func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o444)
	if err != nil {
		return err
	}
	if err := write(f); err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(f.Sync(), f.Close())
}
