package e2e

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	redistest "podlink/test/kit/redis"
)

// documentedACL returns the lines of docs/operations.md for redis-cli: those for podlink on a single server, and those that switch off
// the default user.
func documentedACL(t *testing.T) (podlink, rest []string) {
	t.Helper()
	for _, b := range blocks(document(t, "docs/operations.md")) {
		lines := strings.Split(strings.TrimSpace(b.text), "\n")
		switch {
		case strings.HasPrefix(b.text, "# on every server\nACL SETUSER podlink "):
			podlink = lines[1:2]
		case strings.HasPrefix(b.text, "ACL SETUSER operator "):
			rest = lines
		}
	}
	require.NotEmpty(t, podlink)
	require.Len(t, rest, 4)
	return podlink, rest
}

// outward returns an address of this machine that is not on loopback, and false if it has none.
func outward(t *testing.T) (string, bool) {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	require.NoError(t, err)
	for _, addr := range addrs {
		if ip := addr.(*net.IPNet).IP; ip.To4() != nil && !ip.IsLoopback() && !ip.IsLinkLocalUnicast() {
			return ip.String(), true
		}
	}
	return "", false
}

// TestDocumentedRedisUsers types the lines of docs/operations.md: podlink is ready with that user, from another machine too and after a
// restart of Redis, while the default user and the rights of an earlier podlink user are gone.
func TestDocumentedRedisUsers(t *testing.T) {
	t.Parallel()
	users := filepath.Join(t.TempDir(), "users.acl")
	require.NoError(t, os.WriteFile(users, nil, 0o600))
	server := redistest.Start(t, "--aclfile", users, "--protected-mode", "yes")
	ctx := t.Context()
	admin := redis.NewClient(&redis.Options{Addr: server.Addr(), DisableIdentity: true, PoolSize: 1})
	t.Cleanup(func() { _ = admin.Close() })
	conn := admin.Conn() // As in redis-cli, an AUTH counts for the lines after it.
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.Do(ctx, "ACL", "SETUSER", "podlink", "on", "nopass", "~*", "+@all").Err(), "from earlier")

	forPodlink, rest := documentedACL(t)
	for _, line := range append(forPodlink, rest...) {
		var words []any
		for _, word := range strings.Fields(line) {
			words = append(words, word)
		}
		require.NoError(t, conn.Do(ctx, words...).Err(), line)
	}
	server.Restart()

	as := func(user, password string) *redis.Client {
		client := redis.NewClient(&redis.Options{Addr: server.Addr(), Username: user, Password: password, DisableIdentity: true, MaxRetries: -1})
		t.Cleanup(func() { _ = client.Close() })
		return client
	}
	require.ErrorContains(t, as("", "").Ping(ctx).Err(), "NOAUTH")
	require.ErrorContains(t, as("podlink", "any").Ping(ctx).Err(), "WRONGPASS")
	require.NoError(t, as("podlink", "PASSWORD").Ping(ctx).Err())
	require.ErrorContains(t, as("podlink", "PASSWORD").FlushAll(ctx).Err(), "NOPERM")
	require.ErrorContains(t, as("podlink", "PASSWORD").Get(ctx, "other").Err(), "NOPERM")

	addr := server.Addr()
	if ip, ok := outward(t); ok { // Protected mode judges by the caller's address.
		_, port, err := net.SplitHostPort(addr)
		require.NoError(t, err)
		require.NoError(t, as("operator", "ANOTHER-PASSWORD").ConfigSet(ctx, "bind", "127.0.0.1 "+ip).Err())
		addr = net.JoinHostPort(ip, port)
	}
	p := start(t, "PODLINK_DATA_REDIS_MODE=standalone", "PODLINK_DATA_REDIS_ADDRS="+addr,
		"PODLINK_DATA_REDIS_USERNAME=podlink", "PODLINK_DATA_REDIS_PASSWORD=PASSWORD")
	require.Eventually(t, func() bool {
		code, _ := p.Ready(t)
		return code == http.StatusOK
	}, 10*time.Second, 20*time.Millisecond, p.Log.String())
}
