package rdb

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"podlink/internal/rdb/info"
)

const (
	// testAfter is the idle time after which a connection is tested before its next use. A firewall or a load balancer may
	// have forgotten it without a word, and a mutation sent on it would be of unknown outcome. It is more than probeInterval:
	// the connection of the checks is always fit for a lone caller.
	testAfter = 2 * time.Second
	// keepAliveTime and keepAliveCount make the system close a dead connection within a minute.
	keepAliveTime  = 15 * time.Second
	keepAliveCount = 3
)

var (
	errRetired = errors.New("the connection is older than the last sign of a replica")
	errLost    = errors.New("the connection was lost while it was idle")
)

// conns decides which of a client's open connections may be used. The driver asks at every use of a pooled connection, by
// the same system call that detects a closed one: conn.SyscallConn is the hook. (Not on Windows, where the driver never
// asks.)
type conns struct {
	testTimeout time.Duration
	grace       time.Duration // more than any command takes

	// generation is the number of signs of a replica. A connection of an earlier generation may lead to a server that was
	// demoted meanwhile, and is not used again.
	generation atomic.Int64
	// lostBefore is the last use of a connection that was lost while idle, in ns: those unused for as long are lost too.
	lostBefore atomic.Int64

	connected func() // called after a new connection was established; may be nil

	mu   sync.Mutex
	open map[*conn]struct{} // to servers of data
}

func newConns(o Options) *conns {
	return &conns{
		testTimeout: o.ReadTimeout / 2, grace: o.ReadTimeout + o.WriteTimeout, open: make(map[*conn]struct{}),
	}
}

// dialer returns the driver's function that dials a server or a sentinel.
func (s *conns) dialer(o Options) func(ctx context.Context, network, addr string) (net.Conn, error) {
	plain := &net.Dialer{
		Timeout: o.DialTimeout,
		KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: keepAliveTime, Interval: keepAliveTime, Count: keepAliveCount,
		},
	}
	dial := plain.DialContext
	if o.TLS != nil {
		dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			return (&tls.Dialer{NetDialer: plain, Config: o.TLS()}).DialContext(ctx, network, addr)
		}
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		generation := s.generation.Load()
		dialled, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: dialled, conns: s, generation: generation}
		c.used.Store(time.Now().UnixNano())
		if tcp, ok := dialled.(*net.TCPConn); ok {
			c.raw, _ = tcp.SyscallConn()
		}
		if o.Mode != Sentinel || ctx.Value(dialsServer{}) != nil {
			s.mu.Lock()
			s.open[c] = struct{}{}
			s.mu.Unlock()
		}
		return c, nil
	}
}

// observe looks for a sign of a replica in the error of a command that was sent while the generation was the given one.
func (s *conns) observe(err error, generation int64) {
	if err != nil && !errors.Is(err, redis.Nil) && signOfReplica(err) {
		s.retire(generation)
	}
}

// signOfReplica reports whether the error shows that the server is a replica.
func signOfReplica(err error) bool {
	return redis.IsReadOnlyError(err) || redis.HasErrorPrefix(err, "MASTERDOWN") || errors.Is(err, errReplica)
}

// retire makes all open connections unusable, and closes them once their commands have ended: the server that they lead
// to may be a replica. It does nothing if that happened already since the generation was the given one.
func (s *conns) retire(generation int64) {
	if s.generation.CompareAndSwap(generation, generation+1) {
		time.AfterFunc(s.grace, s.closeUnusable)
	}
}

// closeUnusable closes the connections that will not be used again.
func (s *conns) closeUnusable() {
	s.mu.Lock()
	var unusable []*conn
	for c := range s.open {
		if c.usable() != nil {
			unusable = append(unusable, c)
		}
	}
	s.mu.Unlock()
	for _, c := range unusable {
		_ = c.Close()
	}
}

// conn is an open connection of a client.
type conn struct {
	net.Conn
	conns      *conns
	raw        syscall.RawConn // nil with TLS
	generation int64
	used       atomic.Int64 // when a command last took it from the pool, in ns
}

// Close closes the connection.
func (c *conn) Close() error {
	c.conns.mu.Lock()
	delete(c.conns.open, c)
	c.conns.mu.Unlock()
	return c.Conn.Close()
}

// SyscallConn returns what the driver's check of an idle connection calls.
func (c *conn) SyscallConn() (syscall.RawConn, error) { return check{c}, nil }

// usable returns why the connection must not be used again, nil if it may.
func (c *conn) usable() error {
	switch {
	case c.generation != c.conns.generation.Load():
		return errRetired
	case c.used.Load() <= c.conns.lostBefore.Load():
		return errLost
	default:
		return nil
	}
}

// check is the check of a pooled connection before its use. The driver calls Read only, with a function that looks for
// data or the end of the stream, and drops the connection after an error.
type check struct{ *conn }

// Read returns an error if the connection must not be used.
func (c check) Read(look func(fd uintptr) bool) error {
	if err := c.usable(); err != nil {
		return err
	}
	used, now := c.used.Load(), time.Now()
	if now.UnixNano()-used > int64(testAfter) {
		if err := c.ping(now.Add(c.conns.testTimeout)); err != nil {
			c.conns.lostBefore.Store(max(used, c.conns.lostBefore.Load()))
			time.AfterFunc(c.conns.grace, c.conns.closeUnusable)
			return fmt.Errorf("%w: %w", errLost, err)
		}
	}
	c.used.Store(now.UnixNano())
	if c.raw == nil { // TLS: bytes on the wire may be the protocol's own.
		return nil
	}
	return c.raw.Read(look)
}

// Write implements syscall.RawConn.
func (c check) Write(func(fd uintptr) bool) error { return errors.ErrUnsupported }

// Control implements syscall.RawConn.
func (c check) Control(func(fd uintptr)) error { return errors.ErrUnsupported }

// ping sends a PING past the driver and waits for any reply: an error is one too.
func (c *conn) ping(deadline time.Time) error {
	if err := c.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := c.Write([]byte("*1\r\n$4\r\nPING\r\n")); err != nil {
		return err
	}
	var reply [256]byte
	for n := 0; n < len(reply); {
		read, err := c.Read(reply[n:])
		if err != nil {
			return err
		}
		if n += read; bytes.HasSuffix(reply[:n], []byte("\r\n")) && (reply[0] == '+' || reply[0] == '-') {
			return c.SetDeadline(time.Time{})
		}
	}
	return errors.New("the reply to PING is malformed")
}

// verify is called for each new connection. It refuses a replica: the name of a standalone Redis may still lead to one
// after a failover, and sentinels may be late. A server that refuses to answer INFO is accepted.
func (s *conns) verify(ctx context.Context, server *redis.Conn) error {
	text, err := server.Info(ctx, "replication").Result()
	switch {
	case err != nil && replyError(err) == nil:
		return err
	case info.Field(text, "role") == "slave":
		s.retire(s.generation.Load())
		return errReplica
	}
	s.established()
	return nil
}

// established reports a new connection.
func (s *conns) established() {
	if s.connected != nil {
		s.connected()
	}
}
