package server

import (
	"fmt"
	"testing"
	"time"
)

func TestThrottle(t *testing.T) {
	t.Parallel()
	var th throttle
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var got []time.Duration
	for range 10 {
		delay, done, ok := th.fail("192.0.2.1:1000", now)
		if !ok {
			t.Fatal("one after the other is too many")
		}
		done()
		got = append(got, delay)
	}
	want := "[0s 0s 0s 250ms 500ms 1s 2s 4s 8s 8s]"
	if fmt.Sprint(got) != want {
		t.Errorf("delays %v, want %s", got, want)
	}
	// Others do not wait, not even next door; the same customer's addresses do.
	for range 10 {
		_, done, _ := th.fail("[2001:db8:0:1::1]:1", now)
		done()
	}
	for remote, slow := range map[string]bool{
		"192.0.2.2:1000": false, "[::ffff:192.0.2.1]:9": true, "[2001:db8:0:1::ffff]:2": true, "[2001:db8:0:2::1]:1": false,
	} {
		delay, done, ok := th.fail(remote, now)
		if !ok || (delay > 0) != slow {
			t.Errorf("%s: waits %v, %v", remote, delay, ok)
			continue
		}
		done()
	}
	// Not all at once, either.
	var waiting []func()
	for range maxWaitingOne {
		_, done, ok := th.fail("192.0.2.1:1000", now)
		if !ok {
			t.Fatal("too few may wait")
		}
		waiting = append(waiting, done)
	}
	if delay, _, ok := th.fail("192.0.2.1:1000", now); ok || delay == 0 {
		t.Errorf("one more waits: %v, %v", delay, ok)
	}
	for _, done := range waiting {
		done()
	}
	if _, done, ok := th.fail("192.0.2.1:1000", now); !ok {
		t.Error("nobody may wait any more")
	} else {
		done()
	}
	if delay, _, ok := th.fail("192.0.2.1:1000", now.Add(forgetAfter+1)); !ok || delay != 0 {
		t.Errorf("after a while: %v, %v", delay, ok)
	}
}

// However many addresses there are, the memory is that of some.
func TestThrottleIsBounded(t *testing.T) {
	t.Parallel()
	var th throttle
	now := time.Now()
	for i := range 3 * maxAddresses {
		_, done, _ := th.fail(fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255), now)
		done()
		_, done, _ = th.fail("192.0.2.1:1", now) // one that keeps on
		if done != nil {
			done()
		}
	}
	if len(th.by) != maxAddresses || th.recent.Len() != maxAddresses {
		t.Errorf("%d addresses in the map, %d in the list", len(th.by), th.recent.Len())
	}
	if delay, _, _ := th.fail("192.0.2.1:1", now); delay != maxDelay {
		t.Errorf("who keeps on was forgotten: waits %v", delay)
	}
	if th.waiting != 1 {
		t.Errorf("%d are said to wait", th.waiting)
	}
	if _, _, ok := th.fail("no address", now); !ok {
		t.Error("an address that cannot be read is refused at once")
	}
}
