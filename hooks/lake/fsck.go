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
	"github.com/headgate/headgate/objects/history"
	"github.com/headgate/headgate/objects/table"
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
	Tables   int     `json:"tables"` // snapshots that a branch, tag or run shows
	Faults   []Fault `json:"faults"`
	// Warnings are tables that do not fit their table.json: the store is sound,
	// but somebody pushed them so to a branch that is not gated.
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

// Fsck checks a lake that no server has open: its directory below root. The
// error says that it could not look.
func Fsck(ctx context.Context, root string, n Name, log *slog.Logger) (_ *Report, err error) {
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
	return (&Lake{Name: n, Objects: store, Refs: names}).Fsck(ctx)
}

// Fsck checks an open lake, while it is in use: every object, that every ref
// names one that is there, and that every table.json which a ref's tip shows is
// true of its directory. The error says that it could not look.
func (l *Lake) Fsck(ctx context.Context) (*Report, error) {
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
	seen := make(map[objects.OID]bool) // trees of commits, and of tables
	for _, ref := range list {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		l.checkRef(ctx, r, ref, seen)
	}
	return r, ctx.Err()
}

func (l *Lake) checkRef(ctx context.Context, r *Report, ref refs.Ref, seen map[objects.OID]bool) {
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
		if strings.HasPrefix(string(ref.Name), "refs/heads/") {
			fault("the branch names a %s, not a commit", info.Type)
		}
		return
	}
	commit, err := history.Commit(ctx, l.Objects, ref.OID)
	if err != nil {
		return // reported with the objects
	}
	if seen[commit.Tree] {
		return
	}
	seen[commit.Tree] = true
	warn := func(path, detail string) {
		r.Warnings = append(r.Warnings, Fault{Kind: "table", Ref: string(ref.Name), Detail: path + ": " + detail})
	}
	tables, err := table.Discover(ctx, l.Objects, commit.Tree)
	var unsound *table.Error
	if errors.As(err, &unsound) {
		warn(unsound.Path, unsound.Reason)
	}
	for _, t := range tables {
		if t.Snapshot == nil || seen[t.OID] {
			continue
		}
		seen[t.OID] = true
		r.Tables++
		if detail := l.untrue(ctx, &t); detail != "" {
			warn(t.Name, detail)
		}
	}
}

// untrue says in what a table.json differs from the directory that it is in.
func (l *Lake) untrue(ctx context.Context, t *table.Table) string {
	have := make(map[string]objects.OID, len(t.Parquet))
	for _, e := range t.Parquet {
		have[e.Name] = e.OID
	}
	listed := make(map[string]bool, len(have))
	for _, p := range t.Snapshot.Parts {
		oid, ok := have[p.File]
		switch {
		case !ok:
			return fmt.Sprintf("part %s is listed, and is not there", p.File)
		case table.PartName(oid) != p.File:
			return fmt.Sprintf("part %s has the content of %s", p.File, table.PartName(oid))
		}
		listed[p.File] = true
		info, err := l.Objects.Stat(ctx, oid)
		if err == nil && info.Size != p.Bytes {
			return fmt.Sprintf("part %s has %d bytes, %d are listed", p.File, info.Size, p.Bytes)
		}
	}
	for _, e := range t.Parquet {
		if !listed[e.Name] {
			return fmt.Sprintf("%q is there, and is not listed", e.Name)
		}
	}
	return ""
}
