package hooks

import (
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/refs"
)

// Where main had no gate for a while, what was pushed to it meanwhile, itself or by
// way of a run on another branch, is nobody's grant, also when the gate is back.
func TestNobodyGrantsThemselvesASecretWhileMainHasNoGate(t *testing.T) {
	for _, way := range []string{"a plain push", "a gate commit of another branch"} {
		t.Run(way, func(t *testing.T) {
			r, f, _, files := withTalker(t)
			if err := r.lake.Secrets.Set("API_KEY", secretValue, "root", time.Now()); err != nil {
				t.Fatal(err)
			}
			r.must(r.toMain(base()))
			r.must(r.toMain(with(base(), "headgate.yaml", "branches:\n  main: {gate: off}\n")))
			granting := with(base(), "headgate.yaml", giving) // and main is gated again
			if way == "a plain push" {
				r.must(r.toMain(granting))
			} else {
				old := r.tip(mainRef)
				oid, q := r.commit(granting, old)
				r.must(r.push(q, []string{"run"}, false, refs.Update{Name: "refs/heads/mine", New: oid})[0].Err)
				q, err := r.lake.Objects.Quarantine()
				r.must(err)
				r.must(r.push(q, nil, false, refs.Update{Name: mainRef, Old: old, New: r.tip("refs/heads/mine")})[0].Err)
			}
			// Neither at once, nor after a run has made a gate commit of it.
			for _, push := range []map[string]string{files, with(granting, "README", "x"), files} {
				if err := r.toMain(push); err == nil || !strings.Contains(err.Error(), "secret") {
					t.Errorf("a push on a grant of nobody's: %v", err)
				}
			}
			if len(f.got) != 0 {
				t.Fatalf("the function got %v", f.got)
			}
			// An administrator's word counts.
			r.must(r.toMainAs(Identity{Name: "root", Admin: true}, with(granting, "README", "y")))
			r.must(r.toMain(files))
			if len(f.got) != 1 {
				t.Errorf("the function got %v", f.got)
			}
		})
	}
}
