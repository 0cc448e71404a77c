package server

import (
	"crypto/tls"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
)

// TestHTTP2Streams: with TLS the HTTP listener speaks HTTP/2, and tells callers that it takes so many requests at once on a
// connection.
func TestHTTP2Streams(t *testing.T) {
	p := newParts(t)
	server := httptest.NewUnstartedServer(nil)
	server.Config = NewHTTPServer(p.config, p.api(), p.chain, p.drain, p.logger, ListenerTLS{}).Server
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	dialer := tls.Dialer{Config: &tls.Config{
		InsecureSkipVerify: true, NextProtos: []string{http2.NextProtoTLS}, MinVersion: tls.VersionTLS12,
	}}
	conn, err := dialer.DialContext(t.Context(), "tcp", server.Listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	_, err = conn.Write([]byte(http2.ClientPreface))
	require.NoError(t, err)
	frames := http2.NewFramer(conn, conn)
	require.NoError(t, frames.WriteSettings())
	frame, err := frames.ReadFrame()
	require.NoError(t, err)
	streams, ok := frame.(*http2.SettingsFrame).Value(http2.SettingMaxConcurrentStreams)
	require.True(t, ok)
	require.EqualValues(t, maxStreams, streams)
}
