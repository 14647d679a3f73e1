package abuse

import (
	"testing"

	"github.com/headgate/headgate/exec/sandbox"
)

// mark is what a file of the lake does that runs where it should not.
const mark = "import builtins\nbuiltins.pwned = getattr(builtins, 'pwned', []) + [__name__]\n"

// lakeFiles are files that a lake may well have, under names that Python or the
// harness look for.
var lakeFiles = map[string]string{
	"headgate/__init__.py":          mark,
	"headgate/_sandbox/__init__.py": mark,
	"models/headgate.py":            mark,
	"pyarrow/__init__.py":           mark,
	"models/pyarrow.py":             mark,
	"numpy.py":                      mark,
	"json.py":                       mark,
	"models/struct.py":              mark,
	"sitecustomize.py":              mark,
	"usercustomize.py":              mark,
	"models/sitecustomize.py":       mark,
	"lake.pth":                      "import builtins; builtins.pwned = ['pth']\n",
	"__init__.py":                   mark,
}

var lakeTries = []try{
	{"shadow the harness", `
import builtins
return headgate.__file__, getattr(builtins, "pwned", [])`, `\('/sdk/headgate/__init__.py', \[\]\)`, nil},
	{"shadow what passes tables", `
import pyarrow, numpy
return [m.__name__ for m in (pyarrow, numpy) if m.__file__.startswith("/in")]`, `\[\]`, nil},
	{"shadow the standard library", `
import importlib
return [m for m in ("json", "struct", "os") if importlib.import_module(m).__file__.startswith("/in")]`, `\[\]`, nil},
	{"run at the start by sitecustomize", `
import builtins
return [m for m in ("sitecustomize", "usercustomize") if getattr(sys.modules.get(m), "__file__", "").startswith("/in")], getattr(builtins, "pwned", [])`, `\(\[\], \[\]\)`, nil},
	{"run at the start by a .pth file", `
import builtins
return "pth" in getattr(builtins, "pwned", [])`, "False", nil},
}

// TestLakeFiles gives a function a lake full of files that shadow others.
func TestLakeFiles(t *testing.T) {
	inputs := append(lab.inputs(), content("code/models/attack.py", lab.module(t, lakeTries)))
	for path, text := range lakeFiles {
		inputs = append(inputs, content("code/"+path, text))
	}
	lab.hold(t, lakeTries, lab.run(t, sandbox.Job{Kind: sandbox.KindPython, Order: lab.order("attack"), Inputs: inputs}))
}

var valueDeeds = []deed{
	{"return an object that pickles into code", `
class Bomb:
    def __reduce__(self):
        return os.system, ("touch /tmp/pwned",)
return Bomb()`, sandbox.Limits{}, saying("returned a"), nil},
	{"return a frame that runs code when it is looked at", `
frame = type("DataFrame", (), {"__module__": "pandas", "index": property(lambda self: os._exit(3))})
return frame()`, sandbox.Limits{}, silent(3), nil},
	{"return rows without end", `
import pyarrow
schema = pyarrow.schema([("n", pyarrow.int64())])
def batches():
    while True:
        yield pyarrow.record_batch({"n": os.urandom(1 << 20) and list(range(100_000))}, schema)
return pyarrow.RecordBatchReader.from_batches(schema, batches())`, sandbox.Limits{Timeout: shortTime.Timeout, Output: 1 << 20}, timedOut, nil},
	{"return Arrow memory out of its bounds", `
import pyarrow
offsets = pyarrow.py_buffer(struct.pack("4i", 0, 1 << 30, -1 << 30, 1 << 30))
return pyarrow.table({"s": pyarrow.Array.from_buffers(pyarrow.string(), 3, [None, offsets, pyarrow.py_buffer(b"x")])})`, sandbox.Limits{}, saying("Length spanned by binary offsets"), nil},
	{"return a forged Arrow stream", `
ctypes.pythonapi.PyCapsule_New.restype = ctypes.py_object
ctypes.pythonapi.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
garbage = ctypes.create_string_buffer(b"\x41" * 64)
name = ctypes.create_string_buffer(b"arrow_array_stream")
class Stream:
    def __arrow_c_stream__(self, schema=None):
        return ctypes.pythonapi.PyCapsule_New(ctypes.addressof(garbage), ctypes.cast(name, ctypes.c_char_p), None)
return Stream()`, sandbox.Limits{}, silent(-1), nil},
	{"replace the harness in memory", `
import headgate._sandbox.tables as tables
def write(result, declared, path, what):
    with open(path, "wb") as f:
        f.write(b"PAR1 of a forger PAR1")
    return 1, [{"name": "n", "type": "BIGINT", "nullable": True}]
tables.write = write
return [{"n": 1}]`, sandbox.Limits{}, func(r *report) error {
		// What it forges is its own table, and that is read elsewhere.
		if err := answered(r); err != nil {
			return err
		}
		return saying("output.parquet")(lab.cut(r.files["output.parquet"], sandbox.Limits{}))
	}, nil},
}
