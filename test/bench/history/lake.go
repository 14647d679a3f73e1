package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/klauspost/compress/zlib"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/pack"
	"github.com/headgate/headgate/refs"
)

// shape is the lake that is made: a gated branch, on which every change is a
// proposal and a gate commit, that rewrite some parts of one table each.
type shape struct {
	commits, tags int
	tables, parts int // of each table
	rewritten     int // parts of one commit
	packs         int // that came with pushes, and are joined
}

// lake is where it was put, and what there is to ask for.
type lake struct {
	dir       string // the store's directory
	commits   []objects.OID
	tags      []objects.OID
	unrelated objects.OID
	objects   int
	bytes     int64 // of the packs
}

func (l *lake) tip() objects.OID { return l.commits[len(l.commits)-1] }

// packer writes a pack and its index as a push leaves them: whole objects,
// deflated, in the order of history.
type packer struct {
	f       *os.File
	w       *bufio.Writer
	sum     hash.Hash
	at      int64
	entries []pack.IndexEntry
	zw      *zlib.Writer
	buf     bytes.Buffer
	err     error
}

func newPacker(dir string) (*packer, error) {
	f, err := os.CreateTemp(dir, "pack-")
	if err != nil {
		return nil, err
	}
	p := &packer{f: f, w: bufio.NewWriterSize(f, 1<<20), sum: sha1.New(), at: pack.HeaderSize, zw: zlib.NewWriter(nil)}
	_, err = p.w.Write(make([]byte, pack.HeaderSize))
	return p, err
}

func (p *packer) put(t objects.Type, data []byte) objects.OID {
	oid := plumbing.ComputeHash(t, data)
	p.buf.Reset()
	p.buf.Write(pack.AppendEntryHeader(nil, t, int64(len(data))))
	p.zw.Reset(&p.buf)
	if _, err := p.zw.Write(data); err != nil && p.err == nil {
		p.err = err
	}
	if err := p.zw.Close(); err != nil && p.err == nil {
		p.err = err
	}
	p.entries = append(p.entries, pack.IndexEntry{OID: oid, Offset: p.at, CRC: crc32.ChecksumIEEE(p.buf.Bytes())})
	n, err := p.w.Write(p.buf.Bytes())
	if err != nil && p.err == nil {
		p.err = err
	}
	p.at += int64(n)
	return oid
}

// close puts the pack where a store in dir has it.
func (p *packer) close(dir string) error {
	if p.err != nil {
		return p.err
	}
	if err := p.w.Flush(); err != nil {
		return err
	}
	if _, err := p.f.WriteAt(pack.AppendHeader(nil, uint32(len(p.entries))), 0); err != nil {
		return err
	}
	if _, err := io.Copy(p.sum, io.NewSectionReader(p.f, 0, p.at)); err != nil {
		return err
	}
	sum := objects.OID(p.sum.Sum(nil))
	if _, err := p.f.WriteAt(sum[:], p.at); err != nil {
		return err
	}
	to := filepath.Join(dir, "pack")
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	if err := os.Rename(p.f.Name(), filepath.Join(to, sum.String()+".pack")); err != nil {
		return err
	}
	if err := p.f.Close(); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(to, sum.String()+".idx"), pack.EncodeIndex(p.entries, sum), 0o444)
}

// makeLake writes the lake.
func makeLake(dir string, sh shape) (*lake, error) {
	p, err := newPacker(dir)
	if err != nil {
		return nil, err
	}
	l := &lake{dir: filepath.Join(dir, "objects")}
	rnd := rand.New(rand.NewPCG(1, 2))
	part := func() gitobj.Entry {
		data := make([]byte, 64)
		for i := range data {
			data[i] = byte(rnd.Uint32())
		}
		oid := p.put(objects.Blob, data)
		return gitobj.Entry{Name: oid.String()[:20] + ".parquet", Mode: gitobj.ModeFile, OID: oid}
	}
	tree := func(entries []gitobj.Entry) objects.OID {
		data, err := gitobj.EncodeTree(entries)
		if err != nil && p.err == nil {
			p.err = err
		}
		return p.put(objects.Tree, data)
	}
	snapshot := func(parts []gitobj.Entry) objects.OID {
		var b strings.Builder
		b.WriteString("{\n\"columns\": [\n{\"name\":\"iata\",\"nullable\":false,\"type\":\"VARCHAR\"}\n],\n\"format\": 1,\n\"key\": [\"iata\"],\n\"parts\": [\n")
		for _, e := range parts {
			fmt.Fprintf(&b, "{\"bytes\":108200,\"columns\":[{\"max\":\"Z%s\",\"min\":\"0%s\",\"nulls\":0}],\"file\":%q,\"rows\":3376},\n", e.Name[:3], e.Name[3:6], e.Name)
		}
		b.WriteString("]\n}\n")
		meta := p.put(objects.Blob, []byte(b.String()))
		return tree(append([]gitobj.Entry{{Name: "table.json", Mode: gitobj.ModeFile, OID: meta}}, parts...))
	}
	tables := make([]gitobj.Entry, sh.tables)
	parts := make([][]gitobj.Entry, sh.tables)
	for i := range tables {
		for range sh.parts {
			parts[i] = append(parts[i], part())
		}
		tables[i] = gitobj.Entry{Name: fmt.Sprintf("table_%03d", i), Mode: gitobj.ModeTree, OID: snapshot(parts[i])}
	}
	policy := gitobj.Entry{Name: "headgate.yaml", Mode: gitobj.ModeFile, OID: p.put(objects.Blob, []byte("branches: {main: {gate: required}}\n"))}
	commit := func(i int, parents ...objects.OID) objects.OID {
		root := tree([]gitobj.Entry{policy, {Name: "tables", Mode: gitobj.ModeTree, OID: tree(tables)}})
		var b strings.Builder
		fmt.Fprintf(&b, "tree %s\n", root)
		for _, parent := range parents {
			fmt.Fprintf(&b, "parent %s\n", parent)
		}
		fmt.Fprintf(&b, "author Ada <ada@example.org> %d +0000\ncommitter Ada <ada@example.org> %d +0000\n\nchange %d\n", 1_500_000_000+i*60, 1_500_000_000+i*60, i)
		return p.put(objects.Commit, []byte(b.String()))
	}
	l.unrelated = commit(-1)
	roll := func() error {
		l.objects += len(p.entries)
		l.bytes += p.at
		if err := p.close(l.dir); err != nil {
			return err
		}
		p, err = newPacker(dir)
		return err
	}
	for i := range sh.commits {
		if i > 0 && i%((sh.commits+sh.packs-1)/sh.packs) == 0 {
			if err := roll(); err != nil {
				return nil, err
			}
		}
		t := rnd.IntN(sh.tables)
		for range sh.rewritten {
			parts[t][rnd.IntN(sh.parts)] = part()
		}
		tables[t].OID = snapshot(parts[t])
		var parents []objects.OID
		switch {
		case i == 0:
		case i%2 == 1: // a proposal on the tip
			parents = []objects.OID{l.commits[i-1]}
		default: // the gate commit that publishes it
			parents = []objects.OID{l.commits[max(0, i-2)], l.commits[i-1]}
		}
		l.commits = append(l.commits, commit(i, parents...))
	}
	for i := range sh.tags {
		target := l.commits[i*len(l.commits)/sh.tags]
		l.tags = append(l.tags, p.put(objects.Tag, fmt.Appendf(nil, "object %s\ntype commit\ntag v%d\ntagger Ada <ada@example.org> 1500000000 +0000\n\nrelease\n", target, i)))
	}
	l.objects += len(p.entries)
	l.bytes += p.at
	return l, p.close(l.dir)
}

// refs returns the lake's refs.
func (l *lake) refs(ctx context.Context) (refs.Store, error) {
	r := refs.NewMemory()
	updates := []refs.Update{{Name: "refs/heads/main", New: l.tip()}, {Name: "refs/heads/other", New: l.unrelated}}
	for i, oid := range l.tags {
		updates = append(updates, refs.Update{Name: refs.Name(fmt.Sprintf("refs/tags/v%d", i)), New: oid})
	}
	return r, r.Apply(ctx, updates, refs.Cause{Who: "bench"})
}
