package registration

import (
	"context"
	"slices"
	"testing"

	"github.com/go-kratos/kratos/contrib/registry/consul/v2"
	"github.com/go-kratos/kratos/contrib/registry/etcd/v2"
	"github.com/go-kratos/kratos/v2/registry"
	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/protobuf/types/known/durationpb"

	"podlink/internal/conf"
	consultest "podlink/test/kit/consul"
	etcdtest "podlink/test/kit/etcd"
	kubetest "podlink/test/kit/kube"
)

// testRegistry is a registry of one type, with the faults that tests inject.
type testRegistry interface {
	Kill()
	Restart()
	RestartEmpty()
	// find returns what Kratos clients discover; the registry must be up.
	find(t *testing.T) []*registry.ServiceInstance
	// remove deletes the entry, as an operator may by mistake.
	remove(t *testing.T)
	// protect makes the registry require a secret, and returns it.
	protect(t *testing.T) string
	// open returns a backend with the secret; empty: with the one that the registry requires by default, if any.
	open(t *testing.T, secret string) backend
}

// registries are the supported registries. All of them pass the same tests.
var registries = map[string]func(t *testing.T) testRegistry{
	"etcd":       func(t *testing.T) testRegistry { return &onEtcd{Server: etcdtest.Start(t)} },
	"consul":     func(t *testing.T) testRegistry { return &onConsul{Server: consultest.Start(t)} },
	"kubernetes": func(t *testing.T) testRegistry { return onKubernetes{kubetest.Start(t)} },
}

// onEach runs the test with each registry.
func onEach(t *testing.T, test func(t *testing.T, server testRegistry)) {
	for name, start := range registries {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, start(t))
		})
	}
}

// openBackend returns the backend for a default configuration of that type, changed by change.
func openBackend(t *testing.T, kind, addr string, change func(*conf.Registry)) backend {
	t.Helper()
	c := conf.Default()
	c.Data.Redis.AllowEmbedded = true
	c.Registry.Type, c.Registry.Addrs, c.Registry.Ttl = kind, []string{addr}, durationpb.New(ttl)
	change(c.Registry)
	require.NoError(t, c.Validate())
	b, err := newBackend(c.Registry, nil)
	require.NoError(t, err)
	return b
}

type onEtcd struct {
	*etcdtest.Server
	admin *clientv3.Client // nil: no password is required
}

func (r *onEtcd) client(t *testing.T) *clientv3.Client {
	t.Helper()
	if r.admin != nil {
		return r.admin
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{r.Addr}, Logger: zap.NewNop()})
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func (r *onEtcd) find(t *testing.T) []*registry.ServiceInstance {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), discoveryTimeout)
	defer cancel()
	instances, err := etcd.New(r.client(t)).GetService(ctx, "podlink")
	require.NoError(t, err)
	return instances
}

func (r *onEtcd) remove(t *testing.T) {
	t.Helper()
	_, err := r.client(t).Delete(t.Context(), "/microservices/podlink/podlink-0")
	require.NoError(t, err)
}

func (r *onEtcd) protect(*testing.T) string {
	r.admin = r.RequirePassword("root", "password-nobody-sees")
	return "password-nobody-sees"
}

func (r *onEtcd) open(t *testing.T, secret string) backend {
	t.Helper()
	return openBackend(t, conf.RegistryEtcd, r.Addr, func(c *conf.Registry) {
		if secret != "" {
			c.Username, c.Password = "root", secret
		}
	})
}

type onConsul struct {
	*consultest.Server
	token string
}

func (r *onConsul) find(t *testing.T) []*registry.ServiceInstance {
	t.Helper()
	plain := newHTTPClient(nil)
	defer plain.CloseIdleConnections()
	client, err := api.NewClient(&api.Config{Address: r.Addr, Token: r.token, HttpClient: plain})
	require.NoError(t, err)
	_, err = client.Raw().Query("/v1/health/service/podlink", new(any), nil)
	require.NoError(t, err)
	instances, _ := consul.New(client).GetService(t.Context(), "podlink") // Kratos returns an error for no instances.
	for _, instance := range instances {
		slices.Sort(instance.Endpoints)
	}
	return instances
}

func (r *onConsul) remove(*testing.T) { r.Remove(instance.ID) }

func (r *onConsul) protect(*testing.T) string {
	r.token = "token-nobody-sees"
	r.RequireToken(r.token)
	return r.token
}

func (r *onConsul) open(t *testing.T, secret string) backend {
	t.Helper()
	return openBackend(t, conf.RegistryConsul, r.Addr, func(c *conf.Registry) { c.Token = secret })
}

type onKubernetes struct{ *kubetest.Server }

func (r onKubernetes) find(*testing.T) []*registry.ServiceInstance {
	instances := r.Find("podlink")
	for _, instance := range instances {
		slices.Sort(instance.Endpoints)
	}
	return instances
}

func (r onKubernetes) remove(*testing.T) { r.RemoveMarks() }

func (onKubernetes) protect(*testing.T) string { return kubetest.Token }

func (r onKubernetes) open(t *testing.T, secret string) backend {
	t.Helper()
	if secret == "" {
		secret = kubetest.Token
	}
	b, err := newKubernetes(r.Mount(t, secret), nil, r.Env)
	require.NoError(t, err)
	return b
}
