//go:build faults

package faults

import (
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// relay forwards TCP connections of any protocol to a server, until it is cut.
type relay struct {
	listener net.Listener
	target   string
	running  sync.WaitGroup

	mu    sync.Mutex
	isCut bool
	conns map[net.Conn]struct{} // both ends of each connection
}

// newRelay starts a relay to target (host:port), which ends with the test.
func newRelay(t testing.TB, target string) *relay {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &relay{listener: listener, target: target, conns: make(map[net.Conn]struct{})}
	r.running.Go(r.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		r.mend()
		r.running.Wait()
	})
	return r
}

func (r *relay) addr() string { return r.listener.Addr().String() }

// cut partitions the network: connections stay open and new ones are taken, but nothing is forwarded.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.isCut = true
}

// mend ends cut. It closes all connections: what was sent during the cut is lost.
func (r *relay) mend() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.isCut = false
	for conn := range r.conns {
		_ = conn.Close()
	}
	clear(r.conns)
}

func (r *relay) accept() {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return // The test has ended.
		}
		server, err := net.Dial("tcp", r.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		r.mu.Lock()
		r.conns[client], r.conns[server] = struct{}{}, struct{}{}
		r.mu.Unlock()
		r.running.Go(func() { r.forward(client, server) })
		r.running.Go(func() { r.forward(server, client) })
	}
}

// forward copies from one end to the other, and drops what it reads during a cut.
func (r *relay) forward(from, to net.Conn) {
	defer r.drop(from, to)
	piece := make([]byte, 32<<10)
	for {
		n, err := from.Read(piece)
		if !r.write(to, piece[:n]) || err != nil {
			return
		}
	}
}

func (r *relay) write(to io.Writer, piece []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.isCut {
		return true
	}
	_, err := to.Write(piece)
	return err == nil
}

func (r *relay) drop(conns ...net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, conn := range conns {
		_ = conn.Close()
		delete(r.conns, conn)
	}
}
