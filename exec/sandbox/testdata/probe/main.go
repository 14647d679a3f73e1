// Command probe is the worker of the sandbox tests: it does what the order's SQL
// says, and answers with what it saw.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/headgate/headgate/exec/protocol"
)

func main() {
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		die(err)
	}
	var order protocol.Order
	if err := json.Unmarshal(text, &order); err != nil {
		die(err)
	}
	verb, arg, _ := strings.Cut(order.SQL, " ")
	if order.Op == protocol.OpTables { // the self-test
		if err := protocol.WriteAnswer(os.Stdout, &protocol.Answer{}); err != nil {
			die(err)
		}
		return
	}
	f, ok := verbs[verb]
	if !ok {
		die(fmt.Errorf("unknown verb %q", verb))
	}
	out, err := f(arg)
	answer(out, err)
}

func die(err error) {
	fmt.Fprintln(os.Stderr, "probe:", err)
	os.Exit(3)
}

// answer sends out as the file "out" and err as the user's error.
func answer(out string, err error) {
	if e := protocol.WriteFile(os.Stdout, "out", int64(len(out)), strings.NewReader(out)); e != nil {
		die(e)
	}
	a := &protocol.Answer{Rows: int64(len(out))}
	if err != nil {
		a.Error = &protocol.UserError{Kind: "data", Message: err.Error()}
	}
	if e := protocol.WriteAnswer(os.Stdout, a); e != nil {
		die(e)
	}
}

var verbs = map[string]func(string) (string, error){
	"echo": func(s string) (string, error) { return s, nil },
	"env":  func(string) (string, error) { return strings.Join(os.Environ(), "\n"), nil },
	"id": func(string) (string, error) {
		host, err := os.Hostname()
		return fmt.Sprintf("%d %d %s", os.Getuid(), os.Getgid(), host), err
	},
	"status": func(string) (string, error) { return read("/proc/self/status") },
	"read":   read,
	"list":   list,
	"try": func(paths string) (string, error) { // what each path gives
		var b strings.Builder
		for _, p := range strings.Fields(paths) {
			_, err := read(p)
			fmt.Fprintf(&b, "%s: %v\n", p, err)
		}
		return b.String(), nil
	},
	"write": func(path string) (string, error) { return "", os.WriteFile(path, []byte("x"), 0o644) },
	"overwrite": func(path string) (string, error) {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return "", err
		}
		_, err = f.Write([]byte("x"))
		return "", err
	},
	"remove":  func(path string) (string, error) { return "", os.Remove(path) },
	"chmod":   func(path string) (string, error) { return "", os.Chmod(path, 0o777) },
	"symlink": symlink,
	"connect": func(to string) (string, error) {
		network, address, _ := strings.Cut(to, " ")
		c, err := net.DialTimeout(network, address, 5*time.Second)
		if err == nil {
			err = c.Close()
		}
		return "", err
	},
	"connects": func(n string) (string, error) {
		count, _ := strconv.Atoi(n)
		for i := range count {
			if c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", 1000+i)); err == nil {
				return "", c.Close()
			}
		}
		return "", nil
	},
	"sendto": func(to string) (string, error) {
		l, err := net.ListenPacket("udp4", ":0")
		if err != nil {
			return "", err
		}
		a, err := net.ResolveUDPAddr("udp4", to)
		if err != nil {
			return "", err
		}
		_, err = l.WriteTo([]byte("x"), a)
		return "", err
	},
	"exec": func(line string) (string, error) {
		f := strings.Fields(line)
		// As a shell does, without looking first.
		err := syscall.Exec(f[0], f, nil)
		return "", err
	},
	"spawn": func(name string) (string, error) { return "", exec.Command(name).Run() },
	"fork":  fork,
	"memory": func(s string) (string, error) {
		n, _ := strconv.Atoi(s)
		var keep [][]byte
		for range n {
			b := make([]byte, 1<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			keep = append(keep, b)
		}
		return strconv.Itoa(len(keep)), nil
	},
	"shm": func(string) (string, error) {
		f, err := os.Create("/dev/shm/x")
		if err != nil {
			return "", err
		}
		for range 1024 {
			if _, err := f.Write(make([]byte, 1<<20)); err != nil {
				return "", err
			}
		}
		return "", nil
	},
	"disk": func(s string) (string, error) { // write that many MiB to /tmp and read them back
		n, _ := strconv.Atoi(s)
		f, err := os.Create("/tmp/big")
		if err != nil {
			return "", err
		}
		block := bytes.Repeat([]byte("headgate"), 1<<17)
		for i := range n {
			if _, err := f.Write(block); err != nil {
				return strconv.Itoa(i), err
			}
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return "", err
		}
		for i := range n {
			got := make([]byte, len(block))
			if _, err := io.ReadFull(f, got); err != nil {
				return "", err
			}
			if !bytes.Equal(got, block) {
				return "", fmt.Errorf("block %d differs", i)
			}
		}
		return strconv.Itoa(n), nil
	},
	"files": func(s string) (string, error) { // create that many empty files in /tmp
		n, _ := strconv.Atoi(s)
		for i := range n {
			f, err := os.Create(fmt.Sprintf("/tmp/%d", i))
			if err != nil {
				return strconv.Itoa(i), err
			}
			_ = f.Close()
		}
		return s, nil
	},
	"output": func(s string) (string, error) { // one file of that many MiB
		n, _ := strconv.ParseInt(s, 10, 64)
		return "", protocol.WriteFile(os.Stdout, "big", n<<20, zeros{})
	},
	"garbage": func(string) (string, error) {
		_, err := os.Stdout.WriteString("hello, world\n")
		return "", err
	},
	"log": func(s string) (string, error) {
		n, _ := strconv.Atoi(s)
		for range n {
			if _, err := os.Stderr.Write(bytes.Repeat([]byte("log log\n"), 1<<17)); err != nil {
				return "", err
			}
		}
		return "", nil
	},
	"note": func(s string) (string, error) { return "", protocol.WriteNote(os.Stdout, s) },
	"exit": func(s string) (string, error) {
		n, _ := strconv.Atoi(s)
		os.Exit(n)
		return "", nil
	},
	"loop": func(string) (string, error) {
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
		fmt.Fprintln(os.Stderr, "looping")
		for i := 0; ; i++ {
			_ = i
		}
	},
	"burn": func(s string) (string, error) { // that many million steps
		n, err := strconv.Atoi(s)
		x := uint64(1)
		for range n * 1_000_000 {
			x = x*6364136223846793005 + 1442695040888963407
		}
		return strconv.FormatUint(x, 10), err
	},
	"orphan": func(string) (string, error) { // a child that outlives the answer
		if os.Getenv("PROBE_CHILD") != "" {
			select {}
		}
		c := exec.Command("/proc/self/exe")
		c.Env = []string{"PROBE_CHILD=1"}
		r, w, err := os.Pipe()
		if err != nil {
			return "", err
		}
		c.Stdin = r
		defer w.Close()
		return "", c.Start()
	},
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func read(path string) (string, error) {
	b, err := os.ReadFile(path)
	return string(b), err
}

func list(root string) (string, error) {
	var b strings.Builder
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			fmt.Fprintf(&b, "%s: %v\n", path, err)
			return nil
		}
		fmt.Fprintln(&b, path)
		if path == "/proc" || path == "/sys" || path == "/dev" {
			return filepath.SkipDir
		}
		return nil
	})
	return b.String(), err
}

func symlink(target string) (string, error) {
	if err := os.Symlink(target, "/tmp/link"); err != nil {
		return "", err
	}
	return read("/tmp/link")
}

// fork starts children that wait, until it cannot.
func fork(string) (string, error) {
	n := 0
	for ; n < 100_000; n++ {
		r, w, err := os.Pipe()
		if err != nil {
			return strconv.Itoa(n), err
		}
		defer w.Close()
		if _, err := syscall.ForkExec("/proc/self/exe", []string{"probe"}, &syscall.ProcAttr{
			Files: []uintptr{r.Fd()}, Env: []string{"PROBE_CHILD=1"},
		}); err != nil {
			return strconv.Itoa(n), err
		}
		_ = r.Close()
	}
	return strconv.Itoa(n), nil
}
