package protocol_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/headgate/headgate/exec/protocol"
	"pgregory.net/rapid"
)

type namedFile struct {
	Name string
	Body string
}

// collect is a sink that keeps everything in memory.
func collect(into *[]namedFile) protocol.FileSink {
	return func(name string, size int64, r io.Reader) error {
		b, err := io.ReadAll(r)
		*into = append(*into, namedFile{name, string(b)})
		return err
	}
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type frame struct {
			note bool
			text string
			name string
		}
		frames := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) frame {
			return frame{
				note: rapid.Bool().Draw(t, "note"),
				text: rapid.StringN(0, 300, 2000).Draw(t, "text"),
				name: rapid.StringMatching(`[a-z0-9_-][a-z0-9._-]{0,60}`).Draw(t, "name"),
			}
		}), 0, 12).Draw(t, "frames")
		answer := &protocol.Answer{Rows: rapid.Int64().Draw(t, "rows"), Tables: []protocol.QueryTables{{Name: "q", Tables: []string{"base.t"}}}}

		var buf bytes.Buffer
		var files []namedFile
		var notes []string
		for _, f := range frames {
			if f.note {
				notes = append(notes, f.text)
				if err := protocol.WriteNote(&buf, f.text); err != nil {
					t.Fatal(err)
				}
				continue
			}
			files = append(files, namedFile{f.name, f.text})
			if err := protocol.WriteFile(&buf, f.name, int64(len(f.text)), strings.NewReader(f.text)); err != nil {
				t.Fatal(err)
			}
		}
		if err := protocol.WriteAnswer(&buf, answer); err != nil {
			t.Fatal(err)
		}

		var gotFiles []namedFile
		var gotNotes []string
		src := iotest.OneByteReader(&buf)
		got, err := protocol.Read(src, protocol.DefaultReadLimits, collect(&gotFiles), func(s string) { gotNotes = append(gotNotes, s) })
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, answer) || !reflect.DeepEqual(gotFiles, files) || !reflect.DeepEqual(gotNotes, notes) {
			t.Fatalf("read %+v %q %q, wrote %+v %q %q", got, gotFiles, gotNotes, answer, files, notes)
		}
	})
}

// table.json holds the bounds in canonical form, which knows no escapes for HTML.
func TestBoundsKeepTheirForm(t *testing.T) {
	const bound = `"<a href=\"x\"> & more"`
	var buf bytes.Buffer
	mustWrite(t, protocol.WriteAnswer(&buf, &protocol.Answer{Snapshot: &protocol.Snapshot{
		Parts: []protocol.Part{{Stats: []protocol.ColumnStats{{Min: json.RawMessage(bound)}}}},
	}}))
	a, err := protocol.Read(&buf, protocol.DefaultReadLimits, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(a.Snapshot.Parts[0].Stats[0].Min); got != bound {
		t.Errorf("%s became %s", bound, got)
	}
}

// Progress is for a person: a flood of it is no failure, and reaches nobody.
func TestNotesAreBounded(t *testing.T) {
	var buf bytes.Buffer
	for range 10 {
		mustWrite(t, protocol.WriteNote(&buf, "n"))
	}
	mustWrite(t, protocol.WriteAnswer(&buf, &protocol.Answer{Rows: 3}))
	limits, got := protocol.DefaultReadLimits, 0
	limits.Notes = 4
	a, err := protocol.Read(&buf, limits, nil, func(string) { got++ })
	if err != nil || a.Rows != 3 || got != 4 {
		t.Fatalf("%d notes, answer %+v, error %v", got, a, err)
	}
}

// A sink that does not want a file may ignore its bytes.
func TestUnreadFileIsSkipped(t *testing.T) {
	var buf bytes.Buffer
	mustWrite(t, protocol.WriteFile(&buf, "a.parquet", 6, strings.NewReader("ignore")))
	mustWrite(t, protocol.WriteAnswer(&buf, &protocol.Answer{Rows: 3}))
	a, err := protocol.Read(&buf, protocol.DefaultReadLimits, func(string, int64, io.Reader) error { return nil }, nil)
	if err != nil || a.Rows != 3 {
		t.Fatalf("answer %+v, error %v", a, err)
	}
}

func TestSinkErrorStopsTheReader(t *testing.T) {
	var buf bytes.Buffer
	mustWrite(t, protocol.WriteFile(&buf, "a.parquet", 1, strings.NewReader("x")))
	mustWrite(t, protocol.WriteAnswer(&buf, &protocol.Answer{}))
	full := errors.New("disk full")
	if _, err := protocol.Read(&buf, protocol.DefaultReadLimits, func(string, int64, io.Reader) error { return full }, nil); !errors.Is(err, full) {
		t.Fatalf("error %v, want the sink's", err)
	}
}

// Output that stops anywhere before its end never passes as an answer, and the
// sink sees an error rather than a short file.
func TestTornOutput(t *testing.T) {
	var buf bytes.Buffer
	mustWrite(t, protocol.WriteNote(&buf, "reading"))
	mustWrite(t, protocol.WriteFile(&buf, "a.parquet", 10, strings.NewReader("0123456789")))
	mustWrite(t, protocol.WriteAnswer(&buf, &protocol.Answer{Rows: 1}))
	whole := buf.Bytes()
	for n := range whole {
		sink := func(name string, size int64, r io.Reader) error {
			b, err := io.ReadAll(r)
			if err == nil && int64(len(b)) != size {
				t.Fatalf("cut at %d: sink took %d of %d bytes for a whole file", n, len(b), size)
			}
			return err
		}
		_, err := protocol.Read(bytes.NewReader(whole[:n]), protocol.DefaultReadLimits, sink, nil)
		if !errors.Is(err, protocol.ErrNoAnswer) {
			t.Fatalf("cut at %d of %d: error %v, want ErrNoAnswer", n, len(whole), err)
		}
	}
}

func TestLimits(t *testing.T) {
	var buf bytes.Buffer
	mustWrite(t, protocol.WriteFile(&buf, "one", 600, strings.NewReader(strings.Repeat("x", 600))))
	mustWrite(t, protocol.WriteFile(&buf, "two", 600, strings.NewReader(strings.Repeat("x", 600))))
	mustWrite(t, protocol.WriteAnswer(&buf, &protocol.Answer{Rows: 123456}))
	ok := protocol.ReadLimits{Files: 2, FileBytes: 600, TotalBytes: 1200, AnswerBytes: 100}
	for _, tc := range []struct {
		name string
		edit func(*protocol.ReadLimits)
		want string
	}{
		{"within", func(*protocol.ReadLimits) {}, ""},
		{"files", func(l *protocol.ReadLimits) { l.Files = 1 }, "more than 1 output files"},
		{"file", func(l *protocol.ReadLimits) { l.FileBytes = 512 }, `output file "one" is over the limit of 512 bytes`},
		{"total", func(l *protocol.ReadLimits) { l.TotalBytes = 1152 }, "output over the quota of 1.1 KiB"},
		{"answer", func(l *protocol.ReadLimits) { l.AnswerBytes = 4 }, "answer is over the limit of 4 bytes"},
		{"none", func(l *protocol.ReadLimits) { *l = protocol.ReadLimits{} }, "more than 0 output files"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			limits := ok
			tc.edit(&limits)
			var files []namedFile
			_, err := protocol.Read(bytes.NewReader(buf.Bytes()), limits, collect(&files), nil)
			if tc.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var limit *protocol.LimitError
			if !errors.As(err, &limit) || err.Error() != tc.want {
				t.Fatalf("error %v, want %q", err, tc.want)
			}
		})
	}
}

func TestMalformedOutput(t *testing.T) {
	file := func(name string, size uint64) []byte {
		b := binary.BigEndian.AppendUint16([]byte{'F'}, uint16(len(name)))
		return binary.BigEndian.AppendUint64(append(b, name...), size)
	}
	for _, tc := range []struct {
		name string
		in   []byte
		want string
	}{
		{"text", []byte("hello\n"), "unknown frame kind 0x68"},
		{"slash", file("a/x", 0), "has a character outside"},
		{"dot", file(".x", 0), "starts with a dot"},
		{"empty name", file("", 0), "file name is empty"},
		{"long name", file(strings.Repeat("a", 201), 0), "file name of 201 bytes"},
		{"upper case", file("A", 0), "has a character outside"},
		{"negative size", file("a", 1<<63), "of 9223372036854775808 bytes"},
		{"bad note", []byte{'N', 0, 0, 0, 1, 0xff}, "note is not UTF-8"},
		{"bad JSON", []byte{'A', 0, 0, 0, 1, '{'}, "answer: unexpected end of JSON input"},
		{"null", []byte("A\x00\x00\x00\x04null"), "answer is null"},
		{"trailing", []byte("A\x00\x00\x00\x02{}A"), "bytes after the answer"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var files []namedFile
			_, err := protocol.Read(bytes.NewReader(tc.in), protocol.DefaultReadLimits, collect(&files), nil)
			var format *protocol.FormatError
			if !errors.As(err, &format) || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("error %v, want a *FormatError with %q", err, tc.want)
			}
		})
	}
}

func TestWriterRefusesWhatTheReaderWould(t *testing.T) {
	if err := protocol.WriteFile(io.Discard, "a/b", 0, strings.NewReader("")); err == nil {
		t.Error("a name with a slash was written")
	}
	if err := protocol.WriteFile(io.Discard, "a", 5, strings.NewReader("abc")); !errors.Is(err, io.EOF) {
		t.Errorf("short file: error %v, want one wrapping io.EOF", err)
	}
	var buf bytes.Buffer
	mustWrite(t, protocol.WriteNote(&buf, "\xff"+strings.Repeat("é", 4000)))
	mustWrite(t, protocol.WriteAnswer(&buf, &protocol.Answer{}))
	var note string
	if _, err := protocol.Read(&buf, protocol.DefaultReadLimits, nil, func(s string) { note = s }); err != nil {
		t.Fatal(err)
	}
	if !utf8.ValidString(note) || len(note) < 4000 {
		t.Errorf("note of %d bytes, want a long valid one", len(note))
	}
}

func FuzzRead(f *testing.F) {
	var buf bytes.Buffer
	_ = protocol.WriteNote(&buf, "n")
	_ = protocol.WriteFile(&buf, "f.parquet", 3, strings.NewReader("abc"))
	_ = protocol.WriteAnswer(&buf, &protocol.Answer{Rows: 1})
	f.Add(buf.Bytes())
	f.Add([]byte("F\x00\x01a\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Add([]byte("A\xff\xff\xff\xff{}"))
	f.Add([]byte("N\x00\x00\x00\x00A\x00\x00\x00\x02{}"))
	limits := protocol.ReadLimits{Files: 4, FileBytes: 1 << 10, TotalBytes: 2 << 10, AnswerBytes: 1 << 10}
	f.Fuzz(func(t *testing.T, in []byte) {
		var total int64
		n := 0
		a, err := protocol.Read(bytes.NewReader(in), limits, func(name string, size int64, r io.Reader) error {
			n++
			if err := protocol.CheckFileName(name); err != nil {
				t.Fatalf("sink got a bad name: %v", err)
			}
			got, err := io.Copy(io.Discard, r)
			if err == nil && got != size {
				t.Fatalf("file of %d bytes gave %d", size, got)
			}
			total += got
			return err
		}, nil)
		if n > limits.Files || total > limits.TotalBytes {
			t.Fatalf("%d files of %d bytes passed the limits", n, total)
		}
		if (a == nil) == (err == nil) {
			t.Fatalf("answer %v with error %v", a, err)
		}
	})
}

func mustWrite(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
