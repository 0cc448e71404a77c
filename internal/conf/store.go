package conf

import (
	"maps"
	"net"
	"slices"
)

// embedded rejects settings with which a store in memory is hardly meant: its links are lost when podlink stops, and a second
// podlink has others.
func (v *violations) embedded(b *Bootstrap) {
	redis := b.GetData().GetRedis()
	if redis.GetMode() != ModeEmbedded {
		return
	}
	forRedis := map[string]bool{
		"data.redis.addrs":    !slices.Equal(redis.GetAddrs(), Default().GetData().GetRedis().GetAddrs()),
		"data.redis.username": redis.GetUsername() != "",
		"data.redis.password": redis.GetPassword() != "",
		"data.redis.db":       redis.GetDb() != 0,
	}
	for _, path := range sortedKeys(forRedis) {
		if forRedis[path] {
			v.add(path, "is for a Redis, but data.redis.mode is embedded: set it to standalone, sentinel or cluster")
		}
	}
	if redis.GetAllowEmbedded() {
		return
	}
	const why = "must be true for mode embedded, whose links are in memory only, together with %s %s; or set data.redis.mode"
	if kind := b.GetRegistry().GetType(); kind != RegistryNone {
		v.add("data.redis.allow_embedded", why, "registry.type", kind)
	}
	listeners := b.GetServer().listeners()
	for _, path := range sortedKeys(listeners) {
		if addr := listeners[path]; !Loopback(addr) {
			v.add("data.redis.allow_embedded", why, path, addr)
		}
	}
}

// listeners returns the addresses of the listeners by their YAML path.
func (x *Server) listeners() map[string]string {
	return map[string]string{
		"server.http.addr":  x.GetHttp().GetAddr(),
		"server.grpc.addr":  x.GetGrpc().GetAddr(),
		"server.admin.addr": x.GetAdmin().GetAddr(),
	}
}

// distinct rejects listeners that can't share the machine: one port twice, on one address or on all of them.
func (v *violations) distinct(addrs map[string]string) {
	paths := slices.Sorted(maps.Keys(addrs))
	for i, path := range paths {
		for _, other := range paths[:i] {
			if collide(addrs[path], addrs[other]) {
				v.add(path, "must differ from %s: they are %s and %s", other, addrs[path], addrs[other])
			}
		}
	}
}

func collide(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || portA != portB || portA == "0" {
		return false
	}
	return hostA == hostB || unspecified(hostA) || unspecified(hostB)
}

// unspecified reports whether a listener on the host listens on all addresses of the machine.
func unspecified(host string) bool {
	return host == "" || net.ParseIP(host).IsUnspecified()
}

// Loopback reports whether a listener at addr can be reached from this machine alone.
func Loopback(addr string) bool {
	host, _, _ := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
