package redistest

import (
	"bytes"
	"net"
	"sync"
	"testing"
)

// The commands that run scripts, as a client spells them on the wire; a key or a script's text can't look like that.
var scriptCommands = [][]byte{[]byte("$7\r\nevalsha\r\n"), []byte("$4\r\neval\r\n")}

// noScript is Redis' reply when it has not executed a script.
var noScript = []byte("-NOSCRIPT")

// Proxy passes connections on to a server, and loses replies when told to.
type Proxy struct {
	target   string
	listener net.Listener
	running  sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]struct{}
	toLose int
	lost   int
}

// NewProxy starts a proxy in front of target. It ends with the test.
func NewProxy(tb testing.TB, target string) *Proxy {
	tb.Helper()
	listener, err := net.Listen("tcp", loopback+":0")
	if err != nil {
		tb.Fatalf("the proxy does not listen: %v", err)
	}
	p := &Proxy{target: target, listener: listener, conns: make(map[net.Conn]struct{})}
	tb.Cleanup(p.close)
	p.running.Go(p.accept)
	return p
}

// Addr is the proxy's host:port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// LoseReplies makes the proxy lose the replies to the next n scripts: the server executes each of them, and instead of
// its reply the client gets a closed connection. A reply that says that the script was not executed (NOSCRIPT) passes
// and does not count.
func (p *Proxy) LoseReplies(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.toLose = n
}

// Lost is how many replies were lost until now.
func (p *Proxy) Lost() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost
}

func (p *Proxy) close() {
	p.mu.Lock()
	p.closed = true
	_ = p.listener.Close()
	for conn := range p.conns {
		_ = conn.Close()
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
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		link := &link{proxy: p, client: client, server: server}
		if !p.keep(client, server) {
			link.close()
			return
		}
		p.running.Go(link.requests)
		p.running.Go(link.replies)
	}
}

// keep remembers the connections for close; it is false when that has come already.
func (p *Proxy) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range conns {
		p.conns[conn] = struct{}{}
	}
	return !p.closed
}

func (p *Proxy) forget(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range conns {
		delete(p.conns, conn)
	}
}

// link is one connection through the proxy.
type link struct {
	proxy          *Proxy
	client, server net.Conn
	armed          bool // the next reply may have to be lost; guarded by proxy.mu
}

func (l *link) close() {
	_ = l.client.Close()
	_ = l.server.Close()
	l.proxy.forget(l.client, l.server)
}

// requests passes on what the client sends.
func (l *link) requests() {
	defer l.close()
	l.pass(l.client, l.server, func(chunk []byte) bool {
		l.arm(chunk)
		return true
	})
}

// replies passes on what the server sends, except for what has to be lost.
func (l *link) replies() {
	defer l.close()
	l.pass(l.server, l.client, func(chunk []byte) bool { return !l.loses(chunk) })
}

// pass copies chunks until one of the connections ends or a chunk is refused.
func (l *link) pass(from, to net.Conn, accepts func(chunk []byte) bool) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if !accepts(buffer[:n]) {
				return
			}
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// arm notes that the client is about to run a script. It is called before the request leaves for the server: its reply
// can't overtake it.
func (l *link) arm(request []byte) {
	request = bytes.ToLower(request)
	l.proxy.mu.Lock()
	defer l.proxy.mu.Unlock()
	for _, command := range scriptCommands {
		if bytes.Contains(request, command) {
			l.armed = true
		}
	}
}

// loses decides on a reply.
func (l *link) loses(reply []byte) bool {
	p := l.proxy
	p.mu.Lock()
	defer p.mu.Unlock()
	lose := l.armed && p.toLose > 0 && !bytes.HasPrefix(reply, noScript)
	l.armed = false
	if lose {
		p.toLose--
		p.lost++
	}
	return lose
}
