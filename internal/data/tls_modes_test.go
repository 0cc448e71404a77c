package data

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
	"podlink/internal/conf"
	"podlink/internal/rdb"
	"podlink/test/kit/proc"
	redistest "podlink/test/kit/redis"
)

// startSecured runs a redis-server with the named certificate and without a plaintext port, for clients or other servers.
// args come first, because one may be a configuration file. It returns the server's host:port and a client.
func (a authority) startSecured(t *testing.T, certificate string, args ...string) (addr string, client *redis.Client) {
	t.Helper()
	port := proc.FreePorts(t, 1)[0]
	args = append(args, "--bind", "127.0.0.1", "--port", "0", "--tls-port", strconv.Itoa(port), "--dir", t.TempDir(), "--save", "",
		"--tls-replication", "yes", "--tls-ca-cert-file", a.Path(a.Name+".crt"),
		"--tls-cert-file", a.Path(certificate+".crt"), "--tls-key-file", a.Path(certificate+".key"))
	proc.Start(t, proc.Command{Program: "redis-server", Args: args})
	pair, err := tls.LoadX509KeyPair(a.Path("client.crt"), a.Path("client.key"))
	require.NoError(t, err)
	addr = proc.Addr(port)
	client = redis.NewClient(&redis.Options{
		Addr: addr, DisableIdentity: true,
		TLSConfig: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}}, // It may have expired.
	})
	t.Cleanup(func() { _ = client.Close() })
	require.Eventually(t, func() bool { return client.Ping(context.Background()).Err() == nil }, 10*time.Second, 10*time.Millisecond)
	return addr, client
}

// startSentinel starts a sentinel of one primary.
func (a authority) startSentinel(t *testing.T, certificate, primary string) (addr string) {
	t.Helper()
	host, port, err := net.SplitHostPort(primary)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "sentinel.conf")
	text := fmt.Sprintf("sentinel monitor mymaster %s %s 1\n", host, port)
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	addr, _ = a.startSecured(t, certificate, file, "--sentinel")
	return addr
}

// startCluster starts a cluster of primaries that uses TLS on its bus as well.
func (a authority) startCluster(t *testing.T, certificate string, nodes int) (addrs []string) {
	t.Helper()
	const slots = 16384
	clients, bus := make([]*redis.Client, nodes), 0
	for i := range nodes {
		bus = proc.FreePorts(t, 1)[0]
		args := []string{"--cluster-enabled", "yes", "--tls-cluster", "yes", "--cluster-port", strconv.Itoa(bus)}
		addr, client := a.startSecured(t, certificate, args...)
		require.NoError(t, client.ClusterAddSlotsRange(t.Context(), i*slots/nodes, (i+1)*slots/nodes-1).Err())
		require.NoError(t, client.Do(t.Context(), "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err())
		addrs, clients[i] = append(addrs, addr), client
	}
	last, port, err := net.SplitHostPort(addrs[nodes-1])
	require.NoError(t, err)
	for _, client := range clients[:nodes-1] {
		require.NoError(t, client.Do(t.Context(), "CLUSTER", "MEET", last, port, bus).Err())
	}
	for _, client := range clients {
		require.Eventually(t, func() bool {
			info := client.ClusterInfo(context.Background()).Val()
			return redistest.InfoField(info, "cluster_state") == "ok" && redistest.InfoField(info, "cluster_known_nodes") == strconv.Itoa(nodes)
		}, 20*time.Second, 20*time.Millisecond)
	}
	return addrs
}

// TestTLSEverywhere: with TLS, every connection uses it, including those to sentinels and cluster nodes. If a connection
// can't be secured as configured, nothing is sent.
func TestTLSEverywhere(t *testing.T) {
	t.Parallel()
	plain := redistest.Start(t)
	plainSet := redistest.StartSentinel(t, redistest.SentinelOptions{})
	ca := newAuthority(t, t.TempDir(), "ca")
	newAuthority(t, ca.Dir, "stranger")
	ca.sign(t, "server", time.Now().Add(time.Hour))
	ca.sign(t, "expired", time.Now().Add(-time.Minute))
	ca.sign(t, "client", time.Now().Add(time.Hour))

	sentinel := func(addr string) option {
		return func(c *testOptions) {
			c.Mode, c.Addrs, c.MasterName = rdb.Sentinel, []string{addr}, "mymaster"
		}
	}
	primary, _ := ca.startSecured(t, "server")
	expired, _ := ca.startSecured(t, "expired")
	watched := sentinel(ca.startSentinel(t, "server", primary))
	cluster := onCluster(ca.startCluster(t, "server", 2))
	modes := map[string]option{"sentinel": watched, "cluster": cluster}

	secured := func(c *testOptions) {
		c.DialTimeout = 100 * time.Millisecond // A port with another protocol may never reply.
		c.MinIdleConns = 0
		c.Tls = &conf.TLS{
			Enabled: true, CaFile: ca.Path("ca.crt"), CertFile: ca.Path("client.crt"), KeyFile: ca.Path("client.key"),
			ServerName: "redis.test",
		}
	}
	for name, store := range modes {
		t.Run(name, func(t *testing.T) {
			store := openStore(t, secured, store, withLongTimeouts)
			waitReady(t, store)
			populate(t, store)
			for _, call := range repoCalls {
				require.True(t, isAnswer(call.do(t.Context(), reposOf(store), populated)), call.name)
			}
		})
	}

	refused := func(name string, all ...option) {
		t.Run(name, func(t *testing.T) {
			parallel(t)
			store := openStore(t, append([]option{secured}, all...)...)
			for _, call := range repoCalls {
				err := call.do(t.Context(), reposOf(store), populated)
				if call.mutation() || !errors.Is(err, biz.ErrDeadlineExceeded) {
					require.ErrorIs(t, err, biz.ErrStoreUnavailable, call.name)
				}
			}
			require.Error(t, store.Check(t.Context()))
			waiting := openStore(t, append([]option{secured, confirmedBy(1, time.Millisecond)}, all...)...)
			err := second(reposOf(waiting).Links.Set(t.Context(), populated.link(), 1, biz.Forever, biz.SetTerms{}))
			require.ErrorIs(t, err, biz.ErrStoreUnavailable)
		})
	}
	for name, store := range modes {
		refused(name+"/unknown authority", store, func(c *testOptions) { c.Tls.CaFile = ca.Path("stranger.crt") })
		refused(name+"/another name", store, func(c *testOptions) { c.Tls.ServerName = "other.test" })
		refused(name+"/no client certificate", store, func(c *testOptions) { c.Tls.CertFile, c.Tls.KeyFile = "", "" })
		refused(name+"/plaintext client", store, func(c *testOptions) { c.Tls.Enabled = false })
	}
	refused("sentinel/expired certificate", sentinel(ca.startSentinel(t, "expired", primary)))
	refused("sentinel/expired certificate of the primary", sentinel(ca.startSentinel(t, "server", expired)))
	refused("sentinel/plaintext port", onSentinel(plainSet))
	refused("sentinel/plaintext port of the primary", sentinel(ca.startSentinel(t, "server", plain.Addr())))
	refused("cluster/expired certificate", onCluster(ca.startCluster(t, "expired", 1)))
	refused("cluster/plaintext port", onCluster(redistest.StartCluster(t, redistest.ClusterOptions{Primaries: 1}).Addrs()))
}
