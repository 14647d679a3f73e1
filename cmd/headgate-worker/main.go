// Command headgate-worker is the DuckDB side of Headgate: it reads one order on
// standard input, to end of file, and answers in frames on standard output (see
// exec/protocol). It knows nothing of git, of lakes or of the gate, and is the
// same program in a sandbox and as a user's own process.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"github.com/headgate/headgate/cmd/headgate-worker/internal/engine"
	"github.com/headgate/headgate/exec/protocol"
)

// maxOrder bounds the order: it names each part of each input table.
const maxOrder = 256 << 20

// Exit codes. A failure of the user's SQL or data is an answer, hence 0.
const (
	exitAnswered = 0
	exitBroken   = 1 // no answer could be given
	exitUsage    = 2
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 1 && args[0] == "--version" {
		return version(stdout, stderr)
	}
	if len(args) != 0 {
		fmt.Fprintln(stderr, "usage: headgate-worker < ORDER.json > FRAMES\n       headgate-worker --version")
		return exitUsage
	}
	ctx := context.Background()
	eng, err := engine.Open(ctx)
	if err != nil {
		fmt.Fprintln(stderr, "headgate-worker:", err)
		return exitBroken
	}
	order, err := readOrder(stdin)
	if err != nil {
		fmt.Fprintln(stderr, "headgate-worker:", err)
		return exitBroken
	}
	if err := eng.Run(ctx, order, stdout, stderr); err != nil {
		fmt.Fprintln(stderr, "headgate-worker:", err)
		return exitBroken
	}
	return exitAnswered
}

func readOrder(r io.Reader) (*protocol.Order, error) {
	limited := &io.LimitedReader{R: r, N: maxOrder + 1}
	dec := json.NewDecoder(limited)
	dec.DisallowUnknownFields()
	dec.UseNumber() // a parameter's integer must not pass through a float
	var order protocol.Order
	if err := dec.Decode(&order); err != nil {
		if limited.N == 0 {
			err = fmt.Errorf("over %d bytes", maxOrder)
		}
		return nil, fmt.Errorf("read order: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("read order: bytes after its end")
	}
	return &order, nil
}

func version(stdout, stderr io.Writer) int {
	duck, err := engine.Version(context.Background())
	if err != nil {
		fmt.Fprintln(stderr, "headgate-worker:", err)
		return exitBroken
	}
	self := "(devel)"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		self = info.Main.Version
	}
	fmt.Fprintf(stdout, "headgate-worker %s, DuckDB %s\n", self, duck)
	return exitAnswered
}
