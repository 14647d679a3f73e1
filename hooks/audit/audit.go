// Package audit checks what a branch's history says of itself: that each commit on
// its first-parent line is a gate commit, signed, proven by its note, and true of
// its tree. It needs the objects, the notes and the gate's keys, and nothing of the
// server that made them. What the models give when they run again is a replay's
// business.
package audit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/headgate/headgate/hooks"
	"github.com/headgate/headgate/hooks/policy"
	"github.com/headgate/headgate/hooks/proof"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/tree"
)

// maxCommit bounds a commit object, in bytes.
const maxCommit = 16 << 20

// chunk is how many commits one worker checks in a row: neighbours share most of
// their trees.
const chunk = 128

// Auditor audits one branch.
type Auditor struct {
	// Open returns a reader of the clone's objects. Each worker has one of its own,
	// and ends it with close.
	Open    func() (r objects.Reader, close func(), err error)
	Signers *hooks.AllowedSigners

	Branch string                 // "main"
	Tip    objects.OID            // of the branch
	Notes  objects.OID            // the tip of refs/notes/headgate; zero if the clone has none
	Runs   map[string]objects.OID // run records that are in the clone, by run id; others are not looked for
	// Since leaves out commits before it, and whether the history was rewritten.
	Since    time.Time
	Progress func(done, total int) // may be nil; it is called by many goroutines
}

// Kinds of findings.
const (
	KindSignature = "signature" // of a commit or an envelope
	KindHistory   = "history"   // what the line is made of
	KindTrailers  = "trailers"
	KindNote      = "note"
	KindTable     = "table"
	KindVerifier  = "verifier"
	KindRecord    = "record" // a run record
	KindReplay    = "replay"
)

// Finding is something that is not as it should be.
type Finding struct {
	Commit string `json:"commit"` // oid
	Run    string `json:"run,omitempty"`
	Kind   string `json:"kind"`
	Text   string `json:"text"` // one sentence
}

// Report is the result of an audit, and what --json prints.
type Report struct {
	Format   int       `json:"format"` // 1
	Branch   string    `json:"branch"`
	Tip      string    `json:"tip"`
	Since    time.Time `json:"since,omitzero"`
	Commits  int       `json:"commits"` // that were checked
	Proofs   int       `json:"proofs"`  // notes that are whole and signed
	Records  int       `json:"records"` // run records that were in the clone
	Findings []Finding `json:"findings"`
	Notes    []string  `json:"notes"`             // what could not be looked at, one sentence each
	Replayed []string  `json:"replays,omitempty"` // commits that were replayed
	Seed     uint64    `json:"seed,omitempty"`    // that chose them
	Seconds  float64   `json:"seconds"`

	gates []objects.OID
}

// commit is one of the line.
type commit struct {
	oid  objects.OID
	when time.Time // the latest committer date of it and of all before it
}

// audit is one under way.
type audit struct {
	*Auditor
	line    []commit // newest first
	proofs  map[objects.OID]objects.OID
	whole   atomic.Int64
	records atomic.Int64
	done    atomic.Int64
	shallow bool // the line ends with a commit whose parent is not in the clone
}

// Audit checks the branch. What is wrong is in the report; an error means that it
// could not look.
func (a *Auditor) Audit(ctx context.Context) (*Report, error) {
	started := time.Now()
	u := &audit{Auditor: a}
	r, end, err := a.Open()
	if err != nil {
		return nil, err
	}
	defer end()
	rep := &Report{Format: 1, Branch: a.Branch, Tip: a.Tip.String(), Since: a.Since, Findings: []Finding{}, Notes: []string{}}
	if err := u.walk(ctx, r); err != nil {
		return nil, err
	}
	if u.shallow {
		rep.Notes = append(rep.Notes, "this is a shallow clone: what is older than its first commit was not looked at; git fetch --unshallow")
	}
	if err := u.readNotes(ctx, r, rep); err != nil {
		return nil, err
	}
	if err := u.check(ctx, rep); err != nil {
		return nil, err
	}
	if a.Since.IsZero() && !u.shallow {
		if err := u.rewritten(ctx, r, rep); err != nil {
			return nil, err
		}
	}
	rep.Commits, rep.Proofs, rep.Records = len(u.line), int(u.whole.Load()), int(u.records.Load())
	rep.Seconds = time.Since(started).Seconds()
	return rep, nil
}

// walk lists the line.
func (u *audit) walk(ctx context.Context, r objects.Reader) error {
	for at := u.Tip; ; {
		c, err := readCommit(ctx, r, at)
		if errors.Is(err, objects.ErrNotFound) && len(u.line) > 0 {
			u.shallow = true
			break
		}
		if err != nil {
			return fmt.Errorf("commit %s: %w", at, err)
		}
		if c.Committer.When.Before(u.Since) {
			break
		}
		u.line = append(u.line, commit{at, c.Committer.When})
		if len(c.Parents) == 0 {
			break
		}
		at = c.Parents[0]
	}
	// A key that is not valid any more cannot sign into the past: what follows a
	// commit was made after it, whatever date it has.
	for i := len(u.line) - 2; i >= 0; i-- {
		if before := u.line[i+1].when; u.line[i].when.Before(before) {
			u.line[i].when = before
		}
	}
	return nil
}

// readNotes reads the tree of the notes.
func (u *audit) readNotes(ctx context.Context, r objects.Reader, rep *Report) error {
	u.proofs = make(map[objects.OID]objects.OID)
	if u.Notes.IsZero() {
		return nil
	}
	c, err := readCommit(ctx, r, u.Notes)
	if err != nil {
		return fmt.Errorf("%s: %w", proof.Notes, err)
	}
	if err := u.Signers.Verify(c); err != nil {
		rep.Findings = append(rep.Findings, Finding{Commit: u.Notes.String(), Kind: KindSignature, Text: fmt.Sprintf("%s was not written by the gate: %v", proof.Notes, err)})
	}
	return tree.Walk(ctx, r, c.Tree, func(path string, e gitobj.Entry) error {
		if of, ok := proof.Commit(path); ok && e.Mode != gitobj.ModeTree {
			u.proofs[of] = e.OID
		}
		return nil
	})
}

// check checks the commits of the line, many at a time.
func (u *audit) check(ctx context.Context, rep *Report) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	chunks := slices.Collect(slices.Chunk(u.line, chunk))
	found := make([][]Finding, len(chunks))
	notes := make([][]string, len(chunks))
	gates := make([][]objects.OID, len(chunks))
	var next atomic.Int64
	var failed error
	var once sync.Once
	var wait sync.WaitGroup
	for range min(len(chunks), runtime.GOMAXPROCS(0)) {
		wait.Go(func() {
			err := func() error {
				r, end, err := u.Open()
				if err != nil {
					return err
				}
				defer end()
				w := newChecker(u, r)
				for i := int(next.Add(1)) - 1; i < len(chunks); i = int(next.Add(1)) - 1 {
					w.findings, w.notes, w.gates = nil, nil, nil
					for _, c := range chunks[i] {
						if err := w.commit(ctx, c); err != nil {
							return fmt.Errorf("commit %s: %w", c.oid, err)
						}
						if n := u.done.Add(1); u.Progress != nil {
							u.Progress(int(n), len(u.line))
						}
					}
					found[i], notes[i], gates[i] = w.findings, w.notes, w.gates
				}
				return nil
			}()
			if err != nil {
				once.Do(func() { failed = err })
				cancel()
			}
		})
	}
	wait.Wait()
	rep.Findings = append(rep.Findings, slices.Concat(found...)...)
	rep.Notes = append(rep.Notes, slices.Concat(notes...)...)
	rep.gates = slices.Concat(gates...)
	return failed
}

// rewritten looks for commits that were published to the branch and are not on its
// line any more.
func (u *audit) rewritten(ctx context.Context, r objects.Reader, rep *Report) error {
	tip, err := readCommit(ctx, r, u.Tip)
	if err != nil {
		return err
	}
	if pol, err := policyOf(ctx, r, tip.Tree); err != nil || pol.GateOf(u.Branch) != policy.Required {
		return err // whoever may push to it may rewrite it
	}
	on := make(map[objects.OID]bool, len(u.line))
	for _, c := range u.line {
		on[c.oid] = true
	}
	for of, blob := range u.proofs {
		if on[of] {
			continue
		}
		note, err := objects.ReadAll(ctx, r, blob, objects.Blob, proof.MaxNote)
		if err != nil {
			return fmt.Errorf("note of %s: %w", of, err)
		}
		e, s, err := proof.Open(note)
		if err != nil || s.Gate() != of.String() || s.Predicate.BuildDefinition.External.Target != u.ref() {
			continue // of another branch, or nobody's word
		}
		if u.Signers.VerifyProof(e, s.Predicate.RunDetails.Metadata.Finished) != nil {
			continue
		}
		rep.Findings = append(rep.Findings, Finding{Commit: of.String(), Run: s.Predicate.RunDetails.Metadata.InvocationID, Kind: KindHistory,
			Text: fmt.Sprintf("it was published to %s and is not on its line any more: the history was rewritten", u.Branch)})
	}
	return nil
}

func (u *audit) ref() string { return "refs/heads/" + u.Branch }

// Sample returns n of the audited gate commits, chosen by the seed; all if there
// are no more.
func (r *Report) Sample(n int, seed uint64) []objects.OID {
	all := slices.Clone(r.gates)
	rng := rand.New(rand.NewPCG(seed, seed))
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:min(n, len(all))]
}

// Found adds a finding of a replay.
func (r *Report) Found(commit objects.OID, text string) {
	r.Findings = append(r.Findings, Finding{Commit: commit.String(), Kind: KindReplay, Text: text})
}

func readCommit(ctx context.Context, r objects.Reader, oid objects.OID) (*gitobj.Commit, error) {
	data, err := objects.ReadAll(ctx, r, oid, objects.Commit, maxCommit)
	if err != nil {
		return nil, err
	}
	return gitobj.ParseCommit(data)
}
