package server

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func exchangeOf(body io.Reader, limit int64) (*exchange, *httptest.ResponseRecorder) {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, "/", body)
	return newExchange(w, r, "application/x-test", limit, time.Minute), w
}

// What is said before the request is complete waits for its end, unless it is much.
func TestExchangeHoldsBack(t *testing.T) {
	t.Parallel()
	x, w := exchangeOf(io.MultiReader(strings.NewReader("request")), 0)
	say := func(text string) {
		t.Helper()
		if n, err := io.WriteString(x, text); n != len(text) || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
	}
	say("early ")
	if w.Body.Len() != 0 {
		t.Errorf("%q is out before the request is in", w.Body)
	}
	if got, err := io.ReadAll(x); string(got) != "request" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	say("late ")
	if w.Body.String() != "early late " || !w.Flushed {
		t.Errorf("after the end %q is out, flushed %t", w.Body, w.Flushed)
	}
	if refused, err := x.finish(errors.New("too late to say")); refused != nil || err != nil {
		t.Errorf("%v, %v", refused, err)
	}
	if w.Code != 200 || w.Header().Get("Content-Type") != "application/x-test" {
		t.Errorf("%d %v", w.Code, w.Header())
	}

	x, w = exchangeOf(io.MultiReader(strings.NewReader("request")), 0)
	say(strings.Repeat("x", maxHeld))
	if w.Body.Len() != 0 {
		t.Error("it is out at once")
	}
	say("y")
	if w.Body.Len() != maxHeld+1 || !strings.HasSuffix(w.Body.String(), "xy") {
		t.Errorf("%d bytes are out, want all", w.Body.Len())
	}
}

// A body that is refused takes back what was said, and stays refused.
func TestExchangeRefuses(t *testing.T) {
	t.Parallel()
	x, w := exchangeOf(strings.NewReader("0123456789"), 4)
	if _, err := io.WriteString(x, "an answer"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		var bad *bodyError
		if _, err := io.ReadAll(x); !errors.As(err, &bad) || bad.status != http.StatusRequestEntityTooLarge {
			t.Errorf("%v", err)
		}
	}
	if refused, err := x.finish(nil); err != nil || refused == nil || refused.status != http.StatusRequestEntityTooLarge || w.Body.Len() != 0 {
		t.Errorf("%v, %v; %q is out", refused, err, w.Body)
	}
}

func FuzzInflate(f *testing.F) {
	zip := func(data []byte) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write(data)
		_ = z.Close()
		return b.Bytes()
	}
	f.Add(zip([]byte("0032want")))
	f.Add(zip(make([]byte, 4<<20)))
	f.Add(append(zip([]byte("two")), zip([]byte("members"))...))
	f.Add([]byte("\x1f\x8b"))
	f.Fuzz(func(t *testing.T, body []byte) {
		x, _ := exchangeOf(bytes.NewReader(body), maxFetchRequest)
		x.compressed()
		n, err := io.Copy(io.Discard, x)
		// One read more than the bound, at most.
		if limit := max(inflationSlack, int64(len(body))*maxInflation) + 64<<10; n > limit {
			t.Fatalf("%d bytes became %d", len(body), n)
		}
		var bad *bodyError
		if err != nil && !errors.As(err, &bad) {
			t.Fatalf("an error without a status: %v", err)
		}
		if want, wantErr := plain(body); err == nil && (wantErr != nil || int64(want) != n) {
			t.Fatalf("took %d bytes of what gzip says is %d, %v", n, want, wantErr)
		}
	})
}

// plain is how much gzip itself makes of a body.
func plain(body []byte) (int64, error) {
	z, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	return io.Copy(io.Discard, io.LimitReader(z, maxFetchRequest))
}
