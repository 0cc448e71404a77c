package embedded

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestStall: after a stall, as when a developer's machine sleeps, a new key keeps its full TTL.
func TestStall(t *testing.T) {
	embedded, err := Start()
	require.NoError(t, err)
	defer embedded.Close()
	const stall = 3 * time.Second
	embedded.server.Lock() // The sweeper waits for it.
	time.Sleep(stall)
	embedded.server.Unlock()

	// Enough keys that some are set before the first sweep after the stall.
	const keys = 2000
	for i := range keys {
		require.NoError(t, embedded.server.Set(strconv.Itoa(i), "value"))
		embedded.server.SetTTL(strconv.Itoa(i), stall-time.Second)
	}
	time.Sleep(sweepInterval / 2)
	for i := range keys {
		require.True(t, embedded.server.Exists(strconv.Itoa(i)), "key %d", i)
	}
}

// TestStrangers: no other process gets past the handshake, so nothing that it sends is parsed. Parsed, each of these commands
// would end the process: the store allocates the length that a command announces.
func TestStrangers(t *testing.T) {
	embedded, err := Start()
	require.NoError(t, err)
	defer embedded.Close()
	require.NoError(t, embedded.server.Set("key", "value"))
	addr := embedded.server.Addr()
	_, another, err := newTLS()
	require.NoError(t, err)
	trusting := embedded.client.Clone()
	trusting.Certificates = nil
	doubting := another.Clone()
	doubting.RootCAs = embedded.client.RootCAs
	old := embedded.client.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	for name, dial := range map[string]func() (net.Conn, error){
		"plaintext":            func() (net.Conn, error) { return net.Dial("tcp", addr) },
		"no certificate":       func() (net.Conn, error) { return tls.Dial("tcp", addr, trusting) },
		"another certificate":  func() (net.Conn, error) { return tls.Dial("tcp", addr, doubting) },
		"an older TLS version": func() (net.Conn, error) { return tls.Dial("tcp", addr, old) },
	} {
		for _, command := range []string{"*1\r\n$9223372036854775000\r\n", "*1\r\n$9223372036854775807\r\n", "*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n"} {
			conn, err := dial()
			if err != nil {
				continue // The handshake failed.
			}
			_, _ = io.WriteString(conn, command)
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
			answer, err := io.ReadAll(conn)
			require.NotContains(t, string(answer), "value", name)
			require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "%s: the connection is still open", name)
			_ = conn.Close() // The store has closed it already.
		}
	}
	_, err = tls.Dial("tcp", addr, another)
	require.Error(t, err, "the store's certificate is this store's only")
	own, err := tls.Dial("tcp", addr, embedded.client)
	require.NoError(t, err)
	_, err = io.WriteString(own, "*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n")
	require.NoError(t, err)
	answer := make([]byte, len("$5\r\nvalue\r\n"))
	_, err = io.ReadFull(own, answer)
	require.NoError(t, err)
	require.Equal(t, "$5\r\nvalue\r\n", string(answer))
	require.NoError(t, own.Close())
}
