package proc

import (
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"
)

const (
	loopback = "127.0.0.1"
	// The ports are below the ephemeral ones of outgoing connections (from 32768 on Linux, 49152 elsewhere): a free port
	// stays free until its server listens, and while the server is down.
	firstPort, lastPort = 20000, 32000
	// block is how many ports a test binary reserves.
	block = 500
)

// ports is the block of this test binary. Test binaries run in parallel, so each claims a block by listening on its first
// port; the claim ends with the process.
var ports struct {
	mu    sync.Mutex
	claim net.Listener
	first int
	next  int // offset from first
	lent  map[int]bool
}

// FreePorts returns n distinct free ports of the loopback. No other test gets them until this one ends: a server that it has stopped
// starts again where it was.
func FreePorts(tb testing.TB, n int) []int {
	tb.Helper()
	found := lendPorts(tb, n)
	tb.Cleanup(func() {
		ports.mu.Lock()
		defer ports.mu.Unlock()
		for _, port := range found {
			delete(ports.lent, port)
		}
	})
	return found
}

func lendPorts(tb testing.TB, n int) []int {
	tb.Helper()
	ports.mu.Lock()
	defer ports.mu.Unlock()
	if ports.claim == nil {
		ports.claim, ports.first = claimBlock()
		ports.lent = make(map[int]bool)
	}
	if ports.claim == nil {
		tb.Fatalf("no block of %d ports is free from %d to %d", block, firstPort, lastPort)
	}
	var found []int
	for tried := 1; len(found) < n; tried++ {
		if tried == block {
			tb.Fatalf("fewer than %d of the ports from %d are free", n, ports.first)
		}
		ports.next = ports.next%(block-1) + 1
		port := ports.first + ports.next
		if ports.lent[port] {
			continue
		}
		if isFree(port) {
			found = append(found, port)
			ports.lent[port] = true
		}
	}
	return found
}

// isFree reports whether a server can listen on a port.
func isFree(port int) (free bool) {
	withoutFork(func() { // A process that starts now would have a copy of the socket, and so the port, for a moment longer.
		listener, err := net.Listen("tcp", Addr(port))
		if free = err == nil; free {
			_ = listener.Close()
		}
	})
	return free
}

// claimBlock returns a nil claim when every block is taken.
func claimBlock() (claim net.Listener, first int) {
	const blocks = (lastPort - firstPort) / block
	for _, i := range rand.Perm(blocks) {
		first = firstPort + i*block
		if claim, err := net.Listen("tcp", Addr(first)); err == nil {
			return claim, first
		}
	}
	return nil, 0
}

// FreeAddr returns a free host:port of the loopback.
func FreeAddr(tb testing.TB) string {
	tb.Helper()
	return Addr(FreePorts(tb, 1)[0])
}

// Addr returns the host:port of a port of the loopback.
func Addr(port int) string { return net.JoinHostPort(loopback, strconv.Itoa(port)) }
