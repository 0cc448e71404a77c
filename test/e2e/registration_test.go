package e2e

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/go-kratos/kratos/contrib/registry/consul/v2"
	"github.com/go-kratos/kratos/contrib/registry/etcd/v2"
	"github.com/go-kratos/kratos/v2/registry"
	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	"podlink/client"
	consultest "podlink/test/kit/consul"
	etcdtest "podlink/test/kit/etcd"
)

// discoveryTimeout bounds how long podlink may be undiscoverable after its registry is back.
const discoveryTimeout = 10 * time.Second

// TestKratosClientsFindPodlinkInEtcd runs findByName on etcd.
func TestKratosClientsFindPodlinkInEtcd(t *testing.T) {
	server := etcdtest.Start(t)
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{server.Addr}, Logger: zap.NewNop()})
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	findByName(t, "etcd", server.Addr, server.RestartEmpty, func() registry.Discovery { return etcd.New(client) })
}

// TestKratosClientsFindPodlinkInConsul runs findByName on Consul.
func TestKratosClientsFindPodlinkInConsul(t *testing.T) {
	agent := consultest.Start(t)
	client, err := api.NewClient(&api.Config{Address: agent.Addr})
	require.NoError(t, err)
	findByName(t, "consul", agent.Addr, agent.RestartEmpty, func() registry.Discovery { return consul.New(client) })
}

// findByName checks that Kratos clients find podlink by discovery:///podlink, that podlink registers again after the registry has
// lost its data, and that a draining podlink deregisters but still serves.
func findByName(t *testing.T, kind, addr string, loseAll func(), discovery func() registry.Discovery) {
	t.Helper()
	p := start(t, "PODLINK_DATA_REDIS_ALLOW_EMBEDDED=true", "PODLINK_REGISTRY_TYPE="+kind, "PODLINK_REGISTRY_ADDRS="+addr,
		"PODLINK_REGISTRY_METADATA=zone=a", "PODLINK_SERVER_STOP_DRAIN=2s")
	find := func() []*registry.ServiceInstance {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		instances, err := discovery().GetService(ctx, "podlink")
		if err != nil {
			return nil
		}
		return instances
	}
	found := func() bool { return len(find()) == 1 }
	require.Eventually(t, found, discoveryTimeout, 20*time.Millisecond)
	instance := find()[0]
	require.ElementsMatch(t, []string{"http://" + p.HTTP, "grpc://" + p.GRPC}, instance.Endpoints)
	require.Equal(t, "a", instance.Metadata["zone"])

	ctx, cancel := context.WithTimeout(t.Context(), discoveryTimeout)
	defer cancel()
	conn, err := kgrpc.DialInsecure(ctx, kgrpc.WithEndpoint("discovery:///podlink"), kgrpc.WithDiscovery(discovery()),
		kgrpc.WithPrintDiscoveryDebugLog(false))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	links := v1.NewLinkServiceClient(conn)
	_, err = links.SetLinkedPod(ctx, &v1.SetLinkedPodRequest{Namespace: "game", Uid: "alice", Service: "room", PodId: proto.Int32(2)})
	require.NoError(t, err)

	loseAll()
	require.Eventually(t, found, discoveryTimeout, 20*time.Millisecond, "it registers again")

	direct := v1.NewLinkServiceClient(p.Conn(t))
	p.Terminate(t)
	require.Eventually(t, func() bool { return len(find()) == 0 }, time.Second, 10*time.Millisecond, "it deregisters")
	_, err = direct.GetLinkedPod(t.Context(), &v1.GetLinkedPodRequest{Namespace: "game", Uid: "alice", Service: "room"})
	require.NoError(t, err, "it still serves connected callers")
	require.Zero(t, p.Wait(t))
	require.Contains(t, p.Log.String(), "podlink is deregistered")
}

// TestStartsWithoutItsRegistry: podlink is ready even if its registry is down.
func TestStartsWithoutItsRegistry(t *testing.T) {
	server := etcdtest.Start(t)
	server.Kill()
	p := start(t, "PODLINK_DATA_REDIS_ALLOW_EMBEDDED=true", "PODLINK_REGISTRY_TYPE=etcd", "PODLINK_REGISTRY_ADDRS="+server.Addr)
	p.WaitReady(t)
	require.Less(t, time.Since(p.Started), 2*time.Second)
	p.Log.Wait(t, "registry unavailable: podlink may be undiscoverable")
	require.Zero(t, p.Stop(t))
}

// TestClientsFindPodlinkOverTLS: its endpoints are grpcs:// and https://, which Kratos clients with TLS look for.
func TestClientsFindPodlinkOverTLS(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	found, err := clientv3.New(clientv3.Config{Endpoints: []string{server.Addr}, Logger: zap.NewNop()})
	require.NoError(t, err)
	t.Cleanup(func() { _ = found.Close() })
	ca := newCA(t)
	p := start(t, slices.Concat(listenerTLS("HTTP", ca, "require"), listenerTLS("GRPC", ca, "require"), []string{
		"PODLINK_DATA_REDIS_ALLOW_EMBEDDED=true", "PODLINK_REGISTRY_TYPE=etcd", "PODLINK_REGISTRY_ADDRS=" + server.Addr,
	})...)
	var instances []*registry.ServiceInstance
	require.Eventually(t, func() bool {
		instances, err = etcd.New(found).GetService(t.Context(), "podlink")
		return err == nil && len(instances) == 1
	}, discoveryTimeout, 20*time.Millisecond)
	require.ElementsMatch(t, []string{"https://" + p.HTTP, "grpcs://" + p.GRPC}, instances[0].Endpoints)
	for _, http := range []bool{false, true} {
		o := client.Options{
			Discovery: etcd.New(found), HTTP: http, Timeout: patience,
			CAFile: ca.Path("ca.crt"), CertFile: ca.Path("client.crt"), KeyFile: ca.Path("client.key"), ServerName: "localhost",
		}
		c, err := client.New("discovery:///podlink", o)
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		_, err = c.GetLinkedPod(t.Context(), &v1.GetLinkedPodRequest{Namespace: "game", Uid: "alice", Service: "room"})
		require.NoError(t, err)
	}
}
