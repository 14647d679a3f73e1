// Package daemon starts the built server as a process, for tests that drive it
// as its users do, and ends it. It knows how the server is started and how it
// says that it is ready, and nothing of what is asked of it.
package daemon

import (
	"bufio"
	"crypto/ed25519"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
)

// patience is far above what a start or an end takes (half a second; on a machine
// that others use up, more than a minute has been seen) and below go test's own.
const patience = 3 * time.Minute

// Options say how a server is started.
type Options struct {
	Bin            string // directory of headgate and headgate-worker
	Data           string // the server's data directory
	SSHAddr        string // "127.0.0.1:0" if empty: the kernel gives a port
	AuthorizedKeys string // file
	Python         string // interpreter of Python functions; "" leaves it to the server
	Flags          []string
	Env            []string // added to this process's own
	Log            *os.File // gets standard error
}

// Daemon is a running server, and what its server.json says.
type Daemon struct {
	SSHAddr  string `json:"ssh_addr"`
	HTTPAddr string `json:"http_addr"`
	HTTPURL  string `json:"http_url"`
	HostKey  string `json:"host_key"` // a public key line
	GateKey  string `json:"gate_key"` // a line of an allowed-signers file

	cmd *exec.Cmd
}

// Start starts a server and returns when it says that it is ready. The error of
// one that does not get there holds its log.
func Start(o Options) (*Daemon, error) {
	if o.SSHAddr == "" {
		o.SSHAddr = "127.0.0.1:0"
	}
	args := []string{"serve", "--data", o.Data, "--ssh-addr", o.SSHAddr, "--http-addr", "127.0.0.1:0", "--authorized-keys", o.AuthorizedKeys}
	if o.Python != "" {
		args = append(args, "--python", o.Python)
	}
	cmd := exec.Command(filepath.Join(o.Bin, "headgate"), append(args, o.Flags...)...)
	cmd.Stderr = o.Log
	cmd.Env = append(os.Environ(), o.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C on go test is the test's to handle
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ready := make(chan error, 1)
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if strings.HasSuffix(lines.Text(), "is ready") {
				ready <- nil
				_, _ = io.Copy(io.Discard, out)
				return
			}
		}
		ready <- errors.New("it ended before it was ready")
	}()
	select {
	case err = <-ready:
	case <-time.After(patience):
		err = fmt.Errorf("not ready within %s", patience)
	}
	d := &Daemon{cmd: cmd}
	if err == nil {
		err = d.learn(o.Data)
	}
	if err != nil {
		d.Kill()
		log, _ := os.ReadFile(o.Log.Name())
		return nil, fmt.Errorf("%w; its log:\n%s", err, log)
	}
	return d, nil
}

func (d *Daemon) learn(data string) error {
	doc, err := os.ReadFile(filepath.Join(data, "server.json"))
	if err != nil {
		return err
	}
	return json.Unmarshal(doc, d)
}

// KnownHosts returns the server's line of a known_hosts file.
func (d *Daemon) KnownHosts() (string, error) {
	host, port, err := net.SplitHostPort(d.SSHAddr)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("[%s]:%s %s\n", host, port, strings.TrimSpace(d.HostKey)), nil
}

// Stop asks the server to end and wants exit code 0.
func (d *Daemon) Stop() error {
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- d.cmd.Wait() }()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		_ = d.cmd.Process.Kill()
		return errors.Join(errors.New("it did not end after SIGTERM"), <-done)
	}
}

// Kill ends the server as a power cut would.
func (d *Daemon) Kill() {
	_ = d.cmd.Process.Kill()
	_ = d.cmd.Wait()
}

// MakeKey writes an ed25519 key pair to path and path.pub, and returns the public line.
func MakeKey(path string) (string, error) {
	pub, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		return "", err
	}
	block, err := ssh.MarshalPrivateKey(priv, "")
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		return "", err
	}
	key, err := ssh.NewPublicKey(pub)
	if err != nil {
		return "", err
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + " " + filepath.Base(path) + "@test"
	return line, os.WriteFile(path+".pub", []byte(line+"\n"), 0o600)
}
