package objects

import (
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
