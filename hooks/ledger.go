package hooks

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/hooks/proof"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/tree"
	"github.com/headgate/headgate/refs"
)

// notesRef is the ref of the notes that prove gate commits.
const notesRef = refs.Name(proof.Notes)

// maxNotesRaces bounds how often a publication finds the notes moved by somebody
// who is not of this process, which nothing does.
const maxNotesRaces = 8

// ledger orders the publications of one lake, all of which move the notes' ref.
// Their own compare-and-swap would have one of many win each round; here they take
// turns, and those that waited together have their notes written together. Whoever
// finds nobody before it pays nothing for that: its note is in the run's own pack.
type ledger struct {
	turn sync.Mutex // held while the notes' ref is read, and until it has moved

	mu      sync.Mutex
	waiting []*publication // their objects are durable, all but the notes' trees
}

// ledgerOf returns the ledger of a lake.
func (g *Gate) ledgerOf(l *lake.Lake) *ledger {
	g.mu.Lock()
	defer g.mu.Unlock()
	led := g.ledgers[l.Name]
	if led == nil {
		led = &ledger{}
		g.ledgers[l.Name] = led
	}
	return led
}

// publish makes a publication durable and visible, with its note, in one
// transaction of refs. Its quarantine is migrated, also when the error is a
// *refs.StaleError.
func (g *Gate) publish(ctx context.Context, l *lake.Lake, p *publication) error {
	led := g.ledgerOf(l)
	if led.turn.TryLock() {
		defer led.turn.Unlock()
		return g.publishAlone(ctx, l, p)
	}
	if err := p.q.Migrate(ctx); err != nil {
		return fmt.Errorf("store the result: %w", err)
	}
	p.done = make(chan error, 1)
	led.mu.Lock()
	led.waiting = append(led.waiting, p)
	led.mu.Unlock()
	led.turn.Lock()
	defer led.turn.Unlock()
	select {
	case err := <-p.done: // by one that had its turn before
		return err
	default:
	}
	led.mu.Lock()
	batch := led.waiting
	led.waiting = nil
	led.mu.Unlock()
	// Others wait for the outcome, whatever becomes of this one's own context.
	g.publishBatch(context.WithoutCancel(ctx), l, batch)
	return <-p.done
}

// publishAlone publishes with one migration for all that the run made.
func (g *Gate) publishAlone(ctx context.Context, l *lake.Lake, p *publication) error {
	tip, root, err := notesAt(ctx, l)
	if err != nil {
		return err
	}
	notes, _, err := g.addNote(ctx, p.q, tip, root, p)
	if err != nil {
		return err
	}
	if err := p.q.Migrate(ctx); err != nil {
		return fmt.Errorf("store the result: %w", err)
	}
	err = l.Refs.Apply(ctx, append(p.updates, refs.Update{Name: notesRef, Old: tip, New: notes}), p.cause)
	if notesMoved(err) {
		p.done = make(chan error, 1)
		g.publishBatch(ctx, l, []*publication{p})
		return <-p.done
	}
	return err
}

// publishBatch publishes one after another, each in its own transaction, and
// writes their notes together. One that is stale fails alone; then the notes of
// those behind it, which have its note below them, are made anew.
func (g *Gate) publishBatch(ctx context.Context, l *lake.Lake, batch []*publication) {
	for races := 0; len(batch) > 0; {
		tip, chain, err := g.writeNotes(ctx, l, batch)
		if err != nil {
			for _, p := range batch {
				p.done <- err
			}
			return
		}
		for i, p := range batch {
			err := l.Refs.Apply(ctx, append(p.updates[:len(p.updates):len(p.updates)], refs.Update{Name: notesRef, Old: tip, New: chain[i]}), p.cause)
			if notesMoved(err) && races < maxNotesRaces {
				races++
				batch = batch[i:]
				break
			}
			p.done <- err
			if err != nil || i == len(batch)-1 {
				batch = batch[i+1:]
				break
			}
			tip = chain[i]
		}
	}
}

// writeNotes makes the notes of a batch durable, each commit on top of the one
// before, and returns them and the tip that they follow.
func (g *Gate) writeNotes(ctx context.Context, l *lake.Lake, batch []*publication) (tip objects.OID, chain []objects.OID, err error) {
	q, err := l.Objects.Quarantine()
	if err != nil {
		return tip, nil, err
	}
	defer func() { err = errors.Join(err, q.Discard()) }()
	tip, root, err := notesAt(ctx, l)
	if err != nil {
		return tip, nil, err
	}
	at := tip
	for _, p := range batch {
		if at, root, err = g.addNote(ctx, q, at, root, p); err != nil {
			return tip, nil, err
		}
		chain = append(chain, at)
	}
	if err := q.Migrate(ctx); err != nil {
		return tip, nil, fmt.Errorf("store the notes: %w", err)
	}
	return tip, chain, nil
}

// addNote puts a publication's note on top of the notes at tip, whose tree is root.
func (g *Gate) addNote(ctx context.Context, q *objects.Quarantine, tip, root objects.OID, p *publication) (notes, grown objects.OID, err error) {
	grown, err = tree.Apply(ctx, q, root, map[string]tree.Edit{proof.Path(p.commit): {Mode: gitobj.ModeFile, OID: p.note}})
	if err != nil {
		return notes, grown, fmt.Errorf("write the note: %w", err)
	}
	c := &gitobj.Commit{Tree: grown, Message: fmt.Sprintf("Prove %s\n", p.commit)}
	if !tip.IsZero() {
		c.Parents = []objects.OID{tip}
	}
	notes, err = g.sign(ctx, q, c)
	return notes, grown, err
}

// notesAt returns the tip of the notes and its tree; zero if there are none.
func notesAt(ctx context.Context, l *lake.Lake) (tip, root objects.OID, err error) {
	tip, err = l.Refs.Get(ctx, notesRef)
	if errors.Is(err, refs.ErrNotFound) {
		return objects.OID{}, objects.OID{}, nil
	}
	if err != nil {
		return tip, root, err
	}
	c, err := readCommit(ctx, l.Objects, tip)
	if err != nil {
		return tip, root, fmt.Errorf("notes at %s: %w", tip, err)
	}
	return tip, c.Tree, nil
}

func notesMoved(err error) bool {
	var stale *refs.StaleError
	return errors.As(err, &stale) && stale.Name == notesRef
}
