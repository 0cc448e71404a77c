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

// SentinelOptions configures a Sentinel.
type SentinelOptions struct {
	// DownAfter is how long a server must be silent before a sentinel considers it down; 1.5 s by default. It must be well
	// above a second, because a sentinel sends its first ping to a new primary only after a second.
	DownAfter        time.Duration
	Password         string // of the data servers
	SentinelPassword string
	Args             []string // of the data servers
	// Proxied puts a proxy in front of each data server: clients, sentinels and the other data server know the server by
	// the proxy's address.
	Proxied bool
}

// Sentinel is a primary with a replica, monitored by three sentinels.
type Sentinel struct {
	tb        testing.TB
	options   SentinelOptions
	servers   []*Server
	proxies   proxies
	sentinels []*Server
}

// StartSentinel starts a deployment and waits until it is healthy.
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
	s.WaitHealthy()
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

// startSentinel starts a sentinel with a configuration file, which it rewrites to persist its state.
func (s *Sentinel) startSentinel(primary string) {
	s.tb.Helper()
	host, port, err := net.SplitHostPort(primary)
	if err != nil {
		s.tb.Fatal(err)
	}
	lines := []string{
		fmt.Sprintf("monitor %s %s %s %d", masterName, host, port, quorum),
		fmt.Sprintf("down-after-milliseconds %s %d", masterName, s.options.DownAfter.Milliseconds()),
		// A failed failover is retried after twice this timeout; the default takes minutes.
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

// Addrs returns the sentinels' host:port.
func (s *Sentinel) Addrs() []string {
	addrs := make([]string, len(s.sentinels))
	for i, sentinel := range s.sentinels {
		addrs[i] = sentinel.Addr()
	}
	return addrs
}

// MasterName returns the name of the primary in the sentinels' configuration.
func (s *Sentinel) MasterName() string { return masterName }

// Servers returns the data servers: the first primary and the first replica.
func (s *Sentinel) Servers() []*Server { return s.servers }

// Proxies returns the proxies of the data servers, in the order of Servers.
func (s *Sentinel) Proxies() []*Proxy { return s.proxies.of(s.servers) }

// Primary returns the primary, as the sentinel with the highest config epoch sees it.
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
		s.tb.Fatalf("the sentinels' primary %q is none of the servers", addr)
	}
	return s.servers[i]
}

// KillPrimary kills the primary and returns it. Restart it after WaitNewPrimary only: a primary that is back at once stays
// the primary, with the data that it has persisted.
func (s *Sentinel) KillPrimary() *Server {
	s.tb.Helper()
	primary := s.Primary()
	primary.Kill()
	return primary
}

// WaitNewPrimary waits until the sentinels have promoted another server than old, and returns it.
func (s *Sentinel) WaitNewPrimary(old *Server) *Server {
	s.tb.Helper()
	var primary *Server
	wait(s.tb, "the sentinels have promoted another server", func() bool {
		primary = s.Primary()
		return primary != old
	})
	return primary
}

// WaitHealthy waits until the deployment is healthy: the replica is in sync, and every sentinel sees the others, the primary
// and the replica.
func (s *Sentinel) WaitHealthy() {
	s.tb.Helper()
	// Sentinels demote a returning primary after 4 publish periods, and notice changes after an info period. The defaults
	// come back afterwards, so that later failovers take their usual time.
	s.setPeriods(500*time.Millisecond, 500*time.Millisecond)
	defer s.setPeriods(2*time.Second, 10*time.Second)
	wait(s.tb, "the Sentinel deployment is healthy", s.healthy)
}

// setPeriods sets how often the sentinels publish their state to each other, and send INFO to the servers. Sentinels before
// Redis 7.0 can't, and keep the defaults.
func (s *Sentinel) setPeriods(publish, info time.Duration) {
	for _, sentinel := range s.sentinels {
		_ = sentinel.admin.Do(context.Background(), "SENTINEL", "DEBUG",
			"publish-period", publish.Milliseconds(), "info-period", info.Milliseconds()).Err()
	}
}

func (s *Sentinel) healthy() bool {
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

// masterSeenBy returns the sentinel's view of the primary, nil if it does not answer.
func masterSeenBy(sentinel *Server) map[string]string {
	cmd := redis.NewMapStringStringCmd(context.Background(), "SENTINEL", "MASTER", masterName)
	_ = sentinel.admin.Process(context.Background(), cmd)
	return cmd.Val()
}

// replicasSeenBy returns the sentinel's view of each replica, nil if it does not answer.
func replicasSeenBy(sentinel *Server) []map[string]string {
	cmd := redis.NewMapStringStringSliceCmd(context.Background(), "SENTINEL", "REPLICAS", masterName)
	_ = sentinel.admin.Process(context.Background(), cmd)
	return cmd.Val()
}

// number parses a number, and returns 0 for anything else.
func number(text string) int {
	n, _ := strconv.Atoi(text)
	return n
}
