// Package redistest starts real redis-server processes for tests: one server, a cluster, and a proxy that loses
// replies.
//
// Two things to know. Every process, connection and goroutine ends with the test that started it. And without
// redis-server on PATH the tests are skipped, except where the environment says CI=true: there they fail, so that no
// pipeline is green for want of a server.
package redistest

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	// startLimit bounds how long a server may take until it answers.
	startLimit = 10 * time.Second
	// startAttempts is for the port that somebody else took between the look for a free one and the start.
	startAttempts = 3

	loopback = "127.0.0.1"

	missing = "install redis-server (Debian: apt-get install redis-server), or run make test, which does"
)

// Server is a redis-server process on a loopback port.
type Server struct {
	tb   testing.TB
	path string
	dir  string
	args []string
	port int

	mu      sync.Mutex
	process *process // nil while the server is down
}

// process is one run of the server.
type process struct {
	cmd    *exec.Cmd
	output bytes.Buffer
	exited chan struct{}
}

// Start starts a server on a free port, in a directory of its own and without persistence, and waits until it answers.
// Args are redis-server's, and override the defaults: "--appendonly", "yes".
func Start(tb testing.TB, args ...string) *Server {
	tb.Helper()
	s := &Server{tb: tb, path: find(tb), dir: tb.TempDir(), args: args}
	tb.Cleanup(s.Kill) // Before the directory is removed: cleanups run last to first.
	for attempt := 1; ; attempt++ {
		s.port = freePort(tb)
		err := s.start()
		switch {
		case err == nil:
			return s
		case attempt == startAttempts:
			tb.Fatalf("redis-server does not start: %v", err)
		}
	}
}

// find returns the path of redis-server, or ends the test.
func find(tb testing.TB) string {
	tb.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		if os.Getenv("CI") == "true" {
			tb.Fatal("no redis-server on PATH: " + missing)
		}
		tb.Skip(missing)
	}
	return path
}

// freePort returns a port that nobody listens on.
func freePort(tb testing.TB) int {
	tb.Helper()
	listener, err := net.Listen("tcp", loopback+":0")
	if err != nil {
		tb.Fatalf("no free port: %v", err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

// start runs the process and waits until it answers.
func (s *Server) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	args := append([]string{
		"--port", strconv.Itoa(s.port), "--bind", loopback, "--dir", s.dir, "--save", "", "--appendonly", "no",
	}, s.args...)
	p := &process{cmd: exec.Command(s.path, args...), exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	if err := p.cmd.Start(); err != nil {
		return err
	}
	go func() {
		_ = p.cmd.Wait() // Its status says nothing: Kill is how a server ends here.
		close(p.exited)
	}()
	s.process = p
	if err := s.answers(p); err != nil {
		s.kill()
		return err
	}
	return nil
}

// answers waits until the server replies to PING, be it that it wants a password first.
func (s *Server) answers(p *process) error {
	client := redis.NewClient(s.options())
	defer client.Close()
	deadline := time.Now().Add(startLimit)
	for {
		err := client.Ping(context.Background()).Err()
		if err == nil || redis.HasErrorPrefix(err, "NOAUTH") || redis.HasErrorPrefix(err, "WRONGPASS") {
			return nil
		}
		select {
		case <-p.exited:
			return exitError(p.output.String())
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return err
		}
	}
}

// exitError is the output of a server that ended at once.
type exitError string

// Error implements error.
func (e exitError) Error() string { return "it ended: " + string(e) }

// Addr is the server's host:port.
func (s *Server) Addr() string { return net.JoinHostPort(loopback, strconv.Itoa(s.port)) }

// Pause stops the process as a stalled machine would: connections stay open and nothing answers.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Resume ends Pause.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(signal syscall.Signal) {
	s.tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		s.tb.Errorf("no %s: redis-server is down", signal)
		return
	}
	if err := s.process.cmd.Process.Signal(signal); err != nil {
		s.tb.Errorf("%s: %v", signal, err)
	}
}

// Kill ends the process as kill -9 does, and returns when it is gone. A server that is down stays down.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kill()
}

func (s *Server) kill() {
	if s.process == nil {
		return
	}
	_ = s.process.cmd.Process.Signal(syscall.SIGCONT) // It may have ended by itself.
	_ = s.process.cmd.Process.Signal(syscall.SIGKILL)
	<-s.process.exited
	s.process = nil
}

// Restart kills the server and starts it again on the same port and in the same directory.
func (s *Server) Restart() {
	s.tb.Helper()
	s.Kill()
	if err := s.start(); err != nil {
		s.tb.Fatalf("redis-server does not start again: %v", err)
	}
}

// Client returns a plain client, which is closed with the test.
func (s *Server) Client(tb testing.TB) *redis.Client {
	tb.Helper()
	client := redis.NewClient(s.options())
	tb.Cleanup(func() { _ = client.Close() })
	return client
}

// options are those of a client that does what it is told and nothing else.
func (s *Server) options() *redis.Options {
	return &redis.Options{
		Addr:                     s.Addr(),
		MaxRetries:               -1,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}
