package server

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	gossh "golang.org/x/crypto/ssh"
)

// FuzzSplitWords wants the words that were understood to survive being quoted
// again, in each of the three ways.
func FuzzSplitWords(f *testing.F) {
	for _, s := range []string{`a 'b c' "d\"e" f\ g`, "'", `\`, "git-upload-pack '/x'", "a\\\nb", `""`, `'a'"b"c`, "\x00 \xff"} {
		f.Add(s)
	}
	ways := []func(string) string{
		func(w string) string { return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'" },
		func(w string) string {
			return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(w) + `"`
		},
		func(w string) string {
			if w == "" || strings.Contains(w, "\n") {
				return "'" + w + "'"
			}
			return `\` + strings.Join(strings.Split(w, ""), `\`)
		},
	}
	f.Fuzz(func(t *testing.T, line string) {
		words, ok := splitWords(line)
		if !ok {
			return
		}
		if n := len(strings.Join(words, "")); n > len(line) {
			t.Fatalf("%q became %q", line, words)
		}
		for i, quote := range ways {
			if i == 2 && strings.Contains(strings.Join(words, ""), "'") && strings.Contains(line, "\n") {
				continue // that way has no spelling for both
			}
			var quoted []string
			for _, w := range words {
				quoted = append(quoted, quote(w))
			}
			again, ok := splitWords(strings.Join(quoted, " \t"))
			if !ok || !slices.Equal(again, words) {
				t.Fatalf("%q, quoted as %q, became %q", words, quoted, again)
			}
		}
	})
}

// FuzzParseAuthorizedKeys wants an identity that was taken to be the same when
// it is written out, and never one that has become an administrator on the way.
func FuzzParseAuthorizedKeys(f *testing.F) {
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ6Z1y5JpQ8m0sUj2uQz3Q0j1k2l3m4n5o6p7q8r9s0t"
	f.Add([]byte(key + " ada@x\n"))
	f.Add([]byte(`user="bob",admin ` + key + "\n#\n"))
	f.Add([]byte("restrict,no-pty " + key + "\r\n\r\nno-such-option " + key))
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, bad := ParseAuthorizedKeys(data)
		if lines := strings.Count(string(data), "\n") + 1; len(keys)+len(bad) > lines {
			t.Fatalf("%d keys and %d errors of %d lines", len(keys), len(bad), lines)
		}
		for _, k := range keys {
			if k.Who.Name == "" || k.Who.Fingerprint == "" || strings.ContainsAny(k.Who.Name, " \n\"") {
				t.Fatalf("identity %+v", k.Who)
			}
			if k.Who.Admin && !strings.Contains(strings.ToLower(string(data)), "admin") {
				t.Fatalf("%+v is an administrator by %q", k.Who, data)
			}
			var list []string
			if k.Who.Name != k.Who.Fingerprint {
				list = append(list, `user="`+k.Who.Name+`"`)
			}
			if k.Who.Admin {
				list = append(list, "admin")
			}
			if len(k.Who.Groups) > 0 {
				list = append(list, `groups="`+strings.Join(k.Who.Groups, ",")+`"`)
			}
			options := strings.Join(list, ",")
			if options != "" {
				options += " "
			}
			again, bad := ParseAuthorizedKeys([]byte(options + strings.TrimSpace(string(gossh.MarshalAuthorizedKey(k.Key)))))
			if len(bad) > 0 || len(again) != 1 || !reflect.DeepEqual(again[0].Who, k.Who) {
				t.Fatalf("%+v was written as %q and became %+v, %v", k.Who, options, again, bad)
			}
		}
	})
}
