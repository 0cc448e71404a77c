package embedded

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestStall: a store that stood still for a while, as the machine of a developer does, takes the time of the
// stall off no key that was set after it.
func TestStall(t *testing.T) {
	embedded, err := Start()
	require.NoError(t, err)
	defer embedded.Close()
	const stall = 3 * time.Second
	embedded.server.Lock() // The sweeper waits for it.
	time.Sleep(stall)
	embedded.server.Unlock()

	// As many as it takes to be among the first after the stall.
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
