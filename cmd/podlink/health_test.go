package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"podlink/internal/conf"
)

// TestReadiness: -health gives a reason that names what to look at, whatever answers at server.admin.addr.
func TestReadiness(t *testing.T) {
	free, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	closed := free.Addr().String()
	require.NoError(t, free.Close())
	for name, row := range map[string]struct {
		code       int
		body, addr string // addr: instead of a server that answers so
		want, fail string
	}{
		"ready":           {code: 200, body: `{"status":"ready"}`, want: "ready"},
		"not ready":       {code: 503, body: `{"status":"unavailable","reason":"the store does not answer"}`, fail: "the store does not answer"},
		"another program": {code: 200, body: "hello", fail: "is not podlink's admin listener, it answers 200"},
		"other JSON":      {code: 404, body: `{"error":"no"}`, fail: "is not podlink's admin listener, it answers 404"},
		"nobody":          {addr: closed, fail: "no podlink answers at " + closed + " (server.admin.addr)"},
		"any port":        {addr: "127.0.0.1:0", fail: "the port of server.admin.addr is 0"},
		"no port":         {addr: "127.0.0.1", fail: "missing port"},
	} {
		t.Run(name, func(t *testing.T) {
			addr := row.addr
			if addr == "" {
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					require.Equal(t, "/readyz", r.URL.Path)
					w.WriteHeader(row.code)
					_, _ = w.Write([]byte(row.body))
				}))
				t.Cleanup(server.Close)
				addr = strings.TrimPrefix(server.URL, "http://")
			}
			status, err := readiness(t.Context(), &conf.Server_Admin{Addr: addr})
			if row.fail != "" {
				require.ErrorContains(t, err, row.fail)
				require.Equal(t, 1, askHealth(&conf.Server_Admin{Addr: addr}))
				return
			}
			require.NoError(t, err)
			require.Equal(t, row.want, status)
			require.Zero(t, askHealth(&conf.Server_Admin{Addr: addr}))
		})
	}
}

func TestReachable(t *testing.T) {
	for addr, want := range map[string]string{
		":8001":          "127.0.0.1:8001",
		"0.0.0.0:8001":   "127.0.0.1:8001",
		"[::]:8001":      "[::1]:8001",
		"10.0.0.9:8001":  "10.0.0.9:8001",
		"localhost:8001": "localhost:8001",
	} {
		got, err := reachable(addr)
		require.NoError(t, err, addr)
		require.Equal(t, want, got)
	}
}
