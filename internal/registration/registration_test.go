package registration

import (
	"context"
	"testing"
	"time"

	"github.com/go-kratos/kratos/contrib/registry/etcd/v2"
	"github.com/go-kratos/kratos/v2/registry"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"google.golang.org/protobuf/types/known/durationpb"

	"podlink/internal/conf"
	"podlink/internal/logging"
	"podlink/test/etcdtest"
	"podlink/test/logwatch"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// foundLimit bounds how long podlink is not to be found after its registry is back.
const foundLimit = 10 * time.Second

var instance = &registry.ServiceInstance{
	ID: "podlink-0", Name: "podlink", Version: "v1", Metadata: map[string]string{"zone": "a"},
	Endpoints: []string{"http://127.0.0.1:8000", "grpc://127.0.0.1:9000"},
}

// keeping returns a keeper with a short ttl on the etcd, and its log.
func keeping(t *testing.T, server *etcdtest.Server, change ...func(*conf.Registry)) (*Keeper, *logwatch.Log) {
	t.Helper()
	c := conf.Default()
	c.Registry.Type, c.Registry.Addrs, c.Registry.Ttl = conf.RegistryEtcd, []string{server.Addr}, durationpb.New(5*time.Second)
	for _, f := range change {
		f(c.Registry)
	}
	require.NoError(t, c.Validate())
	lines := new(logwatch.Log)
	keeper, closeKeeper, err := NewKeeper(c.Registry, logging.New(c.Log, logging.NewLevel("debug"), lines))
	require.NoError(t, err)
	t.Cleanup(closeKeeper)
	return keeper, lines
}

// found asks the registry as Kratos clients do; it has to answer.
func found(t *testing.T, server *etcdtest.Server) []*registry.ServiceInstance {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{server.Addr}, Logger: zap.NewNop()})
	require.NoError(t, err)
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), foundLimit)
	defer cancel()
	known, err := etcd.New(client).GetService(ctx, "podlink")
	require.NoError(t, err)
	return known
}

func waitFound(t *testing.T, server *etcdtest.Server) {
	t.Helper()
	require.Eventually(t, func() bool { return len(found(t, server)) == 1 }, foundLimit, 50*time.Millisecond)
}

func TestRegistered(t *testing.T) {
	server := etcdtest.Start(t)
	keeper, lines := keeping(t, server)
	require.Empty(t, found(t, server))
	require.NoError(t, keeper.Register(t.Context(), instance))
	waitFound(t, server)
	require.Equal(t, []*registry.ServiceInstance{instance}, found(t, server))
	lines.Wait(t, "podlink is registered as podlink: http://127.0.0.1:8000 grpc://127.0.0.1:9000")

	time.Sleep(6 * time.Second)
	require.Len(t, found(t, server), 1, "it is kept for longer than its ttl")
	require.NoError(t, keeper.Leave(t.Context()))
	require.Empty(t, found(t, server), "at once")
	require.Contains(t, lines.String(), "podlink is deregistered")
	require.NoError(t, keeper.Deregister(t.Context(), instance), "a second time")
}

// TestRegistryAway: podlink starts and stops without its registry, and is found soon after that is there.
func TestRegistryAway(t *testing.T) {
	server := etcdtest.Start(t)
	server.Kill()
	keeper, lines := keeping(t, server)
	begin := time.Now()
	require.NoError(t, keeper.Register(t.Context(), instance))
	require.Less(t, time.Since(begin), time.Second)
	lines.Wait(t, "podlink is perhaps not to be found")
	server.Restart()
	waitFound(t, server)
	server.Kill()
	begin = time.Now()
	require.NoError(t, keeper.Leave(t.Context()))
	require.Less(t, time.Since(begin), askLimit+lookInterval)
	require.Contains(t, lines.String(), "podlink could not be deregistered")
}

// TestRegistryComesBack: whatever became of the registration, podlink is found within seconds.
func TestRegistryComesBack(t *testing.T) {
	for name, fault := range map[string]func(t *testing.T, server *etcdtest.Server){
		"killed, with its data": func(_ *testing.T, server *etcdtest.Server) { server.Restart() },
		"killed, without":       func(_ *testing.T, server *etcdtest.Server) { server.RestartEmpty() },
		"away for longer than the ttl": func(_ *testing.T, server *etcdtest.Server) {
			server.Kill()
			time.Sleep(8 * time.Second)
			server.Restart()
		},
		"away for longer than Kratos tries": func(_ *testing.T, server *etcdtest.Server) {
			server.Kill()
			time.Sleep(20 * time.Second)
			server.RestartEmpty()
		},
		"the key is deleted": func(t *testing.T, server *etcdtest.Server) {
			client, err := clientv3.New(clientv3.Config{Endpoints: []string{server.Addr}, Logger: zap.NewNop()})
			require.NoError(t, err)
			defer client.Close()
			_, err = client.Delete(t.Context(), "/microservices/podlink/podlink-0")
			require.NoError(t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := etcdtest.Start(t)
			keeper, lines := keeping(t, server)
			require.NoError(t, keeper.Register(t.Context(), instance))
			waitFound(t, server)
			lines.Wait(t, "podlink is registered")
			fault(t, server)
			waitFound(t, server)
			time.Sleep(12 * time.Second) // What is left of the first registration has expired.
			require.Len(t, found(t, server), 1, "and stays")
			require.NoError(t, keeper.Leave(t.Context()))
			require.Empty(t, found(t, server))
			time.Sleep(6 * time.Second)
			require.Empty(t, found(t, server), "no heartbeat brings it back")
		})
	}
}

// TestRegistryWithPasswords: the right one registers, a wrong one is told and never shown, and none makes podlink wait for a
// registry that is away.
func TestRegistryWithPasswords(t *testing.T) {
	const password, wrong = "password-nobody-sees", "guess-nobody-sees"
	server := etcdtest.Start(t)
	admin := server.RequirePassword("root", password)
	for name, row := range map[string]struct {
		password string
		ok       bool
	}{"right": {password, true}, "wrong": {wrong, false}, "none": {"", false}} {
		t.Run(name, func(t *testing.T) {
			keeper, lines := keeping(t, server, func(c *conf.Registry) {
				if row.password != "" {
					c.Username, c.Password = "root", row.password
				}
			})
			require.NoError(t, keeper.Register(t.Context(), instance))
			if !row.ok {
				lines.Wait(t, "podlink is perhaps not to be found")
				require.NotContains(t, lines.String(), wrong)
				return
			}
			lines.Wait(t, "podlink is registered")
			keys, err := admin.Get(t.Context(), "/microservices/podlink/podlink-0")
			require.NoError(t, err)
			require.Len(t, keys.Kvs, 1)
			require.NoError(t, keeper.Leave(t.Context()))
		})
	}
	server.Kill()
	begin := time.Now()
	keeper, lines := keeping(t, server, func(c *conf.Registry) { c.Username, c.Password = "root", password })
	require.NoError(t, keeper.Register(t.Context(), instance))
	require.Less(t, time.Since(begin), time.Second)
	lines.Wait(t, "podlink is perhaps not to be found")
	require.NotContains(t, lines.String(), password)
}

func TestNoRegistry(t *testing.T) {
	c := conf.Default()
	keeper, closeKeeper, err := NewKeeper(c.Registry, logging.New(c.Log, logging.NewLevel("debug"), new(logwatch.Log)))
	require.NoError(t, err)
	defer closeKeeper()
	require.NoError(t, keeper.Register(t.Context(), instance))
	require.NoError(t, keeper.Leave(t.Context()))
}

func TestSettings(t *testing.T) {
	c := &conf.Registry{Endpoints: []string{"grpc://10.0.0.1:9000", "http://10.0.0.1:8000"}, Metadata: []string{"zone=a", "empty="}}
	require.Equal(t, map[string]string{"zone": "a", "empty": ""}, conf.Pairs(c.GetMetadata()))
	endpoints, err := Endpoints(c)
	require.NoError(t, err)
	require.Equal(t, "grpc://10.0.0.1:9000", endpoints[0].String())
	_, err = Endpoints(&conf.Registry{Endpoints: []string{"grpc://%zz:1"}})
	require.ErrorContains(t, err, "registry.endpoints[0]")
	_, _, err = NewKeeper(&conf.Registry{Type: conf.RegistryEtcd, Tls: &conf.TLS{Enabled: true, CaFile: "/absent"}}, nil)
	require.ErrorContains(t, err, "registry.tls.ca_file")
}
