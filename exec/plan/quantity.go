package plan

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"strings"
	"time"
)

var sizeUnits = map[string]int64{
	"": 1, "b": 1,
	"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
	"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40,
	"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
}

// ParseSize reads a positive number of bytes: "512MiB", "1.5 GiB", "2GB". A
// single letter is binary ("4G" is 4 GiB), as container tools have it.
func ParseSize(s string) (int64, error) {
	bad := fmt.Errorf("%q is not a size such as 512MiB or 2GiB", s)
	digits := strings.TrimLeft(s, "0123456789.")
	number := s[:len(s)-len(digits)]
	unit, ok := sizeUnits[strings.ToLower(strings.TrimSpace(digits))]
	if !ok || number == "" || len(number) > 20 || strings.HasPrefix(number, ".") || strings.HasSuffix(number, ".") {
		return 0, bad
	}
	r, ok := new(big.Rat).SetString(number)
	if !ok {
		return 0, bad
	}
	r.Mul(r, new(big.Rat).SetInt64(unit))
	switch {
	case !r.IsInt():
		return 0, fmt.Errorf("%q is not a whole number of bytes", s)
	case r.Sign() <= 0:
		return 0, fmt.Errorf("size %q is not positive", s)
	case r.Cmp(new(big.Rat).SetInt64(math.MaxInt64)) > 0:
		return 0, fmt.Errorf("size %q is too large", s)
	}
	return r.Num().Int64(), nil
}

// MaxTimeout is the longest time that one function may ask for.
const MaxTimeout = 24 * time.Hour

// ParseTimeout reads a positive duration of at most MaxTimeout: "90s", "10m", "1h30m".
func ParseTimeout(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%q is not a duration such as 90s or 10m", s)
	case d <= 0:
		return 0, fmt.Errorf("duration %q is not positive", s)
	case d > MaxTimeout:
		return 0, fmt.Errorf("duration %q is more than %s", s, strings.TrimSuffix(MaxTimeout.String(), "0m0s"))
	}
	return d, nil
}

var errPackageName = errors.New("package names have letters, digits, '-', '_' and '.'")

// NormalPackage returns a Python package's name as PEP 503 compares it:
// "Foo_Bar" and "foo-bar" are one package.
func NormalPackage(name string) (string, error) {
	var b strings.Builder
	dash := false
	for _, c := range []byte(strings.ToLower(name)) {
		switch {
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
			if dash {
				b.WriteByte('-')
			}
			dash = false
			b.WriteByte(c)
		case c == '-' || c == '_' || c == '.':
			if b.Len() == 0 {
				return "", errPackageName
			}
			dash = true
		default:
			return "", errPackageName
		}
	}
	if b.Len() == 0 || dash || b.Len() > 100 {
		return "", errPackageName
	}
	return b.String(), nil
}
