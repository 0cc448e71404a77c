package data

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
)

// TestEmbeddedPipeline: the largest possible batch, in requests and in replies.
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
