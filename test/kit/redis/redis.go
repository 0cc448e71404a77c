// Package redis starts real redis-server processes for tests: a server, a replica, a set under Sentinel, a cluster,
// and a proxy that injects the faults of a network.
//
// Two things to know. Every process, connection and goroutine ends with the test that started it. And without
// redis-server on PATH the tests are skipped, except where the environment says CI=true: there they fail, so that no
// pipeline is green for want of a server.
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

	"podlink/test/kit/proc"
)

const (
	// startLimit bounds how long a server may take until it answers, and then again until it has loaded its data.
	startLimit = 10 * time.Second
	// waitLimit bounds every wait for servers to agree with each other.
	waitLimit = time.Minute
	// poll is how often such a wait looks.
	poll = 20 * time.Millisecond

	loopback = "127.0.0.1"
)

// Server is a redis-server process on a loopback port.
type Server struct {
	tb       testing.TB
	args     []string
	password string // that Client logs in with; empty for none
	port     int
	admin    *redis.Client // what this package asks the server with

	mu      sync.Mutex // One who starts or ends the process at a time.
	process *proc.Process
}

// Start starts a server on a free port, in a directory of its own and without persistence, and waits until it answers.
// Args are redis-server's, and override the defaults: "--appendonly", "yes".
func Start(tb testing.TB, args ...string) *Server {
	tb.Helper()
	defaults := []string{
		"--save", "", "--appendonly", "no",
		"--repl-diskless-sync-delay", "0", // It is for more replicas to come; the first one would wait 5 s for them.
		"--repl-ping-replica-period", "1", // Else an idle primary tells for 10 s nothing that a replica could acknowledge.
	}
	return launch(tb, tb.TempDir(), append(defaults, args...))
}

// StartReplica starts a server as Start does, as a replica of the primary (host:port), and waits until it is in sync.
func StartReplica(tb testing.TB, primary string, args ...string) *Server {
	tb.Helper()
	replica := Start(tb, append(replicaOf(tb, primary), args...)...)
	replica.WaitInSync()
	return replica
}

// replicaOf are the arguments that make a server a replica.
func replicaOf(tb testing.TB, primary string) []string {
	tb.Helper()
	host, port, err := net.SplitHostPort(primary)
	if err != nil {
		tb.Fatalf("the primary's address: %v", err)
	}
	return []string{"--replicaof", host, port}
}

// launch runs redis-server with those arguments, and waits until it answers.
func launch(tb testing.TB, dir string, args []string) *Server {
	tb.Helper()
	proc.Need(tb, "redis-server", "redis-server")
	s := &Server{tb: tb, args: args, password: argument(args, "--requirepass"), port: proc.FreePorts(tb, 1)[0]}
	s.process = proc.Start(tb, proc.Command{
		Program: "redis-server",
		// A configuration file has to come first; the other arguments have no order.
		Args: slices.Concat(args, []string{"--port", strconv.Itoa(s.port), "--bind", loopback, "--dir", dir}),
	})
	if err := s.answers(loaded); err != nil {
		tb.Fatalf("redis-server does not start: %v", err)
	}
	s.admin = s.Client(tb)
	return s
}

// loaded tells whether a server that replies so to PING is up and has its data. A refusal is a reply as well: the
// server wants another password, or is a replica without its primary.
func loaded(reply error) bool { return answering(reply) && !redis.HasErrorPrefix(reply, "LOADING") }

// answering tells whether a server that replies so to PING is up, be it that it still loads its data.
func answering(reply error) bool {
	var refusal redis.Error
	return reply == nil || errors.As(reply, &refusal)
}

// answers waits until the server is up. One that answers, and goes on loading, gets as long as waits get.
func (s *Server) answers(up func(reply error) bool) error {
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
			return errors.New("it ended: " + s.process.Log.String())
		case <-time.After(10 * time.Millisecond):
		}
		limit := startLimit
		if answering(err) {
			limit = waitLimit
		}
		if time.Since(begin) > limit {
			return err
		}
	}
}

// Addr is the server's host:port.
func (s *Server) Addr() string { return net.JoinHostPort(loopback, strconv.Itoa(s.port)) }

// Pause stops the process as a stalled machine would: connections stay open and nothing answers.
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

// Kill ends the process as kill -9 does, and returns when it is gone. A server that is down stays down.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.process.Kill()
}

// Restart kills the server and starts it again on the same port and in the same directory. It returns when the server
// has loaded its data.
func (s *Server) Restart() {
	s.tb.Helper()
	s.restart(loaded)
}

// RestartLoading is Restart, and returns as soon as the server answers, which may be LOADING.
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
		err = s.answers(up)
	}
	if err != nil {
		s.tb.Fatalf("redis-server does not start again: %v", err)
	}
}

// WaitInSync waits until the server, a replica, has its primary's data, and the primary counts it in WAIT.
func (s *Server) WaitInSync() {
	s.tb.Helper()
	wait(s.tb, "the replica is in sync", s.inSync)
}

func (s *Server) inSync() bool {
	info, err := s.admin.Info(context.Background(), "replication").Result()
	if err != nil || InfoField(info, "master_link_status") != "up" {
		return false
	}
	// The primary feeds a new replica, and counts it, only after its first acknowledgement, up to a second later.
	options := s.options()
	options.Addr = net.JoinHostPort(InfoField(info, "master_host"), InfoField(info, "master_port"))
	options.Password = argument(s.args, "--masterauth")
	primary := redis.NewClient(options)
	defer primary.Close()
	info, err = primary.Info(context.Background(), "replication").Result()
	online := strings.Count(info, ",state=online,")
	return err == nil && online > 0 && strconv.Itoa(online) == InfoField(info, "connected_slaves") &&
		!strings.Contains(info, ",offset=0,")
}

// InfoField returns a field of the reply to INFO or CLUSTER INFO, "" without it.
func InfoField(info, name string) string {
	_, rest, _ := strings.Cut("\n"+info, "\n"+name+":")
	value, _, _ := strings.Cut(rest, "\r\n")
	return value
}

// argument is the value of one of redis-server's arguments, empty without it.
func argument(args []string, name string) string {
	if i := slices.Index(args, name); i >= 0 {
		return args[i+1]
	}
	return ""
}

// wait returns when the condition holds, or ends the test.
func wait(tb testing.TB, condition string, holds func() bool) {
	tb.Helper()
	for begin := time.Now(); !holds(); time.Sleep(poll) {
		if time.Since(begin) > waitLimit {
			tb.Fatalf("it did not come within %s that %s", waitLimit, condition)
		}
	}
}

// Client returns a plain client, which is closed with the test. It logs in with the password that the server was
// started with, if any.
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
		Password:                 s.password,
		MaxRetries:               -1,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}
