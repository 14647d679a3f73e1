package objects

import (
	"encoding/base64"
	"errors"
	"testing"

	"github.com/pjbgf/sha1cd"
)

// attacked is a hash that has found a collision attack.
type attacked struct{ sha1cd.CollisionResistantHash }

func (attacked) CollisionResistantSum([]byte) ([]byte, bool) { return make([]byte, 20), true }

// No colliding pair behind git's own header is known, so the verdict is made up;
// what counts is that it is heard, and that it is the pack's fault.
func TestCollisionIsRefused(t *testing.T) {
	n := &namer{h: attacked{sha1cd.New().(sha1cd.CollisionResistantHash)}}
	_, err := n.name()
	if !errors.Is(err, errCollision) {
		t.Fatalf("name of attacked content: %v", err)
	}
	var ie *IngestError
	if err := (&ingest{}).explain(err); !errors.As(err, &ie) {
		t.Errorf("a collision is not the pack's fault: %v", err)
	}
}

// shattered is the beginning of both files of the published SHA-1 collision
// (Stevens et al., "The first collision for full SHA-1", 2017), up to the end of
// the two blocks that collide.
const shattered = "JVBERi0xLjMKJeLjz9MKCgoxIDAgb2JqCjw8L1dpZHRoIDIgMCBSL0hlaWdodCAzIDAgUi9UeXBlIDQgMCBSL1N1YnR5cGUgNSAw" +
	"IFIvRmlsdGVyIDYgMCBSL0NvbG9yU3BhY2UgNyAwIFIvTGVuZ3RoIDggMCBSL0JpdHNQZXJDb21wb25lbnQgOD4+CnN0cmVhbQr/" +
	"2P/+ACRTSEEtMSBpcyBkZWFkISEhISGFL+wJIzl1nDmxocY8TJfh//4Bc0bckWa2fhGPApq2IbJWD/nKZ8yox/hbqEx5AwwrPeIY" +
	"+G2zqQkB1d9FwU8m/t+z3DjpasIv571yjw5FvOBG0jxXD+sUE5i7VS71oKgr4zH+pIA3uLXXHw4zLt+TrDUA603cDezBqGR5DHgs" +
	"diFWYN0wl5HQa9CvP5jNpLxGKbE="

// The hash that names objects finds the published attack where it works: not
// behind "blob 320", which shifts its blocks and changes the state that they
// were computed for, so the header is left out here.
func TestCollisionIsDetected(t *testing.T) {
	data, err := base64.StdEncoding.DecodeString(shattered)
	if err != nil || len(data) != 320 {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
	n := newNamer(Blob, int64(len(data)))
	n.h.Reset()
	if _, err := n.Write(data); err != nil {
		t.Fatal(err)
	}
	if _, err := n.name(); !errors.Is(err, errCollision) {
		t.Errorf("the name of an attack: %v", err)
	}
	// With its header it is a blob like any other, as it is to git.
	n = newNamer(Blob, int64(len(data)))
	if _, err := n.Write(data); err != nil {
		t.Fatal(err)
	}
	if _, err := n.name(); err != nil {
		t.Errorf("behind a header: %v", err)
	}
}
