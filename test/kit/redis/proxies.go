package redis

import (
	"net"
	"testing"
)

// proxies holds the proxies of a deployment, by server.
type proxies map[*Server]*Proxy

// start starts a server, if proxied behind a proxy whose port it announces.
func (p *proxies) start(tb testing.TB, proxied bool, args []string, announce func(port string) []string) *Server {
	tb.Helper()
	if !proxied {
		return Start(tb, args...)
	}
	proxy := NewProxy(tb, "")
	_, port, err := net.SplitHostPort(proxy.Addr())
	if err != nil {
		tb.Fatal(err)
	}
	server := Start(tb, append(announce(port), args...)...)
	proxy.Aim(server.Addr())
	if *p == nil {
		*p = make(proxies)
	}
	(*p)[server] = proxy
	return server
}

// addr returns the server's host:port for others: the proxy's if it has one.
func (p *proxies) addr(server *Server) string {
	if proxy := (*p)[server]; proxy != nil {
		return proxy.Addr()
	}
	return server.Addr()
}

// of returns the servers' proxies, in the same order.
func (p *proxies) of(servers []*Server) []*Proxy {
	var all []*Proxy
	for _, server := range servers {
		if proxy := (*p)[server]; proxy != nil {
			all = append(all, proxy)
		}
	}
	return all
}
