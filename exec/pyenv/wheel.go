package pyenv

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/csv"
	"errors"
	"hash"
	"io"
	"io/fs"
	"path"
	"strings"
	"unicode/utf8"
)

// bounds of one wheel. The largest that are used (a compiler with its CUDA
// libraries) stay below; what is above is meant to hurt.
type bounds struct {
	files     int   // entries of the archive; files and directories that are made
	directory int64 // bytes of its central directory
	bytes     int64 // of all that is unpacked
	ratio     int64 // unpacked to packed, once floor bytes are unpacked
	floor     int64
	record    int64 // bytes of RECORD and of WHEEL
}

var wheelBounds = bounds{files: 50_000, directory: 8 << 20, bytes: 4 << 30, ratio: 60, floor: 32 << 20, record: 16 << 20}

// environmentBounds are of all wheels of an environment together, unpacked: twice
// what a compiler with its CUDA libraries takes, and four times its files.
var environmentBounds = bounds{files: 200_000, bytes: 16 << 30}

const (
	maxPath      = 1000
	maxComponent = 255
	endOfArchive = 22 // bytes of the record that ends a zip file without a comment
)

// unpack reads the wheel in r and hands its files, by their paths on sys.path, to
// create. What a wheel installs elsewhere (scripts, headers, data) and compiled
// bytecode are left out. pkg is the package that it must be. take is asked, before
// anything is unpacked, for so many files and directories, and bytes. An *Error says
// what is wrong with the wheel.
func unpack(r io.ReaderAt, size int64, pkg string, b bounds, take func(files int, bytes int64) error, create func(name string) (io.WriteCloser, error)) error {
	if err := checkEnd(r, size, b); err != nil {
		return err
	}
	archive, err := zip.NewReader(r, size)
	if err != nil {
		return refusef("is no wheel: %v", err)
	}
	a := &unpacker{bounds: b, packed: size, names: make(map[string]bool)}
	if err := a.plan(archive, pkg); err != nil {
		return err
	}
	if a.record, err = a.readRecord(); err != nil {
		return err
	}
	if err := take(len(a.names), a.claimed); err != nil {
		return err
	}
	for _, f := range a.files {
		if err := a.file(f, create); err != nil {
			return err
		}
	}
	return nil
}

// checkEnd looks at the record that ends a zip file before the directory that it
// speaks of is read, which takes memory for each entry. An archive with a
// comment, with something before it, or in the 64-bit form is refused: wheels
// are none of these, and readers disagree about them.
func checkEnd(r io.ReaderAt, size int64, b bounds) error {
	var end [endOfArchive]byte
	if size < endOfArchive {
		return refusef("is no wheel: it has %d bytes", size)
	}
	if _, err := r.ReadAt(end[:], size-endOfArchive); err != nil && err != io.EOF {
		return err
	}
	le := binary.LittleEndian
	entries, length, offset := int64(le.Uint16(end[10:])), int64(le.Uint32(end[12:])), int64(le.Uint32(end[16:]))
	switch {
	case le.Uint32(end[:]) != 0x06054b50 || le.Uint16(end[20:]) != 0 || le.Uint32(end[4:]) != 0:
		return refusef("is no wheel: it does not end as a zip file without a comment does")
	case entries > int64(b.files) || length > b.directory:
		return refusef("is no wheel that can be used: it has %d files in a directory of %d bytes, the limits are %d and %d", entries, length, b.files, b.directory)
	case offset+length != size-endOfArchive:
		return refusef("is no wheel: its directory is not where it says")
	}
	return nil
}

type unpacker struct {
	bounds
	packed int64
	files  []*zip.File
	names  map[string]bool // lower-case path, as placed -> whether it is a directory
	info   string          // "pandas-1.5.3.dist-info"
	record map[string]string

	claimed int64 // bytes of what will be unpacked, as the archive says
	total   int64 // bytes unpacked
}

// plan checks all names before anything is unpacked.
func (a *unpacker) plan(archive *zip.Reader, pkg string) error {
	if len(archive.File) > a.bounds.files {
		return refusef("has %d files, the limit is %d", len(archive.File), a.bounds.files)
	}
	var claimed uint64
	for _, f := range archive.File {
		if err := checkEntry(f); err != nil {
			return err
		}
		if claimed += f.UncompressedSize64; claimed > uint64(a.bytes) || f.UncompressedSize64 > uint64(a.bytes) {
			return refusef("unpacks to more than %d bytes", a.bytes)
		}
		dir, base, _ := strings.Cut(f.Name, "/")
		if base == "RECORD" && strings.HasSuffix(dir, ".dist-info") {
			if a.info != "" {
				return refusef("has two files of records, in %q and %q", a.info, dir)
			}
			a.info = dir
		}
		if !strings.HasSuffix(f.Name, "/") {
			a.files = append(a.files, f)
		}
	}
	name, _, _ := strings.Cut(strings.TrimSuffix(a.info, ".dist-info"), "-")
	if normalize(name) != pkg {
		return refusef("has no metadata of package %q", pkg)
	}
	if int64(claimed) > a.floor && int64(claimed) > a.packed*a.ratio {
		return refusef("unpacks from %d bytes to %d, more than %d times as much: a zip bomb", a.packed, claimed, a.ratio)
	}
	for _, f := range a.files {
		if err := a.claim(f.Name); err != nil {
			return err
		}
		if a.placed(f.Name) != "" {
			a.claimed += int64(f.UncompressedSize64)
		}
	}
	return nil
}

// checkEntry checks one entry's name and kind.
func checkEntry(f *zip.File) error {
	bad := func(why string) error { return refusef("has a file %.200q that %s", f.Name, why) }
	kind := f.Mode() & fs.ModeType
	dir := strings.HasSuffix(f.Name, "/")
	switch {
	case kind != 0 && (kind != fs.ModeDir || !dir):
		return bad("is a link or something else that is no file")
	case f.Flags&1 != 0:
		return bad("is encrypted")
	case f.Method != zip.Store && f.Method != zip.Deflate:
		return bad("is packed in an unknown way")
	case dir && f.UncompressedSize64 != 0:
		return bad("is a directory with content")
	case len(f.Name) > maxPath || !utf8.ValidString(f.Name):
		return bad("is too long or not UTF-8")
	case strings.ContainsFunc(f.Name, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' }):
		return bad("has a control character or a backslash in its name")
	}
	for part := range strings.SplitSeq(strings.TrimSuffix(f.Name, "/"), "/") {
		if part == "" || part == "." || part == ".." || len(part) > maxComponent {
			return bad("is not below the directory of packages")
		}
	}
	return nil
}

// claim keeps two files from one place, and a file from that of a directory.
// Names that differ in case only are one name on some file systems.
func (a *unpacker) claim(name string) error {
	at := strings.ToLower(a.placed(name))
	for dir := false; at != "" && at != "."; dir, at = true, path.Dir(at) {
		was, there := a.names[at]
		if there && (!was || !dir) {
			return refusef("has a file %.200q that is there twice, or differs from another in case only", name)
		}
		if there {
			return nil
		}
		a.names[at] = dir
		if len(a.names) > a.bounds.files {
			return refusef("has more than %d files and directories, which is the limit", a.bounds.files)
		}
	}
	return nil
}

// readRecord reads RECORD: the hash of every file by its name in the archive.
func (a *unpacker) readRecord() (map[string]string, error) {
	about := make(map[string][]byte)
	for _, f := range a.files {
		if f.Name != a.info+"/RECORD" && f.Name != a.info+"/WHEEL" {
			continue
		}
		var text bytes.Buffer
		if err := a.copy(&text, f, a.bounds.record); err != nil {
			return nil, err
		}
		about[path.Base(f.Name)] = text.Bytes()
	}
	form := ""
	for line := range strings.Lines(string(about["WHEEL"])) {
		if key, value, ok := strings.Cut(line, ":"); ok && key == "Wheel-Version" {
			form = strings.TrimSpace(value)
		}
	}
	if !strings.HasPrefix(form, "1.") {
		return nil, refusef("is of wheel version %.20q, versions 1.x are known", form)
	}
	lines := csv.NewReader(bytes.NewReader(about["RECORD"]))
	lines.FieldsPerRecord, lines.ReuseRecord = -1, true
	record := make(map[string]string)
	for {
		row, err := lines.Read()
		if err == io.EOF {
			return record, nil
		}
		if err != nil {
			return nil, refusef("has a RECORD that cannot be read: %v", err)
		}
		if len(row) >= 2 {
			record[strings.Clone(row[0])] = strings.Clone(row[1])
		}
	}
}

// hashes that RECORD may use.
var hashes = map[string]func() hash.Hash{"sha256": sha256.New, "sha384": sha512.New384, "sha512": sha512.New}

// file unpacks one file and holds it against RECORD.
func (a *unpacker) file(f *zip.File, create func(string) (io.WriteCloser, error)) (err error) {
	name := a.placed(f.Name)
	if name == "" {
		return nil
	}
	var sum hash.Hash
	want := ""
	if rest, own := strings.CutPrefix(f.Name, a.info+"/"); !own || rest != "RECORD" && rest != "RECORD.jws" && rest != "RECORD.p7s" {
		recorded, ok := a.record[f.Name]
		algorithm, value, _ := strings.Cut(recorded, "=")
		made := hashes[algorithm]
		if !ok || made == nil {
			return refusef("has a file %.200q whose hash is not in its RECORD", f.Name)
		}
		sum, want = made(), value
	}
	out, err := create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	var w io.Writer = out
	if sum != nil {
		w = io.MultiWriter(out, sum)
	}
	if err := a.copy(w, f, a.bytes-a.total); err != nil {
		return err
	}
	if sum != nil && base64.RawURLEncoding.EncodeToString(sum.Sum(nil)) != want {
		return refusef("has a file %.200q with other content than its RECORD says", f.Name)
	}
	return nil
}

// copy unpacks one file, at most as much as it claims, which plan has bounded.
func (a *unpacker) copy(w io.Writer, f *zip.File, most int64) error {
	if claim := int64(f.UncompressedSize64); claim > most {
		return refusef("has a file %.200q of %d bytes, the limit is %d", f.Name, claim, most)
	}
	in, err := f.Open()
	if err != nil {
		return refusef("has a file %.200q that cannot be unpacked: %v", f.Name, err)
	}
	defer in.Close()
	src := &reading{r: io.LimitReader(in, int64(f.UncompressedSize64)+1)}
	n, err := io.Copy(w, src)
	a.total += n
	switch {
	case src.err != nil:
		return refusef("has a file %.200q that cannot be unpacked: %v", f.Name, src.err)
	case err != nil:
		return err
	case n > int64(f.UncompressedSize64):
		return refusef("has a file %.200q that is larger than it claims", f.Name)
	}
	return nil
}

// reading tells an archive that is at fault from a disk that is.
type reading struct {
	r   io.Reader
	err error
}

func (s *reading) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// placed is where a file of the archive goes below a directory of sys.path, "" for
// nowhere. Nothing runs scripts, headers are for compilers, and bytecode that
// somebody else made could be other code than its source.
func (a *unpacker) placed(name string) string {
	data := strings.TrimSuffix(a.info, ".dist-info") + ".data/"
	if rest, ok := strings.CutPrefix(name, data); ok {
		kind, below, _ := strings.Cut(rest, "/")
		if kind != "purelib" && kind != "platlib" {
			return ""
		}
		name = below
	}
	if strings.Contains("/"+name, "/__pycache__/") {
		return ""
	}
	return name
}
