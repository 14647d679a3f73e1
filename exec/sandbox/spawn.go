package sandbox

import (
	"os/exec"
	"runtime"
)

// spawner starts processes from one operating-system thread that lives as long
// as the server. A parent-death signal is sent when the *thread* that forked
// dies, so with Pdeathsig a sandbox lives exactly as long as the server, kill -9
// included, and no longer.
type spawner struct {
	requests chan spawnRequest
}

type spawnRequest struct {
	cmd   *exec.Cmd
	group *group
	done  chan error
}

func newSpawner() *spawner {
	s := &spawner{requests: make(chan spawnRequest)}
	go func() {
		// Never unlocked: the thread ends with this goroutine.
		runtime.LockOSThread()
		for r := range s.requests {
			r.done <- r.group.start(r.cmd)
		}
	}()
	return s
}

// start starts cmd inside of g.
func (s *spawner) start(cmd *exec.Cmd, g *group) error {
	done := make(chan error, 1)
	s.requests <- spawnRequest{cmd: cmd, group: g, done: done}
	return <-done
}

func (s *spawner) close() { close(s.requests) }
