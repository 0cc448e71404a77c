// Package redis starts real redis-server processes for tests: single servers, replicas, Sentinel deployments and clusters,
// and a proxy that injects network faults.
//
// Two things to know. Every process, connection and goroutine ends with the test that started it. And without redis-server
// on PATH tests are skipped; with CI=true they fail instead, so that a pipeline without the server is not green.
package redis

import (
	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"podlink/internal/rdb/info"
	"podlink/test/kit/proc"
)

const (
	// startTimeout bounds how long a server may take to answer.
	startTimeout = 10 * time.Second
	// waitTimeout bounds every wait for a condition, such as a replica in sync or a server that has loaded its data.
	waitTimeout = time.Minute
	// poll is how often such a wait checks its condition.
	poll = 20 * time.Millisecond

	loopback = "127.0.0.1"
)

// Server is a redis-server process on a loopback port.
type Server struct {
	tb       testing.TB
	args     []string
	password string // for Client; empty for none
	port     int
	admin    *redis.Client // for this package

	mu      sync.Mutex // held while the process is started or stopped
	process *proc.Process
}

// Start starts a server on a free port, in a temporary directory and without persistence, and waits until it answers. Args
// are redis-server's, and override the defaults: "--appendonly", "yes".
func Start(tb testing.TB, args ...string) *Server {
	tb.Helper()
	defaults := []string{
		"--save", "", "--appendonly", "no",
		"--repl-diskless-sync-delay", "0", // Else the first replica waits 5 s for others to join.
		"--repl-ping-replica-period", "1", // Else an idle primary sends nothing for 10 s that a replica could acknowledge.
	}
	return launch(tb, tb.TempDir(), append(defaults, args...))
}

// StartReplica starts a replica of the primary (host:port), like Start, and waits until it is in sync.
func StartReplica(tb testing.TB, primary string, args ...string) *Server {
	tb.Helper()
	replica := Start(tb, append(replicaOf(tb, primary), args...)...)
	replica.WaitInSync()
	return replica
}

// replicaOf returns the arguments that make a server a replica.
func replicaOf(tb testing.TB, primary string) []string {
	tb.Helper()
	host, port, err := net.SplitHostPort(primary)
	if err != nil {
		tb.Fatalf("the primary's address: %v", err)
	}
	return []string{"--replicaof", host, port}
}

// launch runs redis-server with the arguments, and waits until it answers.
func launch(tb testing.TB, dir string, args []string) *Server {
	tb.Helper()
	proc.Need(tb, "redis-server", "redis-server")
	s := &Server{tb: tb, args: args, password: argument(args, "--requirepass"), port: proc.FreePorts(tb, 1)[0]}
	s.process = proc.Start(tb, proc.Command{
		Program: "redis-server",
		// A configuration file must come first; the order of the other arguments does not matter.
		Args: slices.Concat(args, []string{"--port", strconv.Itoa(s.port), "--bind", loopback, "--dir", dir}),
	})
	if err := s.await(loaded); err != nil {
		tb.Fatalf("redis-server did not start: %v", err)
	}
	s.admin = s.Client(tb)
	return s
}

// loaded reports whether the reply to a PING is from a server that has loaded its data. Errors such as NOAUTH or
// MASTERDOWN are from such a server, too.
func loaded(reply error) bool { return answering(reply) && !redis.HasErrorPrefix(reply, "LOADING") }

// answering reports whether there was a reply to a PING, even LOADING.
func answering(reply error) bool {
	var errorReply redis.Error
	return reply == nil || errors.As(reply, &errorReply)
}

// await waits until the server is up. A server that is loading its data has waitTimeout.
func (s *Server) await(up func(reply error) bool) error {
	client := redis.NewClient(s.options())
	defer client.Close()
	begin := time.Now()
	for {
		err := client.Ping(context.Background()).Err()
		if up(err) {
			return nil
		}
		select {
		case <-s.process.Exited():
			return errors.New("it exited: " + s.process.Log.String())
		case <-time.After(10 * time.Millisecond):
		}
		timeout := startTimeout
		if answering(err) {
			timeout = waitTimeout
		}
		if time.Since(begin) > timeout {
			return err
		}
	}
}

// Addr returns the server's host:port.
func (s *Server) Addr() string { return net.JoinHostPort(loopback, strconv.Itoa(s.port)) }

// Pause suspends the process, like a stalled machine: connections stay open and nothing answers.
func (s *Server) Pause() { s.signal((*proc.Process).Freeze) }

// Resume ends Pause.
func (s *Server) Resume() { s.signal((*proc.Process).Resume) }

func (s *Server) signal(send func(*proc.Process) error) {
	s.tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := send(s.process); err != nil {
		s.tb.Error(err)
	}
}

// Kill sends SIGKILL and returns when the process has exited. It does nothing to a server that is down.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.process.Kill()
}

// Restart kills the server and starts it again on the same port and in the same directory. It returns when the data is
// loaded.
func (s *Server) Restart() {
	s.tb.Helper()
	s.restart(loaded)
}

// RestartLoading is Restart, except that it returns as soon as the server answers, even with LOADING.
func (s *Server) RestartLoading() {
	s.tb.Helper()
	s.restart(answering)
}

func (s *Server) restart(up func(reply error) bool) {
	s.tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.process.Restart()
	if err == nil {
		err = s.await(up)
	}
	if err != nil {
		s.tb.Fatalf("redis-server did not restart: %v", err)
	}
}

// WaitInSync waits until the server, a replica, has its primary's data and counts in the primary's WAIT.
func (s *Server) WaitInSync() {
	s.tb.Helper()
	wait(s.tb, "the replica is in sync", s.inSync)
}

func (s *Server) inSync() bool {
	text, err := s.admin.Info(context.Background(), "replication").Result()
	if err != nil || InfoField(text, "master_link_status") != "up" {
		return false
	}
	// WAIT counts a new replica only after its first acknowledgement, up to a second later.
	options := s.options()
	options.Addr = net.JoinHostPort(InfoField(text, "master_host"), InfoField(text, "master_port"))
	options.Password = argument(s.args, "--masterauth")
	primary := redis.NewClient(options)
	defer primary.Close()
	text, err = primary.Info(context.Background(), "replication").Result()
	online := strings.Count(text, ",state=online,")
	return err == nil && online > 0 && strconv.Itoa(online) == InfoField(text, "connected_slaves") &&
		!strings.Contains(text, ",offset=0,")
}

// InfoField returns a field of the reply to INFO or CLUSTER INFO, "" without it.
func InfoField(text, name string) string { return info.Field(text, name) }

// argument returns the value of an argument of redis-server, "" without it.
func argument(args []string, name string) string {
	if i := slices.Index(args, name); i >= 0 {
		return args[i+1]
	}
	return ""
}

// wait returns when the condition holds, and fails the test after waitTimeout.
func wait(tb testing.TB, condition string, holds func() bool) {
	tb.Helper()
	for begin := time.Now(); !holds(); time.Sleep(poll) {
		if time.Since(begin) > waitTimeout {
			tb.Fatalf("not within %s: %s", waitTimeout, condition)
		}
	}
}

// Client returns a client without retries, which is closed with the test. It uses the password that the server was started
// with, if any.
func (s *Server) Client(tb testing.TB) *redis.Client {
	tb.Helper()
	client := redis.NewClient(s.options())
	tb.Cleanup(func() { _ = client.Close() })
	return client
}

// options returns options of a client that sends each command once, and nothing else.
func (s *Server) options() *redis.Options {
	return &redis.Options{
		Addr:                     s.Addr(),
		Password:                 s.password,
		MaxRetries:               -1,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}
