package redis

import (
	"bufio"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy passes connections on to a server, and injects the faults of a network when told to.
type Proxy struct {
	listener net.Listener
	running  sync.WaitGroup
	// delivering is held for reading while something is passed on, so that Cut can wait for it.
	delivering sync.RWMutex

	mu        sync.Mutex
	target    string
	closed    bool
	links     map[*link]struct{}
	mended    chan struct{} // closed by Mend; nil when nothing is cut
	toLose    int
	loseEvery int
	scripts   int // whose replies came by since LoseEvery
	faults    Faults
}

// Faults are what a proxy has really injected.
type Faults struct {
	RepliesLost       int // of scripts that the server executed
	ConnectionsReset  int
	ConnectionsCut    int // open ones that Cut silenced, and new ones that hung
	PiecesUndelivered int // commands, replies and pieces of a stream that Cut dropped
}

// NewProxy starts a proxy in front of target (host:port). It ends with the test.
func NewProxy(tb testing.TB, target string) *Proxy {
	tb.Helper()
	listener, err := net.Listen("tcp", loopback+":0")
	if err != nil {
		tb.Fatalf("the proxy does not listen: %v", err)
	}
	p := &Proxy{target: target, listener: listener, links: make(map[*link]struct{})}
	tb.Cleanup(p.close)
	p.running.Go(p.accept)
	return p
}

// Aim makes new connections go to target (host:port).
func (p *Proxy) Aim(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// Addr is the proxy's host:port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// LoseReplies makes the proxy lose the replies to the next n scripts: the server executes each of them, and instead of
// its reply, and of the replies to what was sent after it, the client gets a closed connection. An error, which says
// that the script was not executed, passes and does not count.
func (p *Proxy) LoseReplies(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.toLose = n
}

// LoseEvery makes the proxy lose the reply to every n-th script from now on, as LoseReplies does; 0 ends that.
func (p *Proxy) LoseEvery(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.loseEvery, p.scripts = n, 0
}

// Lost is how many replies were lost until now.
func (p *Proxy) Lost() int { return p.Faults().RepliesLost }

// Faults returns what was injected until now.
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

// Reset aborts all open connections, as a firewall that forgets them does: both sides get a RST. It returns how many
// there were.
func (p *Proxy) Reset() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for link := range p.links {
		for _, conn := range []net.Conn{link.client, link.server} {
			_ = conn.(*net.TCPConn).SetLinger(0)
			_ = conn.Close()
		}
	}
	reset := len(p.links)
	clear(p.links)
	p.faults.ConnectionsReset += reset
	return reset
}

// Cut makes the proxy pass nothing in either direction, as a network that is partitioned: connections stay open and
// silent, and new ones hang. When Cut returns, nothing is on its way any more: what was is dropped. Mend ends it.
func (p *Proxy) Cut() {
	p.mu.Lock()
	if p.mended == nil {
		p.mended = make(chan struct{})
		for link := range p.links {
			link.silence()
		}
	}
	p.mu.Unlock()
	p.delivering.Lock() // Until what began before is done.
	defer p.delivering.Unlock()
}

// Mend ends Cut: connections that were open then are closed, those that hang are established.
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
	for link := range p.links {
		if link.silent != nil {
			link.close()
		}
	}
}

func (p *Proxy) close() {
	p.mu.Lock()
	p.closed = true
	_ = p.listener.Close()
	p.mend()
	for link := range p.links {
		link.close()
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

// serve passes a client's connection on to the server, when nothing is cut any more.
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
	l := &link{proxy: p, client: client, server: server}
	defer p.forget(l)
	if !p.keep(l) {
		return
	}
	p.running.Go(l.requests)
	l.replies()
}

// keep remembers the link for what will happen to all of them; it is false when the proxy was closed meanwhile.
func (p *Proxy) keep(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.links[l] = struct{}{}
	if p.mended != nil { // The cut came during the dial.
		l.silence()
	}
	return !p.closed
}

func (p *Proxy) forget(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.close()
	delete(p.links, l)
}

// link is one connection through the proxy.
type link struct {
	proxy          *Proxy
	client, server net.Conn

	// The rest is guarded by proxy.mu.

	scripts []bool        // of each command that has no reply yet: does it run a script
	stream  bool          // the server sends what is no reply
	silent  chan struct{} // not nil: nothing passes any more; closed by Mend
}

func (l *link) close() {
	_ = l.client.Close()
	_ = l.server.Close()
}

// silence ends what the link passes on. The proxy's mutex is held.
func (l *link) silence() {
	l.silent = l.proxy.mended
	l.proxy.faults.ConnectionsCut++
	// Cut waits for what is being passed on: a peer that does not read would make it wait for ever.
	_ = l.client.SetWriteDeadline(time.Now())
	_ = l.server.SetWriteDeadline(time.Now())
}

// requests passes on what the client sends.
func (l *link) requests() {
	defer l.close()
	reader := bufio.NewReader(l.client)
	for {
		request, err := readValue(reader)
		if err == nil {
			l.expectReply(commandName(request))
		}
		if !l.deliver(request, l.server) || err != nil {
			return
		}
	}
}

// replies passes on what the server sends, except for what has to be lost.
func (l *link) replies() {
	defer l.close()
	reader := bufio.NewReader(l.server)
	for !l.streams() {
		reply, err := readValue(reader)
		if err == nil && l.loses(reply) {
			return
		}
		if !l.deliver(reply, l.client) || err != nil {
			return
		}
	}
	piece := make([]byte, 64<<10)
	for {
		n, err := reader.Read(piece)
		if !l.deliver(piece[:n], l.client) || err != nil {
			return
		}
	}
}

// deliver writes what was read, and is false when the link can't go on. On a silent link it drops it, and returns after
// Mend: until then neither side learns anything, not even that the other has left.
func (l *link) deliver(piece []byte, to io.Writer) bool {
	if l.write(piece, to) {
		return true
	}
	if silent := l.silenced(); silent != nil {
		if len(piece) > 0 {
			l.proxy.count(func(faults *Faults) { faults.PiecesUndelivered++ })
		}
		<-silent
	}
	return false
}

func (l *link) write(piece []byte, to io.Writer) bool {
	l.proxy.delivering.RLock()
	defer l.proxy.delivering.RUnlock()
	if l.silenced() != nil {
		return false
	}
	_, err := to.Write(piece)
	return err == nil
}

func (l *link) silenced() chan struct{} {
	l.proxy.mu.Lock()
	defer l.proxy.mu.Unlock()
	return l.silent
}

// expectReply notes what kind of reply comes next. It is called before the request leaves for the server: the reply
// can't overtake it.
func (l *link) expectReply(command string) {
	l.proxy.mu.Lock()
	defer l.proxy.mu.Unlock()
	if startsStream(command) {
		l.stream = true
	}
	if !l.stream {
		l.scripts = append(l.scripts, isScript(command))
	}
}

// streams tells whether all that comes now from the server is a stream.
func (l *link) streams() bool {
	l.proxy.mu.Lock()
	defer l.proxy.mu.Unlock()
	return l.stream && len(l.scripts) == 0
}

// loses decides on a reply.
func (l *link) loses(reply []byte) bool {
	p := l.proxy
	p.mu.Lock()
	defer p.mu.Unlock()
	if isPush(reply) || len(l.scripts) == 0 {
		return false
	}
	script := l.scripts[0]
	l.scripts = l.scripts[1:]
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
