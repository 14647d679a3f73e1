package lake

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/backend"
	"github.com/headgate/headgate/refs"
)

// Fault is one thing that is wrong with a lake.
type Fault struct {
	Kind   string `json:"kind"`          // an objects.FaultKind, "ref" or "table"
	OID    string `json:"oid,omitempty"` // of the object at fault
	Key    string `json:"key,omitempty"` // of the file at fault, below the lake's objects/
	Ref    string `json:"ref,omitempty"` // the ref at fault, or the one that shows it
	Detail string `json:"detail"`
}

// Report is what Fsck found.
type Report struct {
	Lake     Name    `json:"lake"`
	Objects  int     `json:"objects"`
	RawBlobs int     `json:"raw_blobs"`
	Packs    int     `json:"packs"`
	Bytes    int64   `json:"bytes"` // read
	Refs     int     `json:"refs"`
	Tables   int     `json:"tables"` // snapshots that were looked at
	Faults   []Fault `json:"faults"`
	// Warnings are tables that do not fit their table.json where no gate has passed
	// them: the store is sound, but somebody pushed them so.
	Warnings []Fault `json:"warnings"`
}

// Text is the report for people: one line, and one for each fault and warning.
func (r *Report) Text() string {
	var b strings.Builder
	verdict := "sound"
	if n := len(r.Faults); n > 0 {
		verdict = fmt.Sprintf("NOT SOUND, faults: %d", n)
	}
	fmt.Fprintf(&b, "%s: %d objects (%d raw) in %d packs, %d refs, %d tables, %d bytes read: %s\n",
		r.Lake, r.Objects, r.RawBlobs, r.Packs, r.Refs, r.Tables, r.Bytes, verdict)
	for _, list := range []struct {
		what   string
		faults []Fault
	}{{"fault", r.Faults}, {"warning", r.Warnings}} {
		for _, f := range list.faults {
			fmt.Fprintf(&b, "  %s: %s\n", list.what, f.text())
		}
	}
	return b.String()
}

func (f Fault) text() string {
	s := f.Kind
	for _, where := range []string{f.Ref, f.OID, f.Key} {
		if where != "" {
			s += " " + where
		}
	}
	return s + ": " + f.Detail
}

// FsckOptions say what else Fsck looks at.
type FsckOptions struct {
	AllCommits bool // the tables of all commits that refs lead to, not of the refs' tips only
}

// Fsck checks a lake that no server has open: its directory below root. The
// error says that it could not look.
func Fsck(ctx context.Context, root string, n Name, opt FsckOptions, log *slog.Logger) (_ *Report, err error) {
	dir := filepath.Join(root, url.PathEscape(string(n)))
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("lake %q: %w", n, ErrNotFound)
	}
	// Opening would make what is missing, and an empty store is a sound one.
	for _, part := range []string{"objects", "refs.db"} {
		if _, err := os.Stat(filepath.Join(dir, part)); err != nil {
			return nil, fmt.Errorf("lake %q: %w", n, err)
		}
	}
	b, err := backend.NewLocal(filepath.Join(dir, "objects"))
	if err != nil {
		return nil, err
	}
	store, err := objects.OpenStore(b, filepath.Join(dir, "quarantine"), objects.Options{Logger: log})
	var damaged *objects.PackError
	if errors.As(err, &damaged) {
		// No server opens such a lake, and what else is wrong cannot be told.
		fault := Fault{Kind: string(objects.Damaged), Key: "pack/" + damaged.ID + ".idx", Detail: damaged.Error()}
		return &Report{Lake: n, Faults: []Fault{fault}, Warnings: []Fault{}}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("lake %q: %w", n, err)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	names, err := refs.OpenBolt(filepath.Join(dir, "refs.db"))
	if err != nil {
		return nil, fmt.Errorf("lake %q: %w", n, err)
	}
	defer func() { err = errors.Join(err, names.Close()) }()
	return (&Lake{Name: n, Objects: store, Refs: names}).Fsck(ctx, opt)
}

// Fsck checks an open lake, while it is in use: every object, that every ref
// names one that is there, and that every table.json which a ref's tip shows (or
// every commit) is true of its directory. The error says that it could not look.
func (l *Lake) Fsck(ctx context.Context, opt FsckOptions) (*Report, error) {
	r := &Report{Lake: l.Name, Faults: []Fault{}, Warnings: []Fault{}}
	// The refs come first: what they name was there before them, so a push that
	// comes meanwhile is no fault.
	list, err := l.Refs.List(ctx, "refs/")
	if err != nil {
		return nil, err
	}
	r.Refs = len(list)
	stats, err := l.Objects.Check(ctx, func(f objects.Fault) {
		fault := Fault{Kind: string(f.Kind), Key: f.Key, Detail: f.Detail}
		if !f.OID.IsZero() {
			fault.OID = f.OID.String()
		}
		r.Faults = append(r.Faults, fault)
	})
	if err != nil {
		return nil, err
	}
	r.Objects, r.RawBlobs, r.Packs, r.Bytes = stats.Objects, stats.RawBlobs, stats.Packs, stats.Bytes
	for _, ref := range list {
		l.checkRef(ctx, r, ref)
	}
	t := &tableCheck{l: l, r: r, commits: make(map[objects.OID]bool), trees: make(map[objects.OID]bool)}
	if err := t.refs(ctx, list, opt.AllCommits); err != nil {
		return nil, err
	}
	return r, ctx.Err()
}

// checkRef checks that a ref names an object that is there and may be named so.
func (l *Lake) checkRef(ctx context.Context, r *Report, ref refs.Ref) {
	fault := func(format string, args ...any) {
		r.Faults = append(r.Faults, Fault{Kind: "ref", Ref: string(ref.Name), OID: ref.OID.String(), Detail: fmt.Sprintf(format, args...)})
	}
	info, err := l.Objects.Stat(ctx, ref.OID)
	switch {
	case errors.Is(err, objects.ErrNotFound):
		fault("the ref names an object that is missing")
		return
	case err != nil:
		fault("the ref names an object that cannot be read: %v", err)
		return
	case info.Type != objects.Commit:
		if strings.HasPrefix(string(ref.Name), branchPrefix) {
			fault("the branch names a %s, not a commit", info.Type)
		}
	}
}
