package server

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"podlink/internal/auth"
	"podlink/internal/conf"
)

// Connections opens the listeners, and limits the connections of each: all of them together, and those of each peer's address, so
// that one peer can't take the others' places.
type Connections struct {
	most        int
	mostPerPeer int
	doors       *DoorMetrics
}

// NewConnections returns the Connections with the limits of the configuration.
func NewConnections(c *conf.Server, doors *DoorMetrics) *Connections {
	return &Connections{most: int(c.GetMaxConnections()), mostPerPeer: int(c.GetMaxConnectionsPerPeer()), doors: doors}
}

// Listen opens a TCP listener. The name is that in the metrics.
func (c *Connections) Listen(ctx context.Context, name, addr string) (net.Listener, error) {
	opened, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &limitedListener{
		Listener: opened, limits: *c, counter: c.doors.Connections(name), peers: make(map[netip.Addr]*peerState),
	}, nil
}

// limitedListener closes each connection above a limit at once. TLS lies above it: a connection that is refused costs no handshake.
type limitedListener struct {
	net.Listener

	limits  Connections
	counter ConnCounter

	mu    sync.Mutex
	open  int
	peers map[netip.Addr]*peerState // those with a connection, or with calls that they gave up a moment ago
}

// Accept implements net.Listener.
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		accepted, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		conn := &limitedConn{TCPConn: accepted.(*net.TCPConn), listener: l, closed: make(chan struct{})}
		if l.admit(conn) {
			return conn, nil
		}
		_ = conn.SetLinger(0) // A reset: nothing waits for a peer that may not answer.
		_ = conn.TCPConn.Close()
	}
}

// admit counts a connection unless that would exceed a limit.
func (l *limitedListener) admit(conn *limitedConn) bool {
	from := addrPort(conn.TCPConn.RemoteAddr())
	address := from.Addr()
	l.mu.Lock()
	defer l.mu.Unlock()
	peer, known := l.peers[address]
	switch {
	case l.open >= l.limits.most:
		l.counter.Refused(LimitOfAll)
		return false
	case known && peer.connections >= l.limits.mostPerPeer:
		l.counter.Refused(LimitOfPeer)
		return false
	}
	if !known {
		peer = newPeerState()
		l.peers[address] = peer
	}
	l.counter.Opened()
	l.open++
	peer.connections++
	conn.remote = &peerAddr{Addr: conn.TCPConn.RemoteAddr(), conn: conn, from: from, peer: peer}
	return true
}

// release counts a connection that has been closed.
func (l *limitedListener) release(conn *limitedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counter.Closed()
	l.open--
	conn.remote.peer.connections--
	if peer := conn.remote.peer; peer.connections == 0 && peer.forgiven() {
		delete(l.peers, conn.remote.from.Addr())
	}
	// The others stay, so that no peer reconnects to be forgiven. So many of them are the addresses of one attacker.
	if len(l.peers) > 2*l.limits.most {
		for address, peer := range l.peers {
			if peer.connections == 0 {
				delete(l.peers, address)
			}
		}
	}
}

// limitedConn is a connection that counts until it is closed. It embeds the TCP connection itself, because net/http looks for its
// optional methods.
type limitedConn struct {
	*net.TCPConn

	listener *limitedListener
	remote   *peerAddr
	closing  sync.Once
	closed   chan struct{}
}

// Read implements net.Conn.
func (c *limitedConn) Read(into []byte) (int, error) {
	return c.TCPConn.Read(into[:c.remote.peer.readSlowly(len(into), c.closed)])
}

// RemoteAddr implements net.Conn.
func (c *limitedConn) RemoteAddr() net.Addr { return c.remote }

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	c.closing.Do(func() {
		close(c.closed)
		c.listener.release(c)
	})
	return c.TCPConn.Close()
}

// peerAddr is the address of a connection's peer, which leads to what podlink knows about the peer without a look-up: gRPC gives
// the address of a connection to each of its calls, and the HTTP listener puts it into their contexts.
type peerAddr struct {
	net.Addr

	conn    *limitedConn
	from    netip.AddrPort
	peer    *peerState
	holder  auth.Holder
	buckets atomic.Pointer[callerBuckets] // of the last caller
}

type peerAddrKey struct{}

// withPeerAddr is http.Server.ConnContext.
func withPeerAddr(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, peerAddrKey{}, conn.RemoteAddr())
}

// addrPort returns an address of a TCP connection, and the zero AddrPort for others, which tests have.
func addrPort(addr net.Addr) netip.AddrPort {
	if peer, ok := addr.(*peerAddr); ok {
		return peer.from
	}
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	full := tcp.AddrPort()
	return netip.AddrPortFrom(full.Addr().Unmap(), full.Port())
}
