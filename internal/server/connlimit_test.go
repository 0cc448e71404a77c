package server

import (
	"context"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"podlink/internal/conf"
)

// connecting is a listener that accepts, and keeps what it has accepted.
type connecting struct {
	listener net.Listener
	accepted chan net.Conn
}

func listenLimited(t *testing.T, most, mostPerPeer int32) connecting {
	t.Helper()
	connections := NewConnections(&conf.Server{MaxConnections: most, MaxConnectionsPerPeer: mostPerPeer}, NewDoorMetrics())
	listener, err := connections.Listen(t.Context(), "grpc", "127.0.0.1:0")
	require.NoError(t, err)
	c := connecting{listener, make(chan net.Conn, 100)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			c.accepted <- conn
		}
	}()
	t.Cleanup(func() {
		require.NoError(t, listener.Close())
		<-ended
	})
	return c
}

// dial connects from an address of this machine.
func (c connecting) dial(t *testing.T, from string) (net.Conn, error) {
	t.Helper()
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0)), Timeout: 10 * time.Second}
	conn, err := dialer.DialContext(context.WithoutCancel(t.Context()), "tcp", c.listener.Addr().String())
	if err == nil {
		t.Cleanup(func() { _ = conn.Close() })
	}
	return conn, err
}

// served connects and returns both ends.
func (c connecting) served(t *testing.T, from string) (caller, server net.Conn) {
	t.Helper()
	caller, err := c.dial(t, from)
	require.NoError(t, err)
	select {
	case server = <-c.accepted:
	case <-time.After(10 * time.Second):
		require.FailNow(t, "the connection is not accepted")
	}
	t.Cleanup(func() { _ = server.Close() })
	return caller, server
}

// refused connects and waits until the listener closes the connection.
func (c connecting) refused(t *testing.T, from string) {
	t.Helper()
	caller, err := c.dial(t, from)
	if err != nil {
		return // It was closed that soon.
	}
	require.NoError(t, caller.SetReadDeadline(time.Now().Add(10*time.Second)))
	_, err = caller.Read(make([]byte, 1))
	require.Error(t, err)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the connection is not closed")
	require.Empty(t, c.accepted)
}

// TestConnectionsOfAPeer: a peer at its limit gets no more connections, keeps the ones that it has, and takes no place of another
// address.
func TestConnectionsOfAPeer(t *testing.T) {
	c := listenLimited(t, 100, 2)
	first, server := c.served(t, "127.0.0.1")
	c.served(t, "127.0.0.1")
	c.refused(t, "127.0.0.1")
	c.served(t, "127.0.0.2")
	_, err := first.Write([]byte("x"))
	require.NoError(t, err)
	_, err = server.Read(make([]byte, 1))
	require.NoError(t, err)
	require.NoError(t, server.Close())
	require.Error(t, server.Close(), "closed twice, counted once")
	c.served(t, "127.0.0.1")
	c.refused(t, "127.0.0.1")
}

// TestConnectionsOfAll: the listener's own limit.
func TestConnectionsOfAll(t *testing.T) {
	c := listenLimited(t, 3, 2)
	_, server := c.served(t, "127.0.0.1")
	c.served(t, "127.0.0.1")
	c.served(t, "127.0.0.2")
	c.refused(t, "127.0.0.2")
	c.refused(t, "127.0.0.3")
	require.NoError(t, server.Close())
	c.served(t, "127.0.0.3")
}

// TestPeersAreForgotten: what is known of a peer is kept while it has a connection, an open call, or has just given up calls; and
// it is bounded.
func TestPeersAreForgotten(t *testing.T) {
	c := listenLimited(t, 4, 4)
	known := c.listener.(*limitedListener)
	peers := func() int {
		known.mu.Lock()
		defer known.mu.Unlock()
		return len(known.peers)
	}
	_, server := c.served(t, "127.0.0.1")
	require.Equal(t, 1, peers())
	require.NoError(t, server.Close())
	require.Zero(t, peers())

	_, server = c.served(t, "127.0.0.1")
	from := server.RemoteAddr().(*peerAddr)
	from.begin()
	require.NoError(t, server.Close())
	require.Equal(t, 1, peers(), "its call is open")
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	from.end(canceled)
	_, server = c.served(t, "127.0.0.1")
	require.Same(t, from.peer, server.RemoteAddr().(*peerAddr).peer)
	require.NoError(t, server.Close())

	for i := range byte(20) {
		_, server := c.served(t, netip.AddrFrom4([4]byte{127, 0, 1, i}).String())
		server.RemoteAddr().(*peerAddr).peer.abandoned.AllowN(time.Now(), maxAbandoned)
		require.NoError(t, server.Close())
	}
	require.LessOrEqual(t, peers(), 2*4)
}

// TestAddressOfAPeer: what others see of a connection's address is what they see of TCP's.
func TestAddressOfAPeer(t *testing.T) {
	c := listenLimited(t, 1, 1)
	caller, server := c.served(t, "127.0.0.1")
	require.Equal(t, caller.LocalAddr().String(), server.RemoteAddr().String())
	require.Equal(t, "tcp", server.RemoteAddr().Network())
	require.Equal(t, caller.LocalAddr().String(), addrPort(server.RemoteAddr()).String())
	require.False(t, addrPort(&net.UnixAddr{}).IsValid())
	mapped := &net.TCPAddr{IP: net.ParseIP("::ffff:10.0.0.1"), Port: 1}
	require.Equal(t, "10.0.0.1:1", addrPort(mapped).String())
}
