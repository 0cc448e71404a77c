// Package etcd starts real etcd processes for tests, on free ports of the loopback and with a folder of their own. Every
// process ends with the test that started it. Without etcd on the PATH the tests are skipped, except where the environment
// says CI=true: there they fail.
package etcd

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"podlink/test/kit/logwatch"
)

// startLimit bounds how long etcd may take until it answers.
const startLimit = 20 * time.Second

// Server is an etcd process.
type Server struct {
	Addr string // host:port for clients

	tb     testing.TB
	dir    string
	peer   string
	log    *logwatch.Log
	cmd    *exec.Cmd // nil while it is down
	exited chan struct{}
}

// Need skips a test where there is no etcd, and fails it there with CI=true.
func Need(tb testing.TB) {
	tb.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		if os.Getenv("CI") == "true" {
			require.NoError(tb, err, "test/install.sh etcd-server installs it")
		}
		tb.Skip("needs etcd on the PATH: test/install.sh etcd-server")
	}
}

// Start starts an etcd and waits until it answers.
func Start(tb testing.TB) *Server {
	tb.Helper()
	Need(tb)
	addrs := freeAddrs(tb, 2)
	s := &Server{Addr: addrs[0], peer: addrs[1], tb: tb, dir: tb.TempDir(), log: new(logwatch.Log)}
	tb.Cleanup(func() {
		s.Kill()
		if tb.Failed() {
			tb.Logf("etcd's log:\n%s", s.log)
		}
	})
	s.start()
	return s
}

func freeAddrs(tb testing.TB, n int) []string {
	tb.Helper()
	var addrs []string
	for range n {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(tb, err)
		defer listener.Close() // Only now, or the next one might be the same.
		addrs = append(addrs, listener.Addr().String())
	}
	return addrs
}

func (s *Server) start() {
	s.tb.Helper()
	client, peer := "http://"+s.Addr, "http://"+s.peer
	s.cmd = exec.Command("etcd", "--name", "test", "--data-dir", filepath.Join(s.dir, "data"),
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "test="+peer,
		"--logger", "zap", "--log-level", "warn")
	s.cmd.Stderr = s.log
	require.NoError(s.tb, s.cmd.Start())
	exited, cmd := make(chan struct{}), s.cmd
	s.exited = exited
	go func() {
		_ = cmd.Wait() // Whether it serves is told by its answers.
		close(exited)
	}()
	require.Eventually(s.tb, s.healthy, startLimit, 20*time.Millisecond, "etcd does not answer:\n%s", s.log)
}

func (s *Server) healthy() bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.Addr+"/health", http.NoBody)
	if err != nil {
		return false
	}
	request.Close = true
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// Kill ends the process as kill -9 does, and returns when it is gone.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // It may have ended by itself.
	<-s.exited
	s.cmd = nil
}

// Restart kills the process and starts it again on the same port with the data that it has kept.
func (s *Server) Restart() {
	s.tb.Helper()
	s.Kill()
	s.start()
}

// RestartEmpty does the same without its data.
func (s *Server) RestartEmpty() {
	s.tb.Helper()
	s.Kill()
	require.NoError(s.tb, os.RemoveAll(filepath.Join(s.dir, "data")))
	s.start()
}

// RequirePassword makes the etcd let in nobody but the user, who may do everything, and returns a client of his.
func (s *Server) RequirePassword(user, password string) *clientv3.Client {
	s.tb.Helper()
	config := clientv3.Config{Endpoints: []string{s.Addr}, Logger: zap.NewNop()}
	anyone, err := clientv3.New(config)
	require.NoError(s.tb, err)
	defer anyone.Close()
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	_, err = anyone.UserAdd(ctx, user, password)
	require.NoError(s.tb, err)
	_, err = anyone.UserGrantRole(ctx, user, "root")
	require.NoError(s.tb, err)
	_, err = anyone.AuthEnable(ctx)
	require.NoError(s.tb, err)
	config.Username, config.Password = user, password
	client, err := clientv3.New(config)
	require.NoError(s.tb, err)
	s.tb.Cleanup(func() { _ = client.Close() })
	return client
}
