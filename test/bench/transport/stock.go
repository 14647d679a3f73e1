package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/gliderlabs/ssh"
	gossh "golang.org/x/crypto/ssh"
)

// stockWord makes this program the endpoint that stock git is served by.
const stockWord = "stock-endpoint"

// serveStock serves the repositories of a directory with git's own upload-pack
// and receive-pack: the SSH library is Headgate's, so that both sides of a
// comparison pay the same for encryption, and git does the rest. It takes any
// key, on loopback only, writes where it listens to a file and ends when it is killed.
func serveStock(dir, keyFile, addrFile string) error {
	text, err := os.ReadFile(keyFile)
	if err != nil {
		return err
	}
	key, err := gossh.ParsePrivateKey(text)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := &ssh.Server{
		HostSigners:      []ssh.Signer{key},
		PublicKeyHandler: func(ssh.Context, ssh.PublicKey) bool { return true },
		// What Headgate makes of OpenSSH's list of ciphers.
		ServerConfigCallback: func(ssh.Context) *gossh.ServerConfig {
			return &gossh.ServerConfig{Config: gossh.Config{Ciphers: []string{gossh.CipherAES128GCM, gossh.CipherAES256GCM}}}
		},
		Handler: func(s ssh.Session) {
			code := 0
			if err := stockSession(dir, s); err != nil {
				fmt.Fprintln(s.Stderr(), err)
				code = 1
				var exit *exec.ExitError
				if errors.As(err, &exit) {
					code = exit.ExitCode()
				}
			}
			_ = s.Exit(code) // the client has gone: nobody to tell
		},
	}
	if err := os.WriteFile(addrFile+".new", []byte(l.Addr().String()), 0o600); err != nil {
		return err
	}
	if err := os.Rename(addrFile+".new", addrFile); err != nil {
		return err
	}
	return srv.Serve(l)
}

// The endpoint's own commands measure what SSH costs by itself: words of a command
// line that send so many bytes, and that take what comes.
const (
	sendWord = "transport-send"
	takeWord = "transport-take"
)

// bare moves bytes and does nothing with them, in the sizes of side-band packets.
func bare(s ssh.Session, words []string) error {
	buf := make([]byte, 65520)
	if words[0] == takeWord {
		_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, s, buf)
		return err
	}
	n, err := strconv.ParseInt(words[1], 10, 64)
	for err == nil && n > 0 {
		_, err = s.Write(buf[:min(n, int64(len(buf)))])
		n -= int64(len(buf))
	}
	return err
}

func stockSession(dir string, s ssh.Session) error {
	words := s.Command()
	if len(words) == 2 && (words[0] == sendWord || words[0] == takeWord) {
		return bare(s, words)
	}
	if len(words) != 2 || words[0] != "git-upload-pack" && words[0] != "git-receive-pack" {
		return fmt.Errorf("%q is not served", words)
	}
	cmd := exec.Command("git", strings.TrimPrefix(words[0], "git-"), filepath.Join(dir, filepath.Base(words[1])))
	cmd.Env = append(os.Environ(), s.Environ()...)
	cmd.Stdout, cmd.Stderr = s, s.Stderr()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	// Not cmd.Stdin: Wait would wait for a client that has nothing more to say.
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := s.Read(buf)
			if n > 0 {
				if _, err := stdin.Write(buf[:n]); err != nil {
					break
				}
			}
			if err != nil {
				break
			}
		}
		_ = stdin.Close() // git has gone, or its input ends
	}()
	return cmd.Wait()
}
