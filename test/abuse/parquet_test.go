package abuse

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/sandbox"
)

// forgery is what a hostile function sends in place of its table, and what the
// second sandbox makes of it.
type forgery struct {
	name string
	code string // returns the bytes
	ends func(r *report) error
}

var forgeries = []forgery{
	{"Parquet that is none", `return b"PAR1" + b"\0" * 100 + b"PAR1"`, refusedFile},
	{"Parquet cut off", `return parquet({"n": list(range(1000))})[:-9]`, refusedFile},
	{"Parquet with its middle missing", `
body = parquet({"n": list(range(100_000))})
return body[:100] + body[-2000:]`, refusedFile},
	{"Parquet with a footer larger than the file", `return parquet({"n": [1]})[:-8] + struct.pack("<I", 0xfffffff0) + b"PAR1"`, refusedFile},
	{"Parquet with a footer of endless lists", `
footer = b"\x15\x02" + b"\x19\xfc" + b"\xff\xff\xff\xff\x07" + b"\0" * 64
return b"PAR1" + footer + struct.pack("<I", len(footer)) + b"PAR1"`, noMemory},
	{"Parquet with a footer nested without end", `
footer = b"\x1c" * 1_000_000
return b"PAR1" + footer + struct.pack("<I", len(footer)) + b"PAR1"`, refusedFile},
	{"Parquet that claims more rows than it has", `
body = parquet({"n": [7] * 100})
# num_rows and num_values as zigzag varints: 100 becomes 8000.
at = len(body) - 8 - struct.unpack("<I", body[-8:-4])[0]
return body[:at] + body[at:].replace(b"\xc8\x01", b"\x80\x7d")`, refusedFile},
	{"Parquet that lies in its statistics", `
body = parquet({"n": [1111111111111, 2222222222222]})
at = len(body) - 8 - struct.unpack("<I", body[-8:-4])[0]
return body[:at] + body[at:].replace(struct.pack("<q", 1111111111111), struct.pack("<q", 5))`, trueBounds},
	{"Parquet with 10,000 columns", `return parquet({"c%d" % i: [1] for i in range(10_000)})`, noMemory},
	{"Parquet with NUL in a column's name", `return parquet({"a\0b": [1]})`, saying("no NUL")},
	{"Parquet with a line break in a column's name", `return parquet({"a\nb": [1]})`, columnNamed("a\nb")},
	{"Parquet with a path as a column's name", `return parquet({"../../pwned": [1]})`, columnNamed("../../pwned")},
	{"Parquet with a column's name of a megabyte", `return parquet({"x" * (1 << 20): [1]})`, saying("at most 255 bytes")},
	{"Parquet nested two hundred deep", `
import pyarrow
kind = pyarrow.int64()
value = 1
for _ in range(200):
    kind, value = pyarrow.list_(kind), [value]
return parquet({"n": pyarrow.array([value], kind)})`, saying("nested more than 100 deep")},
	{"Parquet that is a decompression bomb", `
import pyarrow
one = pyarrow.array(["x" * 10_000])
many = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 1_000_000, pyarrow.int32()), one)
body = parquet({"n": many})
assert len(body) < 100_000, len(body)
return body`, noMemory},
}

// TestForgedParquet makes all of them in one sandbox and has each cut in another.
func TestForgedParquet(t *testing.T) {
	var b strings.Builder
	b.WriteString(lab.source(t))
	b.WriteString(`
import io
import pyarrow
import pyarrow.parquet


def parquet(columns):
    body = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), body)
    return body.getvalue()
`)
	for i, f := range forgeries {
		fmt.Fprintf(&b, "\n\ndef forge_%d():%s", i, indented(f.code))
	}
	b.WriteString("\n\n@headgate.model(name=\"attack\")\ndef attack(t=headgate.Model(\"t\")):\n    say(\"begin\")\n")
	for i := range forgeries {
		fmt.Fprintf(&b, "    send(file_frame(\"%d\", forge_%d()))\n", i, i)
	}
	b.WriteString("    return [{\"n\": 1}]\n")
	r := lab.attack(t, b.String(), sandbox.Limits{})
	if err := answered(r); err != nil {
		t.Fatalf("%v: %+v, %q\n%s", err, r.Report, r.userError(), r.log)
	}
	for i, f := range forgeries {
		t.Run(f.name, func(t *testing.T) {
			before := lab.look(t)
			r := lab.cut(r.files[fmt.Sprint(i)], sandbox.Limits{Memory: 512 << 20})
			if err := f.ends(r); err != nil {
				t.Errorf("%v: %+v, error %q\n%.2000s", err, r.Report, r.userError(), r.log)
			}
			r.recorded(t)
			if err := lab.neighbour(); err != nil {
				t.Errorf("the neighbour suffers: %v", err)
			}
			lab.settled(t)
			if after := lab.look(t); after != before {
				t.Errorf("the host changed:\nbefore\n%s\nafter\n%s", before, after)
			}
		})
	}
}

// cut reads a function's output the way that the gate does: in a new sandbox.
func (l *laboratory) cut(body []byte, lim sandbox.Limits) *report {
	r := &report{files: make(map[string][]byte)}
	log := &logBuffer{begun: make(chan struct{})}
	var err error
	r.Report, err = l.boxes.Run(context.Background(), sandbox.Job{
		Kind: sandbox.KindWorker,
		Order: &protocol.Order{
			Op: protocol.OpCut, FileFormat: "parquet", Files: []string{"/in/output.parquet"}, MemoryLimit: lim.Memory * 6 / 10,
		},
		Inputs: []sandbox.Input{{Path: "output.parquet", Link: func(host string) error { return os.WriteFile(host, body, 0o444) }}},
		Limits: lim, Log: log,
		Files: func(name string, _ int64, body io.Reader) error {
			b, err := io.ReadAll(body)
			r.files[name] = b
			return err
		},
	})
	if err != nil {
		r.Report = &sandbox.Report{Malformed: err}
	}
	r.log = log.String()
	return r
}

// refusedFile is an error of the data that names the file.
func refusedFile(r *report) error {
	if r.Answer == nil || r.Answer.Error == nil || r.Answer.Error.Kind != "data" {
		return errors.New("want an error of the data")
	}
	return nil
}

// trueBounds holds the snapshot's statistics to the rows, whatever the file says.
func trueBounds(r *report) error {
	if err := answered(r); err != nil {
		return err
	}
	if len(r.Answer.Snapshot.Parts) != 1 {
		return fmt.Errorf("%d parts", len(r.Answer.Snapshot.Parts))
	}
	stats := r.Answer.Snapshot.Parts[0].Stats[0]
	if !bytes.Equal(stats.Min, json.RawMessage("1111111111111")) || !bytes.Equal(stats.Max, json.RawMessage("2222222222222")) {
		return fmt.Errorf("bounds %s to %s", stats.Min, stats.Max)
	}
	return nil
}

// columnNamed is a table whose column has just that name, and which is one file of
// its own name.
func columnNamed(name string) func(*report) error {
	return func(r *report) error {
		if err := answered(r); err != nil {
			return err
		}
		if got := r.Answer.Snapshot.Columns; len(got) != 1 || got[0].Name != name {
			return fmt.Errorf("columns %+v", got)
		}
		return nil
	}
}
