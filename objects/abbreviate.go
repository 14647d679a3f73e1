package objects

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"sort"
	"strings"
)

// MinAbbreviation is the least number of hex digits that can stand for an oid, as
// in git (core.abbrev).
const MinAbbreviation = 4

// AmbiguousError says that an abbreviated oid is several objects'.
type AmbiguousError struct {
	Prefix string
	OIDs   []OID // some of them
}

func (e *AmbiguousError) Error() string {
	names := make([]string, len(e.OIDs))
	for i, oid := range e.OIDs {
		names[i] = oid.String()
	}
	return fmt.Sprintf("%q begins several oids: %s", e.Prefix, strings.Join(names, ", "))
}

// maxAmbiguous bounds the objects that are looked at for an abbreviated oid.
const maxAmbiguous = 1000

// FindAbbreviated returns the one object of type want, no blob, whose oid begins with
// prefix: 4 to 40 hex digits. The error wraps ErrNotFound if there is none and is an
// *AmbiguousError if there are several.
func (s *Store) FindAbbreviated(ctx context.Context, prefix string, want Type) (OID, error) {
	low := strings.ToLower(prefix)
	if len(low) < MinAbbreviation || len(low) > 2*len(OID{}) || strings.Trim(low, "0123456789abcdef") != "" {
		return OID{}, fmt.Errorf("%w: %q is not %d to %d hex digits", ErrNotFound, prefix, MinAbbreviation, 2*len(OID{}))
	}
	if want == Blob {
		return OID{}, errors.New("blobs have no abbreviations") // large ones are in no index
	}
	var fits []OID
	for _, oid := range s.smallWithPrefix(low) {
		info, err := s.Stat(ctx, oid)
		if errors.Is(err, ErrNotFound) {
			continue // it went in the meantime
		}
		if err != nil {
			return OID{}, err
		}
		if info.Type == want {
			fits = append(fits, oid)
		}
	}
	switch len(fits) {
	case 0:
		return OID{}, fmt.Errorf("%w: %s %s", ErrNotFound, want, prefix)
	case 1:
		return fits[0], nil
	}
	return OID{}, &AmbiguousError{prefix, fits[:min(len(fits), 5)]}
}

// smallWithPrefix returns the objects in packs whose oids begin with hex digits, in
// order, and not very many.
func (s *Store) smallWithPrefix(digits string) []OID {
	even := digits
	if len(even)%2 == 1 {
		even += "0"
	}
	from := OID{}
	_, _ = hex.Decode(from[:], []byte(even)) // the caller has looked at the digits
	s.mu.RLock()
	defer s.mu.RUnlock()
	seen := make(map[OID]bool)
	for _, pf := range s.small.packs {
		for pos := pf.idx.Seek(from); pos < pf.idx.Len() && len(seen) < maxAmbiguous; pos++ {
			oid := pf.idx.OID(pos)
			if !strings.HasPrefix(oid.String(), digits) {
				break
			}
			seen[oid] = true
		}
	}
	oids := make([]OID, 0, len(seen))
	for oid := range seen {
		oids = append(oids, oid)
	}
	sort.Slice(oids, func(i, j int) bool { return bytes.Compare(oids[i][:], oids[j][:]) < 0 })
	return oids
}
