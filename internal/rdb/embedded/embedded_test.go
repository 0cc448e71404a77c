package embedded

import (
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
