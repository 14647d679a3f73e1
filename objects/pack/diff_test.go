package pack

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

func apply(base, delta []byte) ([]byte, error) {
	d, err := NewDelta(bytes.NewReader(delta))
	if err != nil {
		return nil, err
	}
	if d.BaseSize != int64(len(base)) {
		return nil, fmt.Errorf("a base of %d bytes, want %d", d.BaseSize, len(base))
	}
	var out bytes.Buffer
	err = d.Apply(bytes.NewReader(base), &out)
	return out.Bytes(), err
}

// Whatever is done to a content, its delta makes it again, and is never longer
// than allowed.
func TestDiffMakesTheTarget(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Few different bytes, so that blocks come up again and again.
		content := rapid.SliceOfN(rapid.ByteRange('a', 'c'), 0, 400)
		if rapid.Bool().Draw(t, "varied") {
			content = rapid.SliceOfN(rapid.Byte(), 0, 400)
		}
		base := content.Draw(t, "base")
		if n := rapid.IntRange(1, 400).Draw(t, "times"); n > 200 {
			base = bytes.Repeat(base, n) // longer than one copy
		}
		target := bytes.Clone(base)
		for range rapid.IntRange(0, 4).Draw(t, "edits") {
			at := rapid.IntRange(0, len(target)).Draw(t, "at")
			end := min(len(target), at+rapid.IntRange(0, 40).Draw(t, "removed"))
			target = append(append(bytes.Clone(target[:at]), content.Draw(t, "inserted")...), target[end:]...)
		}
		b := NewDeltaBase(base)
		delta := b.Diff(target, 1<<30)
		got, err := apply(base, delta)
		if err != nil || !bytes.Equal(got, target) {
			t.Fatalf("%d bytes became %d of %d: %v", len(base), len(got), len(target), err)
		}
		max := rapid.IntRange(0, len(target)+40).Draw(t, "max")
		if short := b.Diff(target, max); short != nil && (len(short) > max || !bytes.Equal(short, delta)) || short == nil && len(delta) <= max {
			t.Fatalf("a delta of %d bytes, with %d allowed: %d", len(delta), max, len(short))
		}
	})
}

// A changed entry of a tree costs little more than its oid.
func TestDiffOfATreeIsSmall(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	var base []byte
	for i := range 200 {
		base = fmt.Appendf(base, "40000 table_%03d\x00", i)
		for range 20 {
			base = append(base, byte(rnd.Uint32()))
		}
	}
	target := bytes.Clone(base)
	for i := range 20 {
		target[100*36+16+i] ^= byte(1 + rnd.IntN(255))
	}
	delta := NewDeltaBase(base).Diff(target, len(target))
	if len(delta) == 0 || len(delta) > 40 {
		t.Errorf("one entry of %d bytes costs %d bytes", len(base), len(delta))
	}
}

func BenchmarkDiff(b *testing.B) {
	rnd := rand.New(rand.NewPCG(1, 1))
	base := make([]byte, 4000)
	for i := range base {
		base[i] = byte(rnd.Uint32())
	}
	target := bytes.Clone(base)
	for i := range 20 {
		target[2000+i] ^= 0x55
	}
	b.SetBytes(int64(len(target)))
	for b.Loop() {
		NewDeltaBase(base).Diff(target, len(target)/2)
	}
}
