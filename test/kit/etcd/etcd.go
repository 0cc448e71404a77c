// Package etcd starts real etcd processes for tests, on free ports and with temporary data directories. Every process ends
// with the test that started it. Without etcd on PATH tests are skipped; with CI=true they fail instead.
package etcd

import (
	"context"
	"crypto/tls"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"podlink/test/kit/proc"
)

// startTimeout bounds how long etcd may take to answer.
const startTimeout = 20 * time.Second

// Server is an etcd process.
type Server struct {
	Addr string // host:port for clients

	tb      testing.TB
	http    *http.Client
	scheme  string
	data    string // data directory
	process *proc.Process
}

// Start starts an etcd and waits until it answers.
func Start(tb testing.TB) *Server {
	tb.Helper()
	return launch(tb, "http", new(http.Transport))
}

// StartTLS starts an etcd with TLS that asks for a certificate: its files are the CA, which clients need too, its certificate and the
// key. It reads the last two again for each connection.
func StartTLS(tb testing.TB, client *tls.Config, caFile, certFile, keyFile string) *Server {
	tb.Helper()
	return launch(tb, "https", &http.Transport{TLSClientConfig: client},
		"--client-cert-auth", "--trusted-ca-file", caFile, "--cert-file", certFile, "--key-file", keyFile)
}

func launch(tb testing.TB, scheme string, transport *http.Transport, args ...string) *Server {
	tb.Helper()
	proc.Need(tb, "etcd", "etcd-server")
	ports := proc.FreePorts(tb, 2)
	s := &Server{
		Addr: proc.Addr(ports[0]), tb: tb, http: &http.Client{Transport: transport}, scheme: scheme, data: filepath.Join(tb.TempDir(), "data"),
	}
	client, peer := scheme+"://"+s.Addr, "http://"+proc.Addr(ports[1])
	s.process = proc.Start(tb, proc.Command{Program: "etcd", Args: append([]string{
		"--name", "test", "--data-dir", s.data,
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "test=" + peer,
		"--logger", "zap", "--log-level", "warn",
	}, args...)})
	s.awaitHealthy()
	return s
}

func (s *Server) awaitHealthy() {
	s.tb.Helper()
	require.Eventually(s.tb, s.healthy, startTimeout, 20*time.Millisecond, "etcd does not answer:\n%s", s.process.Log)
}

func (s *Server) healthy() bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.scheme+"://"+s.Addr+"/health", http.NoBody)
	if err != nil {
		return false
	}
	request.Close = true
	response, err := s.http.Do(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// Kill sends SIGKILL and returns when the process has exited.
func (s *Server) Kill() { s.process.Kill() }

// Restart kills the process and starts it again on the same port with the same data.
func (s *Server) Restart() {
	s.tb.Helper()
	require.NoError(s.tb, s.process.Restart())
	s.awaitHealthy()
}

// RestartEmpty is Restart without the data.
func (s *Server) RestartEmpty() {
	s.tb.Helper()
	s.Kill()
	require.NoError(s.tb, os.RemoveAll(s.data))
	s.Restart()
}

// RequirePassword enables authentication, with one user who has all rights, and returns a client of that user.
func (s *Server) RequirePassword(user, password string) *clientv3.Client {
	s.tb.Helper()
	config := clientv3.Config{Endpoints: []string{s.Addr}, Logger: zap.NewNop()}
	anonymous, err := clientv3.New(config)
	require.NoError(s.tb, err)
	defer anonymous.Close()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	_, err = anonymous.UserAdd(ctx, user, password)
	require.NoError(s.tb, err)
	_, err = anonymous.UserGrantRole(ctx, user, "root")
	require.NoError(s.tb, err)
	_, err = anonymous.AuthEnable(ctx)
	require.NoError(s.tb, err)
	config.Username, config.Password = user, password
	client, err := clientv3.New(config)
	require.NoError(s.tb, err)
	s.tb.Cleanup(func() { _ = client.Close() })
	return client
}
