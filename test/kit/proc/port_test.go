package proc

import (
	"net"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFreePorts(t *testing.T) {
	const taken, more = 100, 50
	var all []int
	for _, port := range FreePorts(t, taken) {
		require.Greater(t, port, firstPort)
		require.Less(t, port, lastPort)
		listener, err := net.Listen("tcp", Addr(port))
		require.NoError(t, err)
		defer listener.Close()
		all = append(all, port)
	}
	for range more {
		host, text, err := net.SplitHostPort(FreeAddr(t))
		require.NoError(t, err)
		require.Equal(t, "127.0.0.1", host)
		port, err := strconv.Atoi(text)
		require.NoError(t, err)
		all = append(all, port)
	}
	slices.Sort(all)
	require.Len(t, slices.Compact(all), taken+more, "all distinct")

	for range 10 * block {
		r := &recorder{TB: t}
		r.run(func(tb testing.TB) {
			got := FreePorts(tb, 1)
			require.NotContains(t, got, ports.first, "the claimed port is not handed out")
			require.NotContains(t, all, got[0], "nor one that another test has, whether or not its server runs")
		})
	}
}

// TestTakenPorts: taken ports are skipped, and an exhausted block fails the test.
func TestTakenPorts(t *testing.T) {
	FreePorts(t, 1)
	for port := ports.first; port < ports.first+block; port++ {
		if listener, err := net.Listen("tcp", Addr(port)); err == nil {
			defer listener.Close()
		}
	}
	r := &recorder{TB: t}
	r.run(func(tb testing.TB) { FreePorts(tb, 1) })
	require.Contains(t, r.fatal, "fewer than 1 of the ports")
}

// TestBlocks: test binaries that run in parallel never share a port.
func TestBlocks(t *testing.T) {
	FreePorts(t, 1)
	claimed := map[int]bool{ports.first: true}
	for range 5 { // Not all blocks: other test binaries need some.
		claim, first := claimBlock()
		require.NotNil(t, claim)
		defer claim.Close()
		require.False(t, claimed[first])
		require.Zero(t, (first-firstPort)%block)
		claimed[first] = true
	}
}
