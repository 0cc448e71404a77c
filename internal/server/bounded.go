package server

import (
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// refusalPause is how long a refusal takes.
const refusalPause = 100 * time.Millisecond

// bounded bounds the requests that a route open to everyone serves at once: all of them, and those of each peer's address.
type bounded struct {
	next        http.Handler
	most        int
	mostPerPeer int

	mu    sync.Mutex
	all   int
	peers map[netip.Addr]int // those with a request
}

func newBounded(most, mostPerPeer int, next http.Handler) *bounded {
	return &bounded{next: next, most: most, mostPerPeer: mostPerPeer, peers: make(map[netip.Addr]int)}
}

// ServeHTTP implements http.Handler.
func (b *bounded) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	from, _ := netip.ParseAddrPort(r.RemoteAddr) // In a test without a connection: the zero address.
	peer := from.Addr()
	if !b.begin(peer) {
		refuseSlowly(w, r, "too many requests at once")
		return
	}
	defer b.end(peer)
	b.next.ServeHTTP(w, r)
}

// refuseSlowly refuses a request after a pause: a loop of requests that are refused at once would take the processors.
func refuseSlowly(w http.ResponseWriter, r *http.Request, why string) {
	pause := time.NewTimer(refusalPause)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-r.Context().Done():
	}
	encodeError(w, r, rateLimited(time.Second, "%s", why))
}

func (b *bounded) begin(peer netip.Addr) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all >= b.most || b.peers[peer] >= b.mostPerPeer {
		return false
	}
	b.all++
	b.peers[peer]++
	return true
}

func (b *bounded) end(peer netip.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all--
	if b.peers[peer]--; b.peers[peer] == 0 {
		delete(b.peers, peer)
	}
}
