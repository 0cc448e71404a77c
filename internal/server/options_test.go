package server

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	khttp "github.com/go-kratos/kratos/v2/transport/http"
	"github.com/stretchr/testify/require"
)

// TestOptionsOfTheServer: net/http's own answer to OPTIONS * passes no check.
func TestOptionsOfTheServer(t *testing.T) {
	w := serveGuarded(t, admitting(guests{}), newParts(t))
	server := httptest.NewUnstartedServer(w.http)
	server.Config.DisableGeneralOptionsHandler = w.http.(*khttp.Server).DisableGeneralOptionsHandler
	server.Start()
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	require.NoError(t, err)
	reply, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	defer reply.Body.Close()
	require.Equal(t, http.StatusUnauthorized, reply.StatusCode)
}
