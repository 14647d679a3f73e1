package server

import (
	"strings"

	gossh "golang.org/x/crypto/ssh"
)

// Bounds of what a session may ask for before its command. The library keeps all
// of it, as much as there is.
const (
	maxEnvironment = 16  // requests
	maxVariable    = 256 // bytes of a value
)

// gatedChannel passes on the requests of a session that this server has a use for,
// which are its command and GIT_PROTOCOL, and refuses all others itself.
type gatedChannel struct {
	gossh.NewChannel
	begun func() // called when the command has come
}

// Accept opens the channel.
func (c gatedChannel) Accept() (gossh.Channel, <-chan *gossh.Request, error) {
	ch, requests, err := c.NewChannel.Accept()
	if err != nil {
		return nil, nil, err
	}
	passed := make(chan *gossh.Request)
	go func() {
		defer close(passed)
		variables := 0
		for req := range requests {
			pass := false
			switch req.Type {
			case "exec", "shell":
				pass = true
				c.begun()
			case "env":
				variables++
				pass = variables <= maxEnvironment && usedVariable(req.Payload)
			}
			if pass {
				passed <- req
			} else if req.WantReply {
				_ = req.Reply(false, nil) // a client that has gone needs none
			}
		}
	}()
	return ch, passed, nil
}

// usedVariable reports whether an env request (RFC 4254, 6.4) sets a variable that
// the server looks at.
func usedVariable(payload []byte) bool {
	var kv struct{ Key, Value string }
	return gossh.Unmarshal(payload, &kv) == nil && kv.Key == "GIT_PROTOCOL" && len(kv.Value) <= maxVariable && !strings.ContainsRune(kv.Value, 0)
}
