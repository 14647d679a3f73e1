// Package hooks is the gate: it decides what becomes of a push. Refs that are
// not gated move at once; a gated branch moves only to a commit that the server
// made and signed itself, after every model and verifier passed on its exact
// tree. It does not know the git protocol, and it does not run user code itself.
package hooks

import (
	"io"

	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/refs"
)

// Identity is the authenticated user of a session.
type Identity struct {
	Name        string
	Admin       bool
	Groups      []string
	Fingerprint string // of the key that authenticated, "SHA256:..."
	From        string // network address of the session, for the audit log
}

// Push is what a client asks for, after its objects were received and checked.
type Push struct {
	Lake    *lake.Lake
	Who     Identity
	Updates []refs.Update
	Options []string // push options, as sent
	Atomic  bool

	// Objects holds what was pushed: ingested and connected, not yet migrated.
	Objects *objects.Quarantine

	// Progress takes lines for the pusher. It never blocks a run: what is
	// written after the client has gone is dropped.
	Progress io.Writer
}

// Outcome is what became of one update.
type Outcome struct {
	Name refs.Name
	Err  error // nil is ok; else its text is the one-line reason after "ng"

	// NewOID, if not zero, is what the ref is at instead of what was pushed. It
	// is only ever an object that the client has (report-status-v2, option new-oid).
	NewOID refs.OID
}
