package abuse

import (
	"errors"
	"fmt"
	"strings"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/sandbox"
)

// malformed is output that is no sequence of frames, for this reason.
func malformed(reason string) func(*report) error {
	return func(r *report) error {
		var format *protocol.FormatError
		if r.Answer != nil || !errors.As(r.Malformed, &format) || !strings.Contains(format.Reason, reason) {
			return fmt.Errorf("want malformed output because of %q", reason)
		}
		return nil
	}
}

// over is output beyond a limit.
func over(what string) func(*report) error {
	return func(r *report) error {
		var limit *protocol.LimitError
		if r.Answer != nil || !r.OutputExceeded || !errors.As(r.Malformed, &limit) || limit.What != what {
			return fmt.Errorf("want an end by the limit of %s", what)
		}
		return nil
	}
}

// wait keeps the harness from ending first.
const wait = "\ntime.sleep(60)"

var outputDeeds = []deed{
	{"garbage on the harness's descriptor", `send(b"\x00hello")` + wait, sandbox.Limits{}, malformed("unknown frame kind 0x00"), nil},
	{"a frame whose name climbs out", `send(file_frame("../../../tmp/pwned", b"x"))` + wait, sandbox.Limits{}, malformed("starts with a dot"), nil},
	{"a frame with an absolute name", `send(file_frame("/tmp/pwned", b"x"))` + wait, sandbox.Limits{}, malformed("outside a-z"), nil},
	{"a frame with NUL in its name", `send(file_frame(b"a\0b", b"x"))` + wait, sandbox.Limits{}, malformed("outside a-z"), nil},
	{"a frame with a very long name", `send(file_frame("x" * 65535, b"x"))` + wait, sandbox.Limits{}, malformed("65535 bytes"), nil},
	{"a frame of a negative size", `send(file_frame("output.parquet", size=struct.pack(">q", -1)))` + wait, sandbox.Limits{}, malformed("of 18446744073709551615 bytes"), nil},
	{"a frame of a giant size", `send(file_frame("output.parquet", size=struct.pack(">Q", 1 << 61)))` + wait, sandbox.Limits{}, over("output"), nil},
	{"more output than the quota", `
for _ in range(64):
    send(file_frame("output.parquet", b"x" * (1 << 20)))` + wait, sandbox.Limits{Output: 8 << 20}, over("output"), nil},
	{"more files than anybody needs", `send(file_frame("x") * 100_001)` + wait, sandbox.Limits{}, over("files"), nil},
	{"an answer of a giant size", `send(b"A" + struct.pack(">I", 0xffffffff))` + wait, sandbox.Limits{}, over("answer"), nil},
	{"an answer that is no JSON", `send(answer_frame(b"\xff\xfe{"))` + wait, sandbox.Limits{}, malformed("answer:"), nil},
	{"an answer nested without end", `send(answer_frame("[" * 1_000_000))` + wait, sandbox.Limits{}, malformed("answer:"), nil},
	{"an answer that is null", `send(answer_frame("null"))` + wait, sandbox.Limits{}, malformed("answer is null"), nil},
	{"two answers", `send(answer_frame("{}") * 2)` + wait, sandbox.Limits{}, malformed("bytes after the answer"), nil},
	{"more after the answer", `send(answer_frame("{}") + file_frame("output.parquet", b"x"))` + wait, sandbox.Limits{}, malformed("bytes after the answer"), nil},
	{"an end within a frame", `
send(file_frame("output.parquet", size=struct.pack(">Q", 100)) + b"half")
os._exit(0)`, sandbox.Limits{}, silent(0), nil},
	{"a frame that never ends", `send(file_frame("output.parquet", size=struct.pack(">Q", 100)))` + wait, shortTime, timedOut, nil},
	{"an output closed by the function", `
os.close(out())
return [{"n": 1}]`, sandbox.Limits{}, silent(1), nil},
	{"a note that is no text", `send(b"N" + struct.pack(">I", 2) + b"\xff\xfe")` + wait, sandbox.Limits{}, malformed("note is not UTF-8"), nil},
	{"notes without end", `
while True:
    send(b"N\0\0\0\x01x" * 10_000)`, shortTime, func(r *report) error {
		if len(r.notes) > 10_000 {
			return fmt.Errorf("%d notes come through", len(r.notes))
		}
		return timedOut(r)
	}, nil},
	{"a table of its own making", `
import io
import pyarrow
import pyarrow.parquet
body = io.BytesIO()
pyarrow.parquet.write_table(pyarrow.table({"n": [666]}), body)
send(file_frame("table.json", body.getvalue()) + answer_frame(json.dumps({"rows": 10**9, "snapshot": {"columns": [], "parts": []}})))
os._exit(0)`, sandbox.Limits{}, func(r *report) error {
		// It can lie about its own table, and about that alone: what it sent is
		// read by another sandbox, and what it said of it is not used.
		if len(r.files) != 1 || r.files["table.json"] == nil {
			return fmt.Errorf("files %d", len(r.files))
		}
		return answered(r)
	}, nil},
}
