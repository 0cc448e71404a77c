package client

import (
	"context"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// proxiedEnv makes this test's binary a client of the podlink at its value, in an environment with a proxy: Go reads the proxy of
// the environment once in a process.
const proxiedEnv = "PODLINK_TEST_PROXIED"

// proxiedMain makes one call, and returns the exit code.
func proxiedMain(how string) int {
	transport, rest, _ := strings.Cut(how, " ")
	way, target, _ := strings.Cut(rest, " ")
	c, err := New(target, Options{HTTP: transport == "HTTP", NoProxy: way == "past", Timeout: time.Minute})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer c.Close()
	if _, err := setLink(context.Background(), c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// relayingProxy starts an HTTP proxy, and counts what comes through it.
func relayingProxy(t *testing.T) (addr string, passed *atomic.Int32) {
	t.Helper()
	passed = new(atomic.Int32)
	server := httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		passed.Add(1)
		if r.Method != nethttp.MethodConnect {
			r.RequestURI = ""
			response, err := (&nethttp.Transport{DisableKeepAlives: true}).RoundTrip(r)
			if err != nil {
				w.WriteHeader(nethttp.StatusBadGateway)
				return
			}
			defer response.Body.Close()
			w.Header().Set("Content-Type", response.Header.Get("Content-Type"))
			w.WriteHeader(response.StatusCode)
			_, _ = io.Copy(w, response.Body)
			return
		}
		there, err := net.Dial("tcp", r.Host)
		if err != nil {
			w.WriteHeader(nethttp.StatusBadGateway)
			return
		}
		defer there.Close()
		here, buffered, err := nethttp.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer here.Close()
		_, _ = io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n")
		go func() {
			_, _ = io.Copy(there, buffered)
			_ = there.Close()
		}()
		_, _ = io.Copy(here, there)
	}))
	t.Cleanup(server.Close)
	return server.URL, passed
}

// TestProxyOfTheEnvironment catches calls over both transports, unless NoProxy says that podlink is on this side of it.
func TestProxyOfTheEnvironment(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"through", "past"} {
		t.Run(way, func(t *testing.T) {
			overBoth(t, func(t *testing.T, http bool) {
				s := served(t, http, nil, func(context.Context) error { return nil })
				proxy, passed := relayingProxy(t)
				transport := "gRPC"
				if http {
					transport = "HTTP"
				}
				_, port, err := net.SplitHostPort(s.addr)
				require.NoError(t, err)
				// Go passes by a proxy for 127.0.0.1, and not for this address, which is the same on Linux.
				child := exec.CommandContext(t.Context(), os.Args[0])
				child.Env = append(os.Environ(), proxiedEnv+"="+transport+" "+way+" 0.0.0.0:"+port,
					"HTTP_PROXY="+proxy, "HTTPS_PROXY="+proxy, "NO_PROXY=", "http_proxy="+proxy, "https_proxy="+proxy, "no_proxy=")
				out, err := child.CombinedOutput()
				require.NoError(t, err, string(out))
				require.Len(t, s.arrived, 1)
				require.Equal(t, way == "through", passed.Load() > 0, "%d requests went through the proxy", passed.Load())
			})
		})
	}
}
