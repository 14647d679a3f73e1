package token

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"hash/crc32"
	"math/big"
	"strings"
)

// Prefix begins every token, so that scanners for leaked secrets know one by
// the pattern hgt_[0-9A-Za-z]{49}.
const Prefix = "hgt_"

const (
	randomBytes = 32
	bodyLen     = 43 // digits of base 62 that 256 bits take
	checkLen    = 6  // and that 32 bits take
	secretLen   = len(Prefix) + bodyLen + checkLen
)

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// newSecret returns a token of 256 random bits: the prefix, the bits in base 62,
// and the CRC-32 (IEEE) of both in base 62.
func newSecret() string {
	random := make([]byte, randomBytes)
	_, _ = rand.Read(random) // it never fails: it ends the process instead
	body := Prefix + encode62(new(big.Int).SetBytes(random), bodyLen)
	return body + checksum(body)
}

func checksum(body string) string {
	return encode62(big.NewInt(int64(crc32.ChecksumIEEE([]byte(body)))), checkLen)
}

// encode62 writes n in as many digits as are asked for, the first ones zero.
func encode62(n *big.Int, digits int) string {
	out := make([]byte, digits)
	base, rest := big.NewInt(int64(len(base62))), new(big.Int)
	for i := digits - 1; i >= 0; i-- {
		n.DivMod(n, base, rest)
		out[i] = base62[rest.Int64()]
	}
	return string(out)
}

// WellFormed reports whether a text has the form of a token, checksum included.
// It says nothing of whether there is such a token.
func WellFormed(secret string) bool {
	if len(secret) != secretLen || !strings.HasPrefix(secret, Prefix) {
		return false
	}
	for _, c := range []byte(secret[len(Prefix):]) {
		if strings.IndexByte(base62, c) < 0 {
			return false
		}
	}
	body := secret[:len(Prefix)+bodyLen]
	return checksum(body) == secret[len(body):]
}

// digest is what is stored of a token. There are 2^256 of them, all equally
// likely, so neither salt nor a slow hash would make one harder to find.
func digest(secret string) [sha256.Size]byte { return sha256.Sum256([]byte(secret)) }

// idLen is 64 bits in hexadecimal digits.
const idLen = 16

// idOf names a token in lists and logs. It tells nothing of use about the token.
func idOf(sum [sha256.Size]byte) string { return hex.EncodeToString(sum[:idLen/2]) }
