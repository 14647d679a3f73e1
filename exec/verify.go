package exec

import (
	"context"
	"fmt"
	"io"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/sandbox"
	"github.com/headgate/headgate/objects"
)

// ViolationRows is how many violating rows are kept for the run record. All are
// counted; a verifier that returns ten million rows must not fill the store.
const ViolationRows = 10_000

// Checked is a verifier together with its bound inputs.
type Checked struct {
	Verifier *plan.Verifier
	Bound    []Bound
	// Described tells that what table.json says of the inputs is known to be true, so
	// that it can answer for their rows.
	Described bool
}

// Verdict is the outcome of one verifier.
type Verdict struct {
	protocol.Check
	Cached bool
	Rows   objects.OID // Parquet blob with the violating rows; zero if there are none
	Usage  Usage       // of the sandbox, which a group of column tests shares
}

// opVerify is the operation of cache entries about verifiers. Those of "verify" before it
// did not say themselves what had passed.
const opVerify = "verify, by name"

// passEntry says that an action passed, and names it: whatever a damaged cache
// answers with instead (another entry, an older one, a part of one) is a miss, and a
// verifier is evaluated. An entry that is not there is one too, so no fault of the
// cache makes a pass of a failure.
type passEntry struct {
	Pass string `json:"pass"` // the key
}

// Passed reports whether the verifier ran and found nothing.
func (v *Verdict) Passed() bool { return v.Error == nil && v.Violations == 0 }

// Verify evaluates verifiers that may share a sandbox: either one verifier, or
// column tests, whose SQL is the server's own. Passes without violations
// are cached by content; failures never are, so that every refusal is shown with its rows.
func (s *Session) Verify(ctx context.Context, group []Checked, out Sink) ([]Verdict, error) {
	verdicts := make([]Verdict, len(group))
	keys := make([]Key, len(group))
	var ask []int
	for i, c := range group {
		at, err := s.placeOf(c.Verifier.Kind, &c.Verifier.Declared)
		if err != nil {
			return nil, err
		}
		keys[i] = action{Op: opVerify, Code: c.Verifier.Code.String(), Env: at.env.String(), Inputs: actionInputs(c.Bound)}.key()
		var known passEntry
		// A verdict that the clock has a part in is one of its moment.
		if len(c.Verifier.Clock) == 0 && s.cached(keys[i], &known) && known.Pass == keys[i].String() {
			verdicts[i] = Verdict{Check: protocol.Check{Name: c.Verifier.Name}, Cached: true}
			continue
		}
		if c.Described && holdsByStatistics(&c) {
			verdicts[i] = Verdict{Check: protocol.Check{Name: c.Verifier.Name}}
			continue
		}
		ask = append(ask, i)
	}
	if len(ask) == 0 {
		return verdicts, nil
	}
	var u Usage
	checks, rows, err := s.evaluate(ctx, group, ask, out, &u)
	if err != nil {
		return nil, withUsage(err, &u)
	}
	if len(checks) != len(ask) {
		return nil, fmt.Errorf("asked %d verifiers, %d answered", len(ask), len(checks))
	}
	for j, i := range ask {
		v := &verdicts[i]
		v.Check, v.Rows, v.Usage = checks[j], rows[checks[j].File], u
		v.Name = group[i].Verifier.Name
		if v.Error != nil && v.Error.File == "" {
			v.Error.File = group[i].Verifier.Path
		}
		if v.Passed() && len(u.Violations) == 0 && len(group[i].Verifier.Clock) == 0 { // see Model
			s.remember(keys[i], passEntry{Pass: keys[i].String()})
		}
	}
	return verdicts, nil
}

func (s *Session) evaluate(ctx context.Context, group []Checked, ask []int, out Sink, u *Usage) ([]protocol.Check, map[string]objects.OID, error) {
	first := group[ask[0]].Verifier
	job := s.job(sandbox.KindWorker, "", s.limits(first.Resources), &protocol.Order{})
	job.Log, job.Note = limited(out.Log), out.Note
	job.Order.Threads = threads(first.Resources)
	rows := make(map[string]objects.OID)
	job.Files = func(name string, n int64, r io.Reader) error {
		oid, err := s.store.Put(ctx, objects.Blob, n, r)
		rows[name] = oid
		return err
	}
	if first.Kind == plan.KindPython {
		if len(ask) != 1 {
			return nil, nil, fmt.Errorf("%d expectations asked to share a sandbox", len(ask))
		}
		at, err := s.placeOf(first.Kind, &first.Declared)
		if err != nil {
			return nil, nil, err
		}
		job.Kind, job.Python, job.Packages = sandbox.KindPython, at.python, at.packages
		job.Order.Op, job.Order.Path, job.Order.Module, job.Order.Function = protocol.OpPyExpect, codeRoot, first.Path, first.Function
		s.stageCode(ctx, &job, first.Files)
		if err := s.stageProjected(ctx, &job, group[ask[0]].Bound, u); err != nil {
			return nil, nil, err
		}
	} else {
		job.Order.Op, job.Order.MaxRows = protocol.OpVerify, ViolationRows
		seen := make(map[string]bool)
		var bound []Bound
		for n, i := range ask {
			// The worker names files after queries, and a verifier's name is free
			// text, so queries go by number.
			job.Order.Queries = append(job.Order.Queries, protocol.Query{Name: fmt.Sprintf("q%d", n), SQL: group[i].Verifier.SQL, Evidence: group[i].Verifier.Evidence})
			for _, b := range group[i].Bound {
				if !seen[b.Input.Table] {
					seen[b.Input.Table] = true
					bound = append(bound, b)
				}
			}
		}
		s.stage(ctx, &job, bound)
	}
	answer, err := s.run(ctx, job, u)
	if err != nil {
		return nil, nil, err
	}
	return answer.Checks, rows, nil
}

// Query runs a user's SELECT in a sandbox and writes its rows to w.
func (s *Session) Query(ctx context.Context, sql string, bound []Bound, format string, maxRows int64, w io.Writer) error {
	job := s.job(sandbox.KindWorker, "", s.opt.Limits, &protocol.Order{Op: protocol.OpQuery, SQL: sql, Format: format, MaxRows: maxRows})
	job.Files = func(_ string, _ int64, r io.Reader) error {
		_, err := io.Copy(w, r)
		return err
	}
	s.stage(ctx, &job, bound)
	var u Usage
	_, err := s.run(ctx, job, &u)
	return err
}
