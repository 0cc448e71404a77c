package redis

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	sentinels  = 3
	quorum     = 2
	masterName = "links"
)

// SentinelOptions are what a set under Sentinel is made of.
type SentinelOptions struct {
	// DownAfter is how long a server is silent until a sentinel holds it to be down; 1.5 s by default. It has to be well
	// above a second: only then does a sentinel ping a new primary for the first time, and until then counts it as silent.
	DownAfter        time.Duration
	Password         string // of the data servers
	SentinelPassword string
	Args             []string // of the data servers
	// Proxied puts a proxy before each data server: clients, sentinels and the other server know it by the proxy's
	// address.
	Proxied bool
}

// Sentinel is a primary with a replica, and three sentinels that watch them.
type Sentinel struct {
	tb        testing.TB
	options   SentinelOptions
	servers   []*Server
	proxies   proxies
	sentinels []*Server
}

// StartSentinel starts the set and waits until it is whole.
func StartSentinel(tb testing.TB, options SentinelOptions) *Sentinel {
	tb.Helper()
	if options.DownAfter == 0 {
		options.DownAfter = 1500 * time.Millisecond
	}
	s := &Sentinel{tb: tb, options: options}
	primary := s.startServer()
	s.startServer(replicaOf(tb, s.proxies.addr(primary))...).WaitInSync()
	for range sentinels {
		s.startSentinel(s.proxies.addr(primary))
	}
	s.WaitWhole()
	return s
}

func (s *Sentinel) startServer(args ...string) *Server {
	s.tb.Helper()
	args = append(args, s.options.Args...)
	if s.options.Password != "" {
		args = append(args, "--requirepass", s.options.Password, "--masterauth", s.options.Password)
	}
	server := s.proxies.start(s.tb, s.options.Proxied, args, func(port string) []string {
		return []string{"--replica-announce-ip", loopback, "--replica-announce-port", port}
	})
	s.servers = append(s.servers, server)
	return server
}

// startSentinel starts a sentinel, with a configuration file that it keeps its state in.
func (s *Sentinel) startSentinel(primary string) {
	s.tb.Helper()
	host, port, err := net.SplitHostPort(primary)
	if err != nil {
		s.tb.Fatal(err)
	}
	lines := []string{
		fmt.Sprintf("monitor %s %s %s %d", masterName, host, port, quorum),
		fmt.Sprintf("down-after-milliseconds %s %d", masterName, s.options.DownAfter.Milliseconds()),
		// A failover that came to nothing is tried again after twice that; it is a minute and more by default.
		fmt.Sprintf("failover-timeout %s %d", masterName, 3*s.options.DownAfter.Milliseconds()),
		fmt.Sprintf("parallel-syncs %s 1", masterName),
	}
	if s.options.Password != "" {
		lines = append(lines, fmt.Sprintf("auth-pass %s %s", masterName, s.options.Password))
	}
	var args []string
	if s.options.SentinelPassword != "" {
		lines = append(lines, "sentinel-pass "+s.options.SentinelPassword)
		args = []string{"--requirepass", s.options.SentinelPassword}
	}
	dir := s.tb.TempDir()
	file := filepath.Join(dir, "sentinel.conf")
	text := "sentinel " + strings.Join(lines, "\nsentinel ") + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		s.tb.Fatal(err)
	}
	s.sentinels = append(s.sentinels, launch(s.tb, dir, append([]string{file, "--sentinel"}, args...)))
}

// Addrs are the sentinels' host:port.
func (s *Sentinel) Addrs() []string {
	addrs := make([]string, len(s.sentinels))
	for i, sentinel := range s.sentinels {
		addrs[i] = sentinel.Addr()
	}
	return addrs
}

// MasterName is how the sentinels call the set.
func (s *Sentinel) MasterName() string { return masterName }

// Servers are the data servers: the first primary and the first replica.
func (s *Sentinel) Servers() []*Server { return s.servers }

// Proxies are the proxies before the data servers, in the order of Servers.
func (s *Sentinel) Proxies() []*Proxy { return s.proxies.of(s.servers) }

// Primary is the server that the sentinels take for the primary now; while they disagree, it is the newest one.
func (s *Sentinel) Primary() *Server {
	s.tb.Helper()
	var newest map[string]string
	for _, sentinel := range s.sentinels {
		if view := masterSeenBy(sentinel); newest == nil || number(view["config-epoch"]) > number(newest["config-epoch"]) {
			newest = view
		}
	}
	addr := net.JoinHostPort(newest["ip"], newest["port"])
	i := slices.IndexFunc(s.servers, func(server *Server) bool { return s.proxies.addr(server) == addr })
	if i < 0 {
		s.tb.Fatalf("the sentinels name %q, which is none of the servers", addr)
	}
	return s.servers[i]
}

// KillPrimary ends the primary as kill -9 does and returns it. It is the caller's to restart it, after WaitNewPrimary:
// a primary that is back at once stays the primary, with what it has kept.
func (s *Sentinel) KillPrimary() *Server {
	s.tb.Helper()
	primary := s.Primary()
	primary.Kill()
	return primary
}

// WaitNewPrimary waits until the sentinels have made another server than old the primary, and returns it.
func (s *Sentinel) WaitNewPrimary(old *Server) *Server {
	s.tb.Helper()
	var primary *Server
	wait(s.tb, "the sentinels have another primary", func() bool {
		primary = s.Primary()
		return primary != old
	})
	return primary
}

// WaitWhole waits until the replica is in sync, and all sentinels see each other, the primary and the replica.
func (s *Sentinel) WaitWhole() {
	s.tb.Helper()
	// A primary that comes back is made a replica after 4 publish periods, and all that happens is seen after an info
	// period. What comes next, a failover maybe, takes as long as it always does.
	s.setPeriods(500*time.Millisecond, 500*time.Millisecond)
	defer s.setPeriods(2*time.Second, 10*time.Second)
	wait(s.tb, "the set under Sentinel is whole", s.whole)
}

// setPeriods sets how often the sentinels tell each other what they know, and ask the servers who they are. A sentinel
// older than Redis 7.0 can't, and takes longer.
func (s *Sentinel) setPeriods(publish, info time.Duration) {
	for _, sentinel := range s.sentinels {
		_ = sentinel.admin.Do(context.Background(), "SENTINEL", "DEBUG",
			"publish-period", publish.Milliseconds(), "info-period", info.Milliseconds()).Err()
	}
}

func (s *Sentinel) whole() bool {
	primary := s.Primary()
	for _, server := range s.servers {
		if server != primary && !server.inSync() {
			return false
		}
	}
	for _, sentinel := range s.sentinels {
		master, replicas := masterSeenBy(sentinel), replicasSeenBy(sentinel)
		switch {
		case net.JoinHostPort(master["ip"], master["port"]) != s.proxies.addr(primary):
			return false
		case master["flags"] != "master" || number(master["num-other-sentinels"]) != sentinels-1:
			return false
		case len(replicas) != len(s.servers)-1 || replicas[0]["flags"] != "slave":
			return false
		case replicas[0]["master-link-status"] != "ok":
			return false
		}
	}
	return true
}

// masterSeenBy is the sentinel's view of the primary; none when it does not answer.
func masterSeenBy(sentinel *Server) map[string]string {
	cmd := redis.NewMapStringStringCmd(context.Background(), "SENTINEL", "MASTER", masterName)
	_ = sentinel.admin.Process(context.Background(), cmd)
	return cmd.Val()
}

// replicasSeenBy are the sentinel's views of the replicas; none when it does not answer.
func replicasSeenBy(sentinel *Server) []map[string]string {
	cmd := redis.NewMapStringStringSliceCmd(context.Background(), "SENTINEL", "REPLICAS", masterName)
	_ = sentinel.admin.Process(context.Background(), cmd)
	return cmd.Val()
}

// number is 0 for what is none.
func number(text string) int {
	n, _ := strconv.Atoi(text)
	return n
}
