package data

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
)

// TestEmbeddedStall: a store that stood still for a while, as the machine of a developer does, takes the time of the
// stall off no key that was set after it.
func TestEmbeddedStall(t *testing.T) {
	embedded, err := startEmbedded()
	require.NoError(t, err)
	defer embedded.close()
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

// TestEmbeddedPipeline: the largest batch there is, in both directions.
func TestEmbeddedPipeline(t *testing.T) {
	repos := reposOf(openStore(t, embeddedStore))
	services := make([]string, 1000)
	for i := range services {
		services[i] = strings.Repeat("s", 125) + strconv.Itoa(100+i%900) + strconv.Itoa(i/900)
		key := biz.ServiceKey{Namespace: "ns", Service: services[i]}
		require.NoError(t, second(repos.Workloads.Set(t.Context(), key, strings.Repeat("s", 1024))))
	}
	states, err := repos.Workloads.BatchGet(t.Context(), "ns", services)
	require.NoError(t, err)
	require.Len(t, states, len(services))
}
