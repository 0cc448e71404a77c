package registration

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-kratos/kratos/v2/registry"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"podlink/internal/conf"
	"podlink/internal/telemetry"
	consultest "podlink/test/kit/consul"
	kubetest "podlink/test/kit/kube"
	"podlink/test/kit/logwatch"
	tlstest "podlink/test/kit/tls"
)

func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "16") // These tests mostly wait. A flag on the command line overrides it.
	goleak.VerifyTestMain(m)
}

const (
	// discoveryTimeout bounds how long callers do not find podlink after its registry is back.
	discoveryTimeout = 10 * time.Second
	// ttl is the TTL of registrations in these tests.
	ttl = 5 * time.Second
	// wrongSecret is an invalid password, and an invalid token.
	wrongSecret = "guess-nobody-sees"
)

var instance = &registry.ServiceInstance{
	ID: "podlink-0", Name: "podlink", Version: "v1", Metadata: map[string]string{"zone": "a"},
	Endpoints: []string{"grpc://127.0.0.1:9000", "http://127.0.0.1:8000"},
}

// startRegistrar returns a registrar on the backend, and its log.
func startRegistrar(t *testing.T, b backend) (*Registrar, *logwatch.Log) {
	t.Helper()
	lines := new(logwatch.Log)
	registrar := newRegistrar(b, telemetry.NewLogger(conf.Default().Log, telemetry.NewLogLevel("debug"), lines))
	t.Cleanup(registrar.close)
	return registrar, lines
}

// registeredMetric returns the value of podlink_registered.
func registeredMetric(registrar *Registrar) float64 { return testutil.ToFloat64(registrar) }

func waitFound(t *testing.T, server testRegistry) {
	t.Helper()
	require.Eventually(t, func() bool { return len(server.find(t)) == 1 }, discoveryTimeout, 50*time.Millisecond)
}

func TestRegisterAndStop(t *testing.T) {
	onEach(t, func(t *testing.T, server testRegistry) {
		registrar, lines := startRegistrar(t, server.open(t, ""))
		require.Empty(t, server.find(t))
		require.Zero(t, registeredMetric(registrar))
		require.NoError(t, registrar.Register(t.Context(), instance))
		lines.Wait(t, "podlink is registered as podlink: grpc://127.0.0.1:9000 http://127.0.0.1:8000")
		require.Equal(t, []*registry.ServiceInstance{instance}, server.find(t))
		require.EqualValues(t, 1, registeredMetric(registrar))

		for range 6 {
			time.Sleep(time.Second)
			require.Len(t, server.find(t), 1, "it stays registered for longer than its ttl")
		}
		require.NoError(t, registrar.Stop(t.Context()))
		require.Empty(t, server.find(t), "at once")
		require.Zero(t, registeredMetric(registrar))
		require.Regexp(t, `^[^\n]*podlink is registered[^\n]*\n[^\n]*podlink is deregistered[^\n]*\n$`, lines.String(), "two lines")
		require.NoError(t, registrar.Deregister(t.Context(), instance), "a second time")
		time.Sleep(ttl + checkInterval)
		require.Empty(t, server.find(t), "no heartbeat brings it back")
	})
}

// TestProcessDies: an instance that is not deregistered expires after the ttl, where there is one.
func TestProcessDies(t *testing.T) {
	onEach(t, func(t *testing.T, server testRegistry) {
		if _, ok := server.(onKubernetes); ok {
			t.Skip("a pod has its labels until it is deleted")
		}
		registrar, lines := startRegistrar(t, server.open(t, ""))
		require.NoError(t, registrar.Register(t.Context(), instance))
		lines.Wait(t, "podlink is registered")
		registrar.close()
		require.Len(t, server.find(t), 1)
		require.Eventually(t, func() bool { return len(server.find(t)) == 0 }, 2*ttl, 50*time.Millisecond)
	})
}

// TestRegistryDown: podlink starts and stops without its registry, and registers soon after it is back. Each is logged once.
func TestRegistryDown(t *testing.T) {
	onEach(t, func(t *testing.T, server testRegistry) {
		server.Kill()
		registrar, lines := startRegistrar(t, server.open(t, ""))
		begin := time.Now()
		require.NoError(t, registrar.Register(t.Context(), instance))
		require.Less(t, time.Since(begin), time.Second)
		lines.Wait(t, "registry unavailable: podlink may be undiscoverable")
		time.Sleep(2 * checkInterval)
		server.Restart()
		waitFound(t, server)
		lines.Wait(t, "podlink is registered")
		require.Regexp(t, `^[^\n]*registry unavailable[^\n]*\n[^\n]*podlink is registered[^\n]*\n$`, lines.String(), "two lines")
		require.EqualValues(t, 1, registeredMetric(registrar))

		server.Kill()
		require.Eventually(t, func() bool { return registeredMetric(registrar) == 0 }, discoveryTimeout, 50*time.Millisecond)
		begin = time.Now()
		require.NoError(t, registrar.Stop(t.Context()))
		require.Less(t, time.Since(begin), callTimeout+checkInterval)
		require.Contains(t, lines.String(), "podlink could not be deregistered")
	})
}

// TestRegistryNeverReached: podlink's stop does not wait for a registry that never answered.
func TestRegistryNeverReached(t *testing.T) {
	onEach(t, func(t *testing.T, server testRegistry) {
		server.Kill()
		registrar, lines := startRegistrar(t, server.open(t, ""))
		require.NoError(t, registrar.Register(t.Context(), instance))
		lines.Wait(t, "registry unavailable: podlink may be undiscoverable")
		begin := time.Now()
		require.NoError(t, registrar.Stop(t.Context()))
		require.Less(t, time.Since(begin), time.Second)
		require.NotContains(t, lines.String(), "deregistered")
	})
}

// TestRegistryComesBack: podlink is registered again within seconds, however its registration was lost.
func TestRegistryComesBack(t *testing.T) {
	for name, fault := range map[string]func(t *testing.T, server testRegistry){
		"killed, with its data": func(_ *testing.T, server testRegistry) { server.Restart() },
		"killed, without it":    func(_ *testing.T, server testRegistry) { server.RestartEmpty() },
		"down for longer than the ttl": func(_ *testing.T, server testRegistry) {
			server.Kill()
			time.Sleep(ttl + 3*time.Second)
			server.Restart()
		},
		"down for longer than Kratos retries": func(_ *testing.T, server testRegistry) {
			server.Kill()
			time.Sleep(20 * time.Second)
			server.RestartEmpty()
		},
		"the entry is removed": func(t *testing.T, server testRegistry) { server.remove(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onEach(t, func(t *testing.T, server testRegistry) {
				registrar, lines := startRegistrar(t, server.open(t, ""))
				require.NoError(t, registrar.Register(t.Context(), instance))
				waitFound(t, server)
				lines.Wait(t, "podlink is registered")
				fault(t, server)
				waitFound(t, server)
				time.Sleep(12 * time.Second) // The first registration has expired.
				require.Len(t, server.find(t), 1, "and stays")
				require.EqualValues(t, 1, registeredMetric(registrar))
				require.NoError(t, registrar.Stop(t.Context()))
				require.Empty(t, server.find(t))
				time.Sleep(ttl + time.Second)
				require.Empty(t, server.find(t), "no heartbeat brings it back")
			})
		})
	}
}

// TestRegistryWithSecrets: podlink registers with the right secret, logs that a wrong one was refused, never logs a secret, and
// does not wait for a registry that is down.
func TestRegistryWithSecrets(t *testing.T) {
	onEach(t, func(t *testing.T, server testRegistry) {
		secret := server.protect(t)
		registrar, lines := startRegistrar(t, server.open(t, wrongSecret))
		require.NoError(t, registrar.Register(t.Context(), instance))
		lines.Wait(t, "registry unavailable: podlink may be undiscoverable")
		require.Empty(t, server.find(t))
		require.NoError(t, registrar.Stop(t.Context()))
		require.NotContains(t, lines.String(), wrongSecret)

		registrar, lines = startRegistrar(t, server.open(t, secret))
		require.NoError(t, registrar.Register(t.Context(), instance))
		lines.Wait(t, "podlink is registered")
		require.Len(t, server.find(t), 1)
		require.NoError(t, registrar.Stop(t.Context()))
		require.Empty(t, server.find(t))
		require.NotContains(t, lines.String(), secret)

		server.Kill()
		registrar, lines = startRegistrar(t, server.open(t, secret))
		begin := time.Now()
		require.NoError(t, registrar.Register(t.Context(), instance))
		require.Less(t, time.Since(begin), time.Second)
		lines.Wait(t, "registry unavailable: podlink may be undiscoverable")
		require.NotContains(t, lines.String(), secret)
	})
}

func TestNoRegistry(t *testing.T) {
	c := conf.Default()
	logger := telemetry.NewLogger(c.Log, telemetry.NewLogLevel("debug"), new(logwatch.Log))
	registrar, closeRegistrar, err := NewRegistrar(c.Registry, nil, logger)
	require.NoError(t, err)
	defer closeRegistrar()
	require.NoError(t, registrar.Register(t.Context(), instance))
	require.NoError(t, registrar.Stop(t.Context()))
	require.Zero(t, testutil.CollectAndCount(registrar), "no metric: an alert fires at 0")
}

// TestRegisterTwice: the first instance leaves the registry for good, whether or not the second has another id.
func TestRegisterTwice(t *testing.T) {
	onEach(t, func(t *testing.T, server testRegistry) {
		registrar, lines := startRegistrar(t, server.open(t, ""))
		require.NoError(t, registrar.Register(t.Context(), instance))
		lines.Wait(t, "podlink is registered as podlink: grpc://127.0.0.1:9000 http://127.0.0.1:8000")
		second := *instance
		second.ID = "podlink-1"
		third := second
		third.Version = "v2"
		for i, next := range []*registry.ServiceInstance{&second, &third} {
			require.NoError(t, registrar.Register(t.Context(), next))
			lines.Wait(t, fmt.Sprintf(`(?s)(podlink is registered.*){%d}`, i+2))
			require.Equal(t, []*registry.ServiceInstance{next}, server.find(t))
		}
		time.Sleep(ttl + checkInterval)
		require.Equal(t, []*registry.ServiceInstance{&third}, server.find(t), "no keeper brings an earlier one back")
		require.NoError(t, registrar.Stop(t.Context()))
		require.Empty(t, server.find(t))
		time.Sleep(ttl + checkInterval)
		require.Empty(t, server.find(t))
	})
}

// countedBackend counts the loops that use it.
type countedBackend struct{ registered, deregistered atomic.Int32 }

func (*countedBackend) check(context.Context, *registry.ServiceInstance) error { return nil }

func (b *countedBackend) register(context.Context, *registry.ServiceInstance) error {
	b.registered.Add(1)
	return nil
}

func (b *countedBackend) deregister(context.Context, *registry.ServiceInstance) error {
	b.deregistered.Add(1)
	return nil
}

func (*countedBackend) close() {}

// TestRegisterAtOnce: of concurrent calls one loop remains, which the stop ends.
func TestRegisterAtOnce(t *testing.T) {
	before := goleak.IgnoreCurrent()
	registrar, _ := startRegistrar(t, new(countedBackend))
	var calls sync.WaitGroup
	for range 20 {
		calls.Go(func() { assert.NoError(t, registrar.Register(t.Context(), instance)) })
	}
	calls.Wait()
	require.NoError(t, registrar.Stop(t.Context()))
	goleak.VerifyNone(t, before)
}

// TestEndpointsWithoutAHost: an instance that callers can't reach is refused, not registered.
func TestEndpointsWithoutAHost(t *testing.T) {
	registrar, _ := startRegistrar(t, new(countedBackend))
	for _, endpoint := range []string{"http://", "http://:8000", "grpc://0.0.0.0:9000", "grpc://[::]:9000", "grpc://[::0]:9000", "%zz"} {
		unreachable := *instance
		unreachable.Endpoints = []string{"grpc://10.0.0.1:9000", endpoint}
		require.ErrorContains(t, registrar.Register(t.Context(), &unreachable), "registry.endpoints", endpoint)
	}
	require.Zero(t, registeredMetric(registrar))
	require.Nil(t, registrar.current)
}

func TestSettings(t *testing.T) {
	c := &conf.Registry{Endpoints: []string{"grpc://10.0.0.1:9000", "http://10.0.0.1:8000"}, Metadata: []string{"zone=a", "empty="}}
	require.Equal(t, map[string]string{"zone": "a", "empty": ""}, conf.Pairs(c.GetMetadata()))
	endpoints, err := Endpoints(c)
	require.NoError(t, err)
	require.Equal(t, "grpc://10.0.0.1:9000", endpoints[0].String())
	_, err = Endpoints(&conf.Registry{Endpoints: []string{"grpc://%zz:1"}})
	require.ErrorContains(t, err, "registry.endpoints[0]")
	_, _, err = NewRegistrar(&conf.Registry{Type: conf.RegistryEtcd, Tls: &conf.TLS{Enabled: true, CaFile: "/absent"}}, nil, nil)
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

func TestKubernetesOutsideAPod(t *testing.T) {
	none := func(string) string { return "" }
	_, err := newKubernetes(t.TempDir(), nil, none)
	require.ErrorContains(t, err, "registry.type: kubernetes works in a pod only")
	_, err = newKubernetes(t.TempDir(), nil, func(name string) string { return name })
	require.ErrorContains(t, err, ": kubernetes needs a service account")
}

// TestConsulBehindAProxy: over HTTPS, with the proxy's basic authentication and Consul's token.
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
	for password, line := range map[string]string{
		"password-nobody-sees": "podlink is registered",
		wrongSecret:            "registry unavailable.* 401 ",
	} {
		registrar, lines := startRegistrar(t, openBackend(t, conf.RegistryConsul, proxy.Listener.Addr().String(), func(c *conf.Registry) {
			c.Token, c.Username, c.Password = "token-nobody-sees", "podlink", password
			c.Tls = &conf.TLS{Enabled: true, CaFile: authority.Path("ca.crt"), ServerName: "consul.test"}
		}))
		require.NoError(t, registrar.Register(t.Context(), instance))
		lines.Wait(t, line)
		require.NoError(t, registrar.Stop(t.Context()))
		require.NotRegexp(t, "nobody-sees", lines.String())
	}
}

// TestRegistryHangs: a registry that accepts connections and never answers is logged like one that is down, and delays nothing.
func TestRegistryHangs(t *testing.T) {
	hanging, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = hanging.Close() })
	addr := hanging.Addr().String()
	kube := kubetest.Start(t)
	inPod, err := newKubernetes(kube.Mount(t, kubetest.Token), nil, func(name string) string {
		if name == "KUBERNETES_SERVICE_PORT" {
			return strings.TrimPrefix(addr, "127.0.0.1:")
		}
		return kube.Env(name)
	})
	require.NoError(t, err)
	unchanged := func(*conf.Registry) {}
	for name, b := range map[string]backend{
		"etcd":       openBackend(t, conf.RegistryEtcd, addr, unchanged),
		"consul":     openBackend(t, conf.RegistryConsul, addr, unchanged),
		"kubernetes": inPod,
	} {
		t.Run(name, func(t *testing.T) {
			registrar, lines := startRegistrar(t, b)
			require.NoError(t, registrar.Register(t.Context(), instance))
			begin := time.Now()
			lines.Wait(t, "registry unavailable: podlink may be undiscoverable")
			require.Less(t, time.Since(begin), callTimeout+time.Second)
			begin = time.Now()
			require.NoError(t, registrar.Stop(t.Context()))
			require.Less(t, time.Since(begin), time.Second)
		})
	}
}
