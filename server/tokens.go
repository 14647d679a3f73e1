package server

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/server/token"
)

// Bounds of a token's life.
const (
	defaultExpiry = "90d"
	maxExpiry     = 10 * 366 * 24 * time.Hour
)

const tokenCreateHelp = `A token stands for your key where a client cannot use it: git over HTTP. It is the password there; the user name
does not matter. It may do what you may, less what --read-only and --lake take away, and runs no commands. It ends when
it expires, when you revoke it, and while your key is not authorized. It is printed this once; the server keeps only a
digest of it. Standard output has the token and nothing else, so TOKEN=$(...) works.`

type tokenOptions struct {
	name, expires, lake *string
	readOnly, json      *bool
}

func tokenCreateFlags(fs *flag.FlagSet) any {
	return tokenOptions{
		name:     fs.String("name", "", "`NAME` to know it by"),
		expires:  fs.String("expires", defaultExpiry, "`TIME` until it expires, such as 12h, 30d or 4w; or never"),
		lake:     fs.String("lake", "", "`LAKE` that it is for; all if absent"),
		readOnly: fs.Bool("read-only", false, "clone and fetch only"),
		json:     fs.Bool("json", false, "print JSON"),
	}
}

// tokenCreated is what token create --json prints.
type tokenCreated struct {
	Token string `json:"token"`
	tokenInfo
}

// tokenInfo is what token ls --json prints of a token.
type tokenInfo struct {
	ID       string     `json:"id"`
	Name     string     `json:"name,omitempty"`
	User     string     `json:"user"`
	Key      string     `json:"key"` // fingerprint
	ReadOnly bool       `json:"read_only"`
	Lake     lake.Name  `json:"lake,omitempty"`
	Created  time.Time  `json:"created"`
	Expires  *time.Time `json:"expires,omitempty"`
	Used     *time.Time `json:"used,omitempty"`
	State    string     `json:"state"` // "valid", "expired", "key removed"
}

func tokenCreate(c *session, _ []string, flags any) int {
	opt := flags.(tokenOptions)
	now := time.Now()
	t := token.Token{Name: *opt.name, Key: c.key, Who: c.who.Name, Scope: token.Scope{ReadOnly: *opt.readOnly}}
	life, err := parseExpiry(*opt.expires)
	if err != nil {
		return c.usage("%v", err)
	}
	if life > 0 {
		t.Expires = now.Add(life)
	}
	if *opt.lake != "" {
		if t.Lake, err = lake.ParseName(*opt.lake); err != nil {
			return c.usage("%v", err)
		}
		_, err := c.cfg.Lakes.Open(c.client, t.Lake)
		switch {
		case errors.Is(err, lake.ErrNotFound) && c.who.Admin: // its first push may create it
		case errors.Is(err, lake.ErrNotFound):
			return c.fail("lake %q does not exist; %s lake ls lists those that do", t.Lake, c.cfg.SSH)
		case err != nil:
			return c.broken("cannot open lake", err)
		}
	}
	secret, t, err := c.cfg.Tokens.Create(t, now)
	var bad *token.Error
	switch {
	case errors.As(err, &bad):
		return c.fail("%s", printable(bad.Text))
	case err != nil:
		return c.broken("cannot create token", err)
	}
	c.done(nil, "token create", t.ID)
	c.log.Info("token created", "token", t.ID, "name", t.Name, "read_only", t.ReadOnly, "lake", t.Lake, "expires", t.Expires)
	if *opt.json {
		return c.printJSON(tokenCreated{secret, c.infoOf(t, now)})
	}
	fmt.Fprint(c.errw, c.tokenNotes(t))
	return c.print(secret + "\n")
}

// tokenNotes is what the user is told of a new token besides the token.
func (c *session) tokenNotes(t token.Token) string {
	var b strings.Builder
	until := "until you revoke it"
	if !t.Expires.IsZero() {
		until = "until " + t.Expires.UTC().Format("2006-01-02 15:04Z")
	}
	may := "reads and pushes"
	if t.ReadOnly {
		may = "reads"
	}
	which := "every lake"
	if t.Lake != "" {
		which = "lake " + string(t.Lake)
	}
	fmt.Fprintf(&b, "headgate: token %s of %s %s %s, %s. It is shown this once; keep it like a key.\n", t.ID, c.who.Name, may, which, until)
	if c.cfg.HTTP == "" {
		fmt.Fprintf(&b, "headgate: as it is, the server takes no tokens: %s\n", or(c.cfg.NoHTTP, "git over HTTP is off"))
		return b.String()
	}
	fmt.Fprintf(&b, "headgate: git clone %s%s asks for it: it is the password, with any user name\n", c.cfg.HTTP, or(string(t.Lake), "<lake>"))
	return b.String()
}

// parseExpiry reads "30d", "4w" or what time.ParseDuration takes; 0 is never.
func parseExpiry(text string) (time.Duration, error) {
	bad := fmt.Errorf("%s is not a time until something expires; use 12h, 30d, 4w, or never", quoted(clipLine(text)))
	if text == "never" {
		return 0, nil
	}
	life, err := time.ParseDuration(text)
	for unit, length := range map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour} {
		digits, ok := strings.CutSuffix(text, unit)
		if !ok {
			continue
		}
		var n uint64
		if n, err = strconv.ParseUint(digits, 10, 16); err == nil {
			life = time.Duration(n) * length
		}
	}
	switch {
	case err != nil, life < time.Second:
		return 0, bad
	case life > maxExpiry:
		return 0, fmt.Errorf("%s is more than ten years; say never if you mean it", quoted(clipLine(text)))
	}
	return life, nil
}

type tokenListOptions struct{ all, json *bool }

func tokenListFlags(fs *flag.FlagSet) any {
	return tokenListOptions{fs.Bool("all", false, "those of all users, for administrators"), fs.Bool("json", false, "print JSON")}
}

func tokenList(c *session, _ []string, flags any) int {
	opt := flags.(tokenListOptions)
	if *opt.all && !c.who.Admin {
		return c.fail("token ls --all is for administrators; you are %s", c.who.Name)
	}
	list, err := c.cfg.Tokens.List()
	if err != nil {
		return c.broken("cannot list tokens", err)
	}
	infos := []tokenInfo{}
	for _, t := range list {
		if *opt.all || c.owns(t) {
			infos = append(infos, c.infoOf(t, time.Now()))
		}
	}
	if *opt.json {
		return c.printJSON(infos)
	}
	if len(infos) == 0 {
		return c.print("no tokens\n")
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tNAME\tUSER\tMAY\tLAKE\tCREATED\tEXPIRES\tLAST USED\tSTATE")
	for _, t := range infos {
		may := "push"
		if t.ReadOnly {
			may = "read"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", t.ID, or(t.Name, "-"), t.User, may, or(string(t.Lake), "*"),
			day(&t.Created), day(t.Expires), day(t.Used), t.State)
	}
	_ = w.Flush() // to memory
	return c.print(printable(b.String()))
}

func day(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return t.UTC().Format("2006-01-02 15:04Z")
}

// owner returns whose a token is now; ok is false if its key opens nothing.
func (c *session) owner(t token.Token) (name string, ok bool) {
	key, err := gossh.ParsePublicKey(t.Key)
	if err != nil {
		return t.Who, false
	}
	who, ok := c.cfg.Keys.Lookup(key)
	if !ok {
		return t.Who, false
	}
	return who.Name, true
}

// owns reports whether a token is the session's user's: made by the same key, or
// by another one that is theirs now.
func (c *session) owns(t token.Token) bool {
	if bytes.Equal(t.Key, c.key) {
		return true
	}
	name, ok := c.owner(t)
	return ok && name == c.who.Name
}

func (c *session) infoOf(t token.Token, now time.Time) tokenInfo {
	info := tokenInfo{ID: t.ID, Name: t.Name, ReadOnly: t.ReadOnly, Lake: t.Lake, Created: t.Created, State: "valid"}
	if key, err := gossh.ParsePublicKey(t.Key); err == nil {
		info.Key = gossh.FingerprintSHA256(key)
	}
	name, ok := c.owner(t)
	info.User = name
	switch {
	case t.Expired(now):
		info.State = "expired"
	case !ok:
		info.State = "key removed"
	}
	if !t.Expires.IsZero() {
		info.Expires = &t.Expires
	}
	if !t.Used.IsZero() {
		info.Used = &t.Used
	}
	return info
}

func tokenRevoke(c *session, args []string, _ any) int {
	list, err := c.cfg.Tokens.List()
	if err != nil {
		return c.broken("cannot list tokens", err)
	}
	// A name is the asker's own; an administrator may name anybody's by its id.
	var found []token.Token
	for _, t := range list {
		if c.owns(t) && (t.ID == args[0] || t.Name == args[0]) || c.who.Admin && t.ID == args[0] {
			found = append(found, t)
		}
	}
	switch {
	case token.WellFormed(args[0]):
		return c.usage("give the token's id or name, not the token; %s token ls lists them", c.cfg.SSH)
	case len(found) == 0:
		return c.fail("you have no token %s; %s token ls lists yours", quoted(clipLine(args[0])), c.cfg.SSH)
	case len(found) > 1:
		return c.fail("%d tokens of yours are called %s; give the id of one", len(found), quoted(clipLine(args[0])))
	}
	if err := c.cfg.Tokens.Revoke(found[0].ID); errors.Is(err, token.ErrUnknown) {
		return c.fail("token %s was revoked just now", found[0].ID)
	} else if err != nil {
		return c.broken("cannot revoke token", err)
	}
	c.log.Info("token revoked", "token", found[0].ID)
	c.done(nil, "token revoke", found[0].ID)
	return c.print(fmt.Sprintf("revoked %s\n", found[0].ID))
}
