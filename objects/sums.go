package objects

import (
	"sync"

	"github.com/headgate/headgate/objects/pack"
)

// maxSums bounds the memory of known sums to some 12 MB.
const maxSums = 1 << 18

// blobSums remembers the Adler-32 of raw blobs that came in a pack or were served
// once. A blob's content never changes, so neither does its sum; one that has left the store
// leaves a harmless entry.
type blobSums struct {
	mu    sync.Mutex
	byOID map[OID]uint32
}

// Adler32 implements pack.SumKeeper.
func (s *Store) Adler32(oid OID) (sum uint32, ok bool) {
	s.sums.mu.Lock()
	defer s.sums.mu.Unlock()
	sum, ok = s.sums.byOID[oid]
	return sum, ok
}

// KeepAdler32 implements pack.SumKeeper.
func (s *Store) KeepAdler32(oid OID, sum uint32) {
	s.sums.mu.Lock()
	defer s.sums.mu.Unlock()
	if s.sums.byOID == nil || len(s.sums.byOID) >= maxSums {
		s.sums.byOID = make(map[OID]uint32)
	}
	s.sums.byOID[oid] = sum
}

var _ pack.SumKeeper = (*Store)(nil)
