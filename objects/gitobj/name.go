package gitobj

import (
	"strings"
	"unicode/utf8"
)

// maxName is git's own bound on a path component (fsck's largePathname).
const maxName = 4096

// badName returns the fsck message id of what is wrong with a tree entry's
// name, or "".
func badName(name string) string {
	switch {
	case name == "":
		return "emptyName"
	case strings.IndexByte(name, 0) >= 0:
		return "badTree"
	case strings.IndexByte(name, '/') >= 0:
		return "fullPathname"
	case name == ".":
		return "hasDot"
	case name == "..":
		return "hasDotdot"
	case len(name) > maxName:
		return "largePathname"
	case isDotGit(name):
		return "hasDotgit"
	}
	return ""
}

// isDotGit tells whether some file system that a client may use takes name for
// ".git": HFS+ ignores some code points, NTFS ignores trailing dots, blanks and
// streams, has the short name "git~1", and takes a backslash for a separator.
func isDotGit(name string) bool {
	if isHFSDot(name, "git") || isNTFSDotGit(name) {
		return true
	}
	for rest := name; ; {
		i := strings.IndexByte(rest, '\\')
		if i < 0 {
			return false
		}
		rest = rest[i+1:]
		if isNTFSDotGit(rest) {
			return true
		}
	}
}

// IsDotGitmodules tells whether some client's file system takes name for
// ".gitmodules", a file that git acts on when it clones submodules.
func IsDotGitmodules(name string) bool { return isDotFile(name, "gitmodules", "gi7eba") }

// IsDotGitattributes tells whether some client's file system takes name for
// ".gitattributes", a file that git parses at every checkout.
func IsDotGitattributes(name string) bool { return isDotFile(name, "gitattributes", "gi7d29") }

// isDotFile tells whether name is "."+long to HFS+, or to NTFS in any component
// between backslashes. hashed is how NTFS begins the short name when the
// ordinary ones are taken.
func isDotFile(name, long, hashed string) bool {
	if isHFSDot(name, long) || isNTFSDot(name, long, hashed) {
		return true
	}
	for rest := name; ; {
		i := strings.IndexByte(rest, '\\')
		if i < 0 {
			return false
		}
		rest = rest[i+1:]
		if isNTFSDot(rest, long, hashed) {
			return true
		}
	}
}

// hfsIgnored tells whether HFS+ drops the code point when it compares names
// (next_hfs_char in git's utf8.c).
func hfsIgnored(r rune) bool {
	switch {
	case r >= 0x200c && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x206a && r <= 0x206f, r == 0xfeff:
		return true
	}
	return false
}

func isHFSDot(name, want string) bool {
	want = "." + want
	i := 0
	for len(name) > 0 {
		r, n := utf8.DecodeRuneInString(name)
		name = name[n:]
		if hfsIgnored(r) {
			continue
		}
		if i == len(want) || r > 0x7f || lower(byte(r)) != want[i] {
			return false
		}
		i++
	}
	return i == len(want)
}

func isNTFSDotGit(name string) bool {
	switch {
	case hasPrefixFold(name, ".git"):
		name = name[len(".git"):]
	case hasPrefixFold(name, "git~1"):
		name = name[len("git~1"):]
	default:
		return false
	}
	for i := range len(name) {
		switch name[i] {
		case '\\', '/', ':':
			return true
		case '.', ' ':
		default:
			return false
		}
	}
	return true
}

// isNTFSDot follows is_ntfs_dot_generic in git's path.c: the long name, the
// ordinary short names, and the hashed ones such as "gi7eba~1".
func isNTFSDot(name, long, hashed string) bool {
	switch {
	case hasPrefixFold(name, "."+long):
		return blankTail(name[1+len(long):])
	case hasPrefixFold(name, long[:6]+"~") && len(name) > 7 && name[7] >= '1' && name[7] <= '4':
		return blankTail(name[8:])
	}
	tilde := false
	for i := 0; i < 8; i++ {
		switch {
		case i >= len(name):
			return false
		case tilde:
			if name[i] < '0' || name[i] > '9' {
				return false
			}
		case name[i] == '~':
			i++
			if i >= len(name) || name[i] < '1' || name[i] > '9' {
				return false
			}
			tilde = true
		case i >= 6 || lower(name[i]) != hashed[i]:
			return false
		}
	}
	return blankTail(name[8:])
}

// blankTail tells whether NTFS ignores all of s at the end of a name.
func blankTail(s string) bool {
	for i := range len(s) {
		switch s[i] {
		case ':':
			return true
		case ' ', '.':
		default:
			return false
		}
	}
	return true
}

func hasPrefixFold(s, lowerPrefix string) bool {
	if len(s) < len(lowerPrefix) {
		return false
	}
	for i := range len(lowerPrefix) {
		if lower(s[i]) != lowerPrefix[i] {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
