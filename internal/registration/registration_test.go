package registration

import (
	"context"
	"crypto/tls"
	"flag"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-kratos/kratos/contrib/registry/consul/v2"
	"github.com/go-kratos/kratos/contrib/registry/etcd/v2"
	"github.com/go-kratos/kratos/v2/registry"
	"github.com/hashicorp/consul/api"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"google.golang.org/protobuf/types/known/durationpb"

	"podlink/internal/conf"
	"podlink/internal/telemetry"
	consultest "podlink/test/kit/consul"
	etcdtest "podlink/test/kit/etcd"
	kubetest "podlink/test/kit/kube"
	"podlink/test/kit/logwatch"
	tlstest "podlink/test/kit/tls"
)

func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "16") // These tests wait, and do not compute. The command line may say otherwise.
	goleak.VerifyTestMain(m)
}

const (
	// foundLimit bounds how long podlink is not to be found after its registry is back.
	foundLimit = 10 * time.Second
	// ttl is what registrations have in these tests.
	ttl = 5 * time.Second
	// wrong is no password and no token of anything.
	wrong = "guess-nobody-sees"
)

var instance = &registry.ServiceInstance{
	ID: "podlink-0", Name: "podlink", Version: "v1", Metadata: map[string]string{"zone": "a"},
	Endpoints: []string{"grpc://127.0.0.1:9000", "http://127.0.0.1:8000"},
}

// testRegistry is a registry of one type, whose data can be lost.
type testRegistry interface {
	Kill()
	Restart()
	RestartEmpty()
	// find asks as Kratos clients do; the registry has to answer.
	find(t *testing.T) []*registry.ServiceInstance
	// remove does what an operator may do by mistake.
	remove(t *testing.T)
	// protect makes the registry ask for a secret, and returns that.
	protect(t *testing.T) string
	// open returns a backend that has the secret; empty: the one it needs, if it needs one.
	open(t *testing.T, secret string) backend
}

// registries are those that podlink knows. All of them pass the same tests.
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

// opened returns the backend for a configuration of the type.
func opened(t *testing.T, kind, addr string, change func(*conf.Registry)) backend {
	t.Helper()
	c := conf.Default()
	c.Registry.Type, c.Registry.Addrs, c.Registry.Ttl = kind, []string{addr}, durationpb.New(ttl)
	change(c.Registry)
	require.NoError(t, c.Validate())
	b, err := newBackend(c.Registry)
	require.NoError(t, err)
	return b
}

type onEtcd struct {
	*etcdtest.Server
	admin *clientv3.Client // nil: no password is asked for
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
	ctx, cancel := context.WithTimeout(t.Context(), foundLimit)
	defer cancel()
	known, err := etcd.New(r.client(t)).GetService(ctx, "podlink")
	require.NoError(t, err)
	return known
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
	return opened(t, conf.RegistryEtcd, r.Addr, func(c *conf.Registry) {
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
	known, _ := consul.New(client).GetService(t.Context(), "podlink") // That there is none is an error of Kratos'.
	for _, instance := range known {
		slices.Sort(instance.Endpoints)
	}
	return known
}

func (r *onConsul) remove(*testing.T) { r.Remove(instance.ID) }

func (r *onConsul) protect(*testing.T) string {
	r.token = "token-nobody-sees"
	r.RequireToken(r.token)
	return r.token
}

func (r *onConsul) open(t *testing.T, secret string) backend {
	t.Helper()
	return opened(t, conf.RegistryConsul, r.Addr, func(c *conf.Registry) { c.Token = secret })
}

type onKubernetes struct{ *kubetest.Server }

func (r onKubernetes) find(*testing.T) []*registry.ServiceInstance {
	known := r.Find("podlink")
	for _, instance := range known {
		slices.Sort(instance.Endpoints)
	}
	return known
}

func (r onKubernetes) remove(*testing.T) { r.RemoveMarks() }

func (onKubernetes) protect(*testing.T) string { return kubetest.Token }

func (r onKubernetes) open(t *testing.T, secret string) backend {
	t.Helper()
	if secret == "" {
		secret = kubetest.Token
	}
	b, err := newKubernetes(os.DirFS(r.Mount(t, secret)), r.Env)
	require.NoError(t, err)
	return b
}

// keeping returns a keeper on the backend, and its log.
func keeping(t *testing.T, b backend) (*Keeper, *logwatch.Log) {
	t.Helper()
	lines := new(logwatch.Log)
	keeper := newKeeper(b, telemetry.NewLogger(conf.Default().Log, telemetry.NewLogLevel("debug"), lines))
	t.Cleanup(keeper.close)
	return keeper, lines
}

// registered is the value of the metric; a test that asks for one has one.
func registered(keeper *Keeper) float64 { return testutil.ToFloat64(keeper) }

func waitFound(t *testing.T, server testRegistry) {
	t.Helper()
	require.Eventually(t, func() bool { return len(server.find(t)) == 1 }, foundLimit, 50*time.Millisecond)
}

func TestRegistered(t *testing.T) {
	onEach(t, func(t *testing.T, server testRegistry) {
		keeper, lines := keeping(t, server.open(t, ""))
		require.Empty(t, server.find(t))
		require.Zero(t, registered(keeper))
		require.NoError(t, keeper.Register(t.Context(), instance))
		lines.Wait(t, "podlink is registered as podlink: grpc://127.0.0.1:9000 http://127.0.0.1:8000")
		require.Equal(t, []*registry.ServiceInstance{instance}, server.find(t))
		require.EqualValues(t, 1, registered(keeper))

		for range 6 {
			time.Sleep(time.Second)
			require.Len(t, server.find(t), 1, "it is kept for longer than its ttl")
		}
		require.NoError(t, keeper.Leave(t.Context()))
		require.Empty(t, server.find(t), "at once")
		require.Zero(t, registered(keeper))
		require.Regexp(t, `^[^\n]*podlink is registered[^\n]*\n[^\n]*podlink is deregistered[^\n]*\n$`, lines.String(), "two lines")
		require.NoError(t, keeper.Deregister(t.Context(), instance), "a second time")
		time.Sleep(ttl + lookInterval)
		require.Empty(t, server.find(t), "no heartbeat brings it back")
	})
}

// TestDied: who does not leave is found until the ttl is over, where there is one.
func TestDied(t *testing.T) {
	onEach(t, func(t *testing.T, server testRegistry) {
		if _, ok := server.(onKubernetes); ok {
			t.Skip("a pod has its labels for as long as it is there")
		}
		keeper, lines := keeping(t, server.open(t, ""))
		require.NoError(t, keeper.Register(t.Context(), instance))
		lines.Wait(t, "podlink is registered")
		keeper.close()
		require.Len(t, server.find(t), 1)
		require.Eventually(t, func() bool { return len(server.find(t)) == 0 }, 2*ttl, 50*time.Millisecond)
	})
}

// TestRegistryAway: podlink starts and stops without its registry, and is found soon after that is there. Each is told once.
func TestRegistryAway(t *testing.T) {
	onEach(t, func(t *testing.T, server testRegistry) {
		server.Kill()
		keeper, lines := keeping(t, server.open(t, ""))
		begin := time.Now()
		require.NoError(t, keeper.Register(t.Context(), instance))
		require.Less(t, time.Since(begin), time.Second)
		lines.Wait(t, "podlink is perhaps not to be found")
		time.Sleep(2 * lookInterval)
		server.Restart()
		waitFound(t, server)
		lines.Wait(t, "podlink is registered")
		require.Regexp(t, `^[^\n]*perhaps[^\n]*\n[^\n]*podlink is registered[^\n]*\n$`, lines.String(), "two lines")
		require.EqualValues(t, 1, registered(keeper))

		server.Kill()
		require.Eventually(t, func() bool { return registered(keeper) == 0 }, foundLimit, 50*time.Millisecond)
		begin = time.Now()
		require.NoError(t, keeper.Leave(t.Context()))
		require.Less(t, time.Since(begin), askLimit+lookInterval)
		require.Contains(t, lines.String(), "podlink could not be deregistered")
	})
}

// TestRegistryNeverThere: podlink does not wait at its end for what it has never met.
func TestRegistryNeverThere(t *testing.T) {
	onEach(t, func(t *testing.T, server testRegistry) {
		server.Kill()
		keeper, lines := keeping(t, server.open(t, ""))
		require.NoError(t, keeper.Register(t.Context(), instance))
		lines.Wait(t, "podlink is perhaps not to be found")
		begin := time.Now()
		require.NoError(t, keeper.Leave(t.Context()))
		require.Less(t, time.Since(begin), time.Second)
		require.NotContains(t, lines.String(), "deregistered")
	})
}

// TestRegistryComesBack: whatever became of the registration, podlink is found within seconds.
func TestRegistryComesBack(t *testing.T) {
	for name, fault := range map[string]func(t *testing.T, server testRegistry){
		"killed, with its data": func(_ *testing.T, server testRegistry) { server.Restart() },
		"killed, without":       func(_ *testing.T, server testRegistry) { server.RestartEmpty() },
		"away for longer than the ttl": func(_ *testing.T, server testRegistry) {
			server.Kill()
			time.Sleep(ttl + 3*time.Second)
			server.Restart()
		},
		"away for longer than Kratos tries": func(_ *testing.T, server testRegistry) {
			server.Kill()
			time.Sleep(20 * time.Second)
			server.RestartEmpty()
		},
		"the entry is removed": func(t *testing.T, server testRegistry) { server.remove(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onEach(t, func(t *testing.T, server testRegistry) {
				keeper, lines := keeping(t, server.open(t, ""))
				require.NoError(t, keeper.Register(t.Context(), instance))
				waitFound(t, server)
				lines.Wait(t, "podlink is registered")
				fault(t, server)
				waitFound(t, server)
				time.Sleep(12 * time.Second) // What is left of the first registration has expired.
				require.Len(t, server.find(t), 1, "and stays")
				require.EqualValues(t, 1, registered(keeper))
				require.NoError(t, keeper.Leave(t.Context()))
				require.Empty(t, server.find(t))
				time.Sleep(ttl + time.Second)
				require.Empty(t, server.find(t), "no heartbeat brings it back")
			})
		})
	}
}

// TestRegistryWithSecrets: the right one registers, a wrong one is told and never shown, and none makes podlink wait for a
// registry that is away.
func TestRegistryWithSecrets(t *testing.T) {
	onEach(t, func(t *testing.T, server testRegistry) {
		secret := server.protect(t)
		keeper, lines := keeping(t, server.open(t, wrong))
		require.NoError(t, keeper.Register(t.Context(), instance))
		lines.Wait(t, "podlink is perhaps not to be found")
		require.Empty(t, server.find(t))
		require.NoError(t, keeper.Leave(t.Context()))
		require.NotContains(t, lines.String(), wrong)

		keeper, lines = keeping(t, server.open(t, secret))
		require.NoError(t, keeper.Register(t.Context(), instance))
		lines.Wait(t, "podlink is registered")
		require.Len(t, server.find(t), 1)
		require.NoError(t, keeper.Leave(t.Context()))
		require.Empty(t, server.find(t))
		require.NotContains(t, lines.String(), secret)

		server.Kill()
		keeper, lines = keeping(t, server.open(t, secret))
		begin := time.Now()
		require.NoError(t, keeper.Register(t.Context(), instance))
		require.Less(t, time.Since(begin), time.Second)
		lines.Wait(t, "podlink is perhaps not to be found")
		require.NotContains(t, lines.String(), secret)
	})
}

func TestNoRegistry(t *testing.T) {
	c := conf.Default()
	keeper, closeKeeper, err := NewKeeper(c.Registry, telemetry.NewLogger(c.Log, telemetry.NewLogLevel("debug"), new(logwatch.Log)))
	require.NoError(t, err)
	defer closeKeeper()
	require.NoError(t, keeper.Register(t.Context(), instance))
	require.NoError(t, keeper.Leave(t.Context()))
	require.Zero(t, testutil.CollectAndCount(keeper), "no metric, or an alert would look at it")
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

func TestVersionsAsLabels(t *testing.T) {
	for version, label := range map[string]string{
		"v1.2.3": "v1.2.3", "v1.2.3+build": "v1.2.3_build", "": "", "-dirty": "dirty",
		"v" + string(make([]byte, 70)) + "x": "v",
	} {
		require.Equal(t, label, labelValue(version), version)
	}
}

func TestOutsideOfAPod(t *testing.T) {
	none := func(string) string { return "" }
	_, err := newKubernetes(os.DirFS(t.TempDir()), none)
	require.ErrorContains(t, err, "registry.type: kubernetes works in a pod only")
	_, err = newKubernetes(os.DirFS(t.TempDir()), func(name string) string { return name })
	require.ErrorContains(t, err, "registry.type: kubernetes needs a service account")
}

// TestConsulBehindAProxy: over HTTPS, and with a user of the proxy's beside Consul's token.
func TestConsulBehindAProxy(t *testing.T) {
	agent := consultest.Start(t)
	agent.RequireToken("token-nobody-sees")
	authority := tlstest.New(t, t.TempDir(), "ca")
	authority.Sign(t, "proxy", "consul.test", time.Time{})
	certificate, err := tls.LoadX509KeyPair(authority.Path("proxy.crt"), authority.Path("proxy.key"))
	require.NoError(t, err)
	forward := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: agent.Addr})
	proxy := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "podlink" || password != "password-nobody-sees" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		forward.ServeHTTP(w, r)
	}))
	proxy.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	proxy.StartTLS()
	t.Cleanup(func() {
		proxy.Close()
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	})
	for password, line := range map[string]string{"password-nobody-sees": "podlink is registered", wrong: "perhaps not to be found.* 401 "} {
		keeper, lines := keeping(t, opened(t, conf.RegistryConsul, proxy.Listener.Addr().String(), func(c *conf.Registry) {
			c.Token, c.Username, c.Password = "token-nobody-sees", "podlink", password
			c.Tls = &conf.TLS{Enabled: true, CaFile: authority.Path("ca.crt"), ServerName: "consul.test"}
		}))
		require.NoError(t, keeper.Register(t.Context(), instance))
		lines.Wait(t, line)
		require.NoError(t, keeper.Leave(t.Context()))
		require.NotRegexp(t, "nobody-sees", lines.String())
	}
}

// TestRegistryHangs: a registry that takes connections and never answers is told like one that is away, and holds up nothing.
func TestRegistryHangs(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = silent.Close() })
	addr := silent.Addr().String()
	kube := kubetest.Start(t)
	inPod, err := newKubernetes(os.DirFS(kube.Mount(t, kubetest.Token)), func(name string) string {
		if name == "KUBERNETES_SERVICE_PORT" {
			return strings.TrimPrefix(addr, "127.0.0.1:")
		}
		return kube.Env(name)
	})
	require.NoError(t, err)
	same := func(*conf.Registry) {}
	for name, b := range map[string]backend{
		"etcd":       opened(t, conf.RegistryEtcd, addr, same),
		"consul":     opened(t, conf.RegistryConsul, addr, same),
		"kubernetes": inPod,
	} {
		t.Run(name, func(t *testing.T) {
			keeper, lines := keeping(t, b)
			require.NoError(t, keeper.Register(t.Context(), instance))
			begin := time.Now()
			lines.Wait(t, "podlink is perhaps not to be found")
			require.Less(t, time.Since(begin), askLimit+time.Second)
			begin = time.Now()
			require.NoError(t, keeper.Leave(t.Context()))
			require.Less(t, time.Since(begin), time.Second)
		})
	}
}
