package server

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/headgate/headgate/hooks"
)

// AuthorizedKey is a public key and whose it is.
type AuthorizedKey struct {
	Key gossh.PublicKey
	Who hooks.Identity
}

// KeyError is a line of an authorized_keys file that was left out.
type KeyError struct {
	Line   int
	Reason string
}

func (e *KeyError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Reason) }

// maxKeyFile bounds the authorized_keys file.
const maxKeyFile = 16 << 20

var userName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// ParseAuthorizedKeys reads a file in sshd's authorized_keys format. Three options
// are its own: user="ada" names the key's owner, groups="leads,ci" says in which
// groups they are, and admin makes them an administrator. Without user, the comment up to "@" is the name, else the
// key's fingerprint. Lines that cannot be honoured in full are left out and
// returned as errors: a restriction that is ignored would be a hole.
func ParseAuthorizedKeys(data []byte) (keys []AuthorizedKey, bad []*KeyError) {
	for n, line := range bytes.Split(data, []byte("\n")) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		key, comment, options, _, err := gossh.ParseAuthorizedKey(line)
		if err != nil {
			bad = append(bad, &KeyError{n + 1, "not a public key"})
			continue
		}
		who, err := identityOf(key, comment, options)
		if err != nil {
			bad = append(bad, &KeyError{n + 1, err.Error()})
			continue
		}
		keys = append(keys, AuthorizedKey{Key: key, Who: who})
	}
	return keys, bad
}

func identityOf(key gossh.PublicKey, comment string, options []string) (hooks.Identity, error) {
	who := hooks.Identity{Fingerprint: gossh.FingerprintSHA256(key)}
	for _, opt := range options {
		name, value, _ := strings.Cut(opt, "=")
		switch strings.ToLower(name) {
		case "user":
			who.Name = strings.Trim(value, `"`)
			if !userName.MatchString(who.Name) {
				return who, fmt.Errorf("user %q is not a name: use up to 64 of A-Z, a-z, 0-9, '.', '_', '-'", who.Name)
			}
		case "groups":
			for group := range strings.SplitSeq(strings.Trim(value, `"`), ",") {
				if !userName.MatchString(group) {
					return who, fmt.Errorf("group %q is not a name: use up to 64 of A-Z, a-z, 0-9, '.', '_', '-', and commas between groups", group)
				}
				who.Groups = append(who.Groups, group)
			}
		case "admin":
			who.Admin = true
		case "restrict", "no-pty", "no-port-forwarding", "no-agent-forwarding", "no-x11-forwarding", "no-user-rc":
			// Always so here.
		default:
			return who, fmt.Errorf("option %q is not supported", name)
		}
	}
	if who.Name == "" {
		who.Name, _, _ = strings.Cut(comment, "@")
	}
	if !userName.MatchString(who.Name) {
		who.Name = who.Fingerprint
	}
	return who, nil
}

// KeyFile is an authorized_keys file, read again whenever it changes, and a
// fixed set of keys besides. It is safe for concurrent use.
type KeyFile struct {
	path  string // "" for none
	fixed []AuthorizedKey
	log   *slog.Logger

	mu     sync.Mutex
	state  fileState
	warned fileState                 // of which the bad lines are in the log
	keys   map[string]hooks.Identity // by the key's wire format
}

// fileState tells whether a file has changed since it was read. The time of the
// last change of the inode is in it, which nobody can set, and the inode, for files
// that are replaced.
type fileState struct {
	modified, changed time.Time
	size              int64
	inode             uint64
}

func stateOf(info fs.FileInfo) fileState {
	state := fileState{modified: info.ModTime(), size: info.Size()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		state.changed, state.inode = time.Unix(sys.Ctim.Unix()), sys.Ino
	}
	return state
}

// racy is how long after a change another one may have the same time, by the
// granularity of clocks of file systems. Git calls such an index "racily clean".
const racy = 2 * time.Second

// settled reports whether no later change can look like this state.
func (s fileState) settled(now time.Time) bool { return now.Sub(s.changed) > racy }

// NewKeyFile returns the keys of the file at path, which need not exist yet,
// and the fixed ones, which win. With an empty path there are only those.
func NewKeyFile(path string, fixed []AuthorizedKey, log *slog.Logger) (*KeyFile, error) {
	k := &KeyFile{path: path, fixed: fixed, log: log}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.refresh(); err != nil {
		return nil, fmt.Errorf("read authorized keys: %w", err)
	}
	return k, nil
}

// Lookup returns whose key it is, by the file as it is now.
func (k *KeyFile) Lookup(key gossh.PublicKey) (hooks.Identity, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.refresh(); err != nil {
		// Who may still enter is not known: only the fixed keys do.
		k.log.Error("cannot read authorized keys", "file", k.path, "err", err)
		k.set(nil)
		k.state = fileState{}
	}
	who, ok := k.keys[string(key.Marshal())]
	return who, ok
}

// Len returns the number of keys.
func (k *KeyFile) Len() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.keys)
}

func (k *KeyFile) refresh() error {
	if k.path == "" {
		if k.keys == nil {
			k.set(nil)
		}
		return nil
	}
	info, err := os.Stat(k.path)
	if errors.Is(err, fs.ErrNotExist) {
		k.set(nil)
		k.state = fileState{}
		return nil
	}
	if err != nil {
		return err
	}
	now, state := time.Now(), stateOf(info)
	if k.keys != nil && state == k.state {
		return nil
	}
	if info.Size() > maxKeyFile {
		return fmt.Errorf("it has %d bytes, limit is %d", info.Size(), maxKeyFile)
	}
	data, err := os.ReadFile(k.path)
	if err != nil {
		return err
	}
	keys, bad := ParseAuthorizedKeys(data)
	if state != k.warned {
		k.warned = state
		for _, e := range bad {
			k.log.Warn("authorized key left out", "file", k.path, "line", e.Line, "reason", e.Reason)
		}
	}
	k.set(keys)
	k.state = fileState{} // read again next time, unless
	if state.settled(now) {
		k.state = state
	}
	return nil
}

// set makes the list. A key that is in it twice is whose it is first, as in sshd.
func (k *KeyFile) set(keys []AuthorizedKey) {
	k.keys = make(map[string]hooks.Identity, len(keys)+len(k.fixed))
	for _, list := range [][]AuthorizedKey{k.fixed, keys} {
		for _, a := range list {
			wire := string(a.Key.Marshal())
			if _, ok := k.keys[wire]; !ok {
				k.keys[wire] = a.Who
			}
		}
	}
	// Groups are a user's, whichever key of theirs says so.
	groups := make(map[string][]string)
	for _, who := range k.keys {
		groups[who.Name] = append(groups[who.Name], who.Groups...)
	}
	for wire, who := range k.keys {
		who.Groups = slices.Compact(slices.Sorted(slices.Values(groups[who.Name])))
		k.keys[wire] = who
	}
}

// People returns who has a key, one entry for each key, by the file as it is now.
func (k *KeyFile) People() []hooks.Identity {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.refresh(); err != nil {
		k.log.Error("cannot read authorized keys", "file", k.path, "err", err)
		k.set(nil)
		k.state = fileState{}
	}
	all := make([]hooks.Identity, 0, len(k.keys))
	for _, who := range k.keys {
		all = append(all, who)
	}
	return all
}
