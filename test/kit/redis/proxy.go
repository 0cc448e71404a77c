package redis

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"
)

// Proxy forwards connections to a server, and injects network faults on demand.
type Proxy struct {
	listener net.Listener
	running  sync.WaitGroup
	// forwarding is held for reading during a write, so that Cut can wait for writes in progress.
	forwarding sync.RWMutex

	mu        sync.Mutex
	target    string
	closed    bool
	conns     map[*connection]struct{}
	mended    chan struct{} // closed by Mend; nil unless the proxy is cut
	toLose    int
	loseEvery int
	scripts   int      // replies to scripts since LoseEvery
	only      []string // of which a script's request contains one if its reply may be lost; empty: of every script
	forgets   time.Duration
	faults    Faults
}

// Faults counts the faults that a proxy has injected.
type Faults struct {
	RepliesLost       int // of scripts that the server executed
	ConnectionsReset  int
	ConnectionsCut    int // connections that were open at a Cut, and new ones that hung
	PiecesUndelivered int // commands, replies and parts of a stream that Cut or ForgetIdle dropped
	ConnsForgotten    int // by ForgetIdle
}

// NewProxy starts a proxy in front of target (host:port). It ends with the test.
func NewProxy(tb testing.TB, target string) *Proxy {
	tb.Helper()
	listener, err := net.Listen("tcp", loopback+":0")
	if err != nil {
		tb.Fatalf("proxy: %v", err)
	}
	p := &Proxy{target: target, listener: listener, conns: make(map[*connection]struct{})}
	tb.Cleanup(p.close)
	p.running.Go(p.accept)
	return p
}

// Aim directs new connections to target (host:port).
func (p *Proxy) Aim(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// Addr returns the proxy's host:port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// LoseReplies makes the proxy lose the replies to the next n scripts: the server executes each of them, and the proxy closes
// the connection instead of forwarding the reply and later ones. An error reply is forwarded and does not count, because the
// script was not executed.
func (p *Proxy) LoseReplies(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.toLose = n
}

// LoseEvery makes the proxy lose the reply to every n-th script from now on, like LoseReplies; 0 stops that.
func (p *Proxy) LoseEvery(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.loseEvery, p.scripts = n, 0
}

// LoseOnly makes LoseReplies and LoseEvery count and lose only replies to scripts whose request contains one of the texts, such as a
// script's SHA1.
func (p *Proxy) LoseOnly(texts ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.only = texts
}

func (p *Proxy) mayLose(request []byte) bool {
	return len(p.only) == 0 || slices.ContainsFunc(p.only, func(text string) bool { return bytes.Contains(request, []byte(text)) })
}

// ForgetIdle makes the proxy forget connections that were idle for longer, like a firewall does: it drops what comes on them
// without a word, in both directions. 0 stops that for other connections.
func (p *Proxy) ForgetIdle(after time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forgets = after
}

// Lost returns how many replies were lost so far.
func (p *Proxy) Lost() int { return p.Faults().RepliesLost }

// Faults returns the faults injected so far.
func (p *Proxy) Faults() Faults {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.faults
}

func (p *Proxy) count(fault func(faults *Faults)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fault(&p.faults)
}

// Reset resets all open connections, like a firewall that drops its state: both sides get a RST. It returns how many there
// were.
func (p *Proxy) Reset() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		for _, end := range []net.Conn{c.client, c.server} {
			_ = end.(*net.TCPConn).SetLinger(0)
			_ = end.Close()
		}
	}
	reset := len(p.conns)
	clear(p.conns)
	p.faults.ConnectionsReset += reset
	return reset
}

// Cut partitions the network: the proxy forwards nothing in either direction, open connections stay open, and new ones hang.
// When Cut returns, nothing is in flight; what was has been dropped. Mend ends the partition.
func (p *Proxy) Cut() {
	p.mu.Lock()
	if p.mended == nil {
		p.mended = make(chan struct{})
		for c := range p.conns {
			c.cut()
		}
	}
	p.mu.Unlock()
	p.forwarding.Lock() // Wait for writes in progress.
	defer p.forwarding.Unlock()
}

// Mend ends Cut: connections that were open at the Cut are closed, hanging ones are established.
func (p *Proxy) Mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mend()
}

func (p *Proxy) mend() {
	if p.mended == nil {
		return
	}
	close(p.mended)
	p.mended = nil
	for c := range p.conns {
		if c.mended != nil {
			c.close()
		}
	}
}

func (p *Proxy) close() {
	p.mu.Lock()
	p.closed = true
	_ = p.listener.Close()
	p.mend()
	for c := range p.conns {
		c.close()
	}
	p.mu.Unlock()
	p.running.Wait()
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // The proxy was closed.
		}
		p.running.Go(func() { p.serve(client) })
	}
}

// serve forwards a client's connection to the server, after Mend if the proxy is cut.
func (p *Proxy) serve(client net.Conn) {
	p.mu.Lock()
	target, mended := p.target, p.mended
	p.mu.Unlock()
	if mended != nil {
		p.count(func(faults *Faults) { faults.ConnectionsCut++ })
		<-mended
	}
	server, err := net.Dial("tcp", target)
	if err != nil {
		_ = client.Close()
		return
	}
	c := &connection{proxy: p, client: client, server: server, used: time.Now()}
	defer p.remove(c)
	if !p.add(c) {
		return
	}
	p.running.Go(c.forwardRequests)
	c.forwardReplies()
}

// add registers an open connection for Reset, Cut and Mend. It returns false if the proxy has been closed.
func (p *Proxy) add(c *connection) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[c] = struct{}{}
	if p.mended != nil { // Cut during the dial.
		c.cut()
	}
	return !p.closed
}

func (p *Proxy) remove(c *connection) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.close()
	delete(p.conns, c)
}

// connection is a connection through the proxy.
type connection struct {
	proxy          *Proxy
	client, server net.Conn

	// The rest is guarded by proxy.mu.

	scripts []bool        // for each command without a reply yet: is it a script whose reply may be lost
	stream  bool          // the server sends a stream after the outstanding replies
	mended  chan struct{} // not nil once the connection is cut; closed by Mend
	used    time.Time     // when a piece was last forwarded
	// forgotten is set once the connection was idle for too long.
	forgotten bool
}

func (c *connection) close() {
	_ = c.client.Close()
	_ = c.server.Close()
}

// cut stops the forwarding. The proxy's mutex must be held.
func (c *connection) cut() {
	c.mended = c.proxy.mended
	c.proxy.faults.ConnectionsCut++
	// Cut waits for writes in progress; one to a peer that does not read would block for ever.
	_ = c.client.SetWriteDeadline(time.Now())
	_ = c.server.SetWriteDeadline(time.Now())
}

// forwardRequests forwards the client's commands.
func (c *connection) forwardRequests() {
	defer c.close()
	reader := bufio.NewReader(c.client)
	for {
		request, err := readValue(reader)
		if err == nil {
			c.expectReply(request)
		}
		if !c.forward(request, c.server) || err != nil {
			return
		}
	}
}

// forwardReplies forwards the server's replies, except those to lose.
func (c *connection) forwardReplies() {
	defer c.close()
	reader := bufio.NewReader(c.server)
	for !c.streams() {
		reply, err := readValue(reader)
		if err == nil && c.loses(reply) {
			return
		}
		if !c.forward(reply, c.client) || err != nil {
			return
		}
	}
	piece := make([]byte, 64<<10)
	for {
		n, err := reader.Read(piece)
		if !c.forward(piece[:n], c.client) || err != nil {
			return
		}
	}
}

// forward writes a piece to one end, and returns false when the connection is of no more use. On a cut connection it drops
// the piece and returns after Mend: until then neither end may notice anything, not even that the other one has closed.
func (c *connection) forward(piece []byte, to io.Writer) bool {
	if c.write(piece, to) {
		return true
	}
	if mended := c.isCut(); mended != nil {
		if len(piece) > 0 {
			c.proxy.count(func(faults *Faults) { faults.PiecesUndelivered++ })
		}
		<-mended
	}
	return false
}

func (c *connection) write(piece []byte, to io.Writer) bool {
	c.proxy.forwarding.RLock()
	defer c.proxy.forwarding.RUnlock()
	if c.isCut() != nil {
		return false
	}
	if c.isForgotten(len(piece) > 0) {
		return true
	}
	_, err := to.Write(piece)
	return err == nil
}

// isForgotten reports whether the proxy has forgotten the connection.
func (c *connection) isForgotten(piece bool) bool {
	p := c.proxy
	p.mu.Lock()
	defer p.mu.Unlock()
	if !c.forgotten && p.forgets > 0 && time.Since(c.used) > p.forgets {
		c.forgotten = true
		p.faults.ConnsForgotten++
	}
	if c.forgotten && piece {
		p.faults.PiecesUndelivered++
	}
	c.used = time.Now()
	return c.forgotten
}

// isCut returns a channel that Mend closes, nil unless the connection is cut.
func (c *connection) isCut() chan struct{} {
	c.proxy.mu.Lock()
	defer c.proxy.mu.Unlock()
	return c.mended
}

// expectReply records the kind of the command's reply. It is called before the command is forwarded, so that the reply
// can't come first.
func (c *connection) expectReply(request []byte) {
	command := commandName(request)
	c.proxy.mu.Lock()
	defer c.proxy.mu.Unlock()
	if startsStream(command) {
		c.stream = true
	}
	if !c.stream {
		c.scripts = append(c.scripts, isScript(command) && c.proxy.mayLose(request))
	}
}

// streams reports whether the server sends a stream from now on.
func (c *connection) streams() bool {
	c.proxy.mu.Lock()
	defer c.proxy.mu.Unlock()
	return c.stream && len(c.scripts) == 0
}

// loses reports whether to lose a reply.
func (c *connection) loses(reply []byte) bool {
	p := c.proxy
	p.mu.Lock()
	defer p.mu.Unlock()
	if isPush(reply) || len(c.scripts) == 0 {
		return false
	}
	script := c.scripts[0]
	c.scripts = c.scripts[1:]
	if !script || isError(reply) {
		return false
	}
	p.scripts++
	switch {
	case p.toLose > 0:
		p.toLose--
	case p.loseEvery > 0 && p.scripts%p.loseEvery == 0:
	default:
		return false
	}
	p.faults.RepliesLost++
	return true
}
