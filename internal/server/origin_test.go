package server

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/stretchr/testify/require"

	v1 "podlink/api/podlink/v1"
)

// TestOwnOrigin: which requests a listener takes for those of a foreign web page.
func TestOwnOrigin(t *testing.T) {
	const local, public = "127.0.0.1:8000", "0.0.0.0:8000"
	for name, row := range map[string]struct {
		addr, host   string
		site, origin string // headers
		method       string
		refused      bool
	}{
		"localhost":                       {addr: local, host: "localhost:8000"},
		"localhost on localhost":          {addr: "localhost:8000", host: "localhost:8000"},
		"localhost on ::1":                {addr: "[::1]:8000", host: "[::1]:8000"},
		"in capitals":                     {addr: local, host: "LOCALHOST:8000"},
		"absolute":                        {addr: local, host: "localhost.:8000"},
		"without a port":                  {addr: local, host: "localhost"},
		"another port, as of a forward":   {addr: local, host: "localhost:18000"},
		"an address":                      {addr: local, host: "127.0.0.1:8000"},
		"another loopback address":        {addr: local, host: "127.8.0.1"},
		"IPv6":                            {addr: local, host: "[::1]"},
		"no Host":                         {addr: local},
		"a configured name":               {addr: local, host: "Podlink.test:80"},
		"a foreign name":                  {addr: local, host: "evil.example:8000", refused: true},
		"localhost as a part":             {addr: local, host: "localhost.evil.example", refused: true},
		"an address as a part":            {addr: local, host: "127.0.0.1.evil.example", refused: true},
		"another address":                 {addr: local, host: "10.0.0.1:8000", refused: true},
		"0.0.0.0":                         {addr: local, host: "0.0.0.0:8000", refused: true},
		"only a port":                     {addr: local, host: ":8000", refused: true},
		"brackets":                        {addr: local, host: "[]", refused: true},
		"a foreign name, not on loopback": {addr: public, host: "podlink.prod:8000"},

		"the page itself":                {addr: local, host: "localhost:8000", site: "same-origin"},
		"a user's own call":              {addr: local, host: "localhost:8000", site: "none"},
		"another site":                   {addr: local, host: "localhost:8000", site: "cross-site", refused: true},
		"another host of the site":       {addr: local, host: "localhost:8000", site: "same-site", refused: true},
		"an old browser":                 {addr: local, host: "localhost:8000", origin: "https://evil.example", refused: true},
		"an old browser, the same":       {addr: local, host: "localhost:8000", origin: "http://localhost:8000"},
		"an old browser, sandboxed":      {addr: local, host: "localhost:8000", origin: "null", refused: true},
		"another site, not on loopback":  {addr: public, host: "podlink.prod", site: "cross-site", refused: true},
		"another site's GET":             {addr: local, host: "localhost:8000", method: http.MethodGet, site: "cross-site"},
		"another site's GET, other Host": {addr: local, host: "evil.example", method: http.MethodGet, refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			method := row.method
			if method == "" {
				method = http.MethodPost
			}
			request := httptest.NewRequestWithContext(t.Context(), method, linkPath, http.NoBody)
			request.Host = row.host
			for name, value := range map[string]string{"Sec-Fetch-Site": row.site, "Origin": row.origin} {
				if value != "" {
					request.Header.Set(name, value)
				}
			}
			err := newOwnOrigin("server.http.hosts", row.addr, []string{"podlink.TEST"}, nil).check(request)
			if !row.refused {
				require.NoError(t, err)
				return
			}
			require.True(t, v1.IsPermissionDenied(err), err)
			require.NotContains(t, kerrors.FromError(err).Message, "evil")
		})
	}
}

// TestForeignPages: the routes of operators refuse every request of a foreign page, the API those that may change something, and the
// open routes none.
func TestForeignPages(t *testing.T) {
	p := newParts(t)
	p.config.Admin.Pprof = true
	admin, api := serveAdmin(t, p), httptest.NewServer(p.http())
	t.Cleanup(api.Close)
	foreign := map[string]http.Header{
		"host":   {"Host": {"evil.example"}},
		"origin": {"Sec-Fetch-Site": {"cross-site"}, "Origin": {"https://evil.example"}},
	}
	for _, row := range []struct {
		server       *httptest.Server
		method, path string
		host, origin int // the answers
	}{
		{api, "POST", "/v1/namespaces/ns/services/svc/links:batchGet", 403, 403},
		{api, "DELETE", linkPath, 403, 403},
		{api, "PUT", linkPath, 403, 403},
		{api, "GET", linkPath, 403, 200},
		{api, "POST", "/nowhere", 403, 403},
		{admin, "GET", "/loglevel", 403, 403},
		{admin, "PUT", "/loglevel", 403, 403},
		{admin, "GET", "/debug/pprof/", 403, 403},
		{admin, "GET", "/debug/pprof/goroutine", 403, 403},
		{admin, "GET", "/healthz", 200, 200},
		{admin, "GET", "/readyz", 200, 200},
		{admin, "GET", "/metrics", 200, 200},
	} {
		for kind, want := range map[string]int{"host": row.host, "origin": row.origin} {
			request, err := http.NewRequestWithContext(t.Context(), row.method, row.server.URL+row.path, http.NoBody)
			require.NoError(t, err)
			request.Header = foreign[kind]
			request.Host = request.Header.Get("Host")
			response, err := row.server.Client().Do(request)
			require.NoError(t, err)
			body, err := io.ReadAll(response.Body)
			require.NoError(t, err)
			require.NoError(t, response.Body.Close())
			require.Equal(t, want, response.StatusCode, "%s %s with a foreign %s: %s", row.method, row.path, kind, body)
			if want == http.StatusForbidden {
				require.Contains(t, string(body), `"reason":"PERMISSION_DENIED"`)
				require.False(t, strings.Contains(string(body), "evil"), "the caller's text")
			}
		}
	}
}
