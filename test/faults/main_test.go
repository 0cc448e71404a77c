//go:build faults

package faults

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	podlinktest "podlink/test/kit/podlink"
)

// binary is podlink without patches.
var binary string

func TestMain(m *testing.M) {
	os.Exit(podlinktest.Main(&binary, func() int {
		code := m.Run()
		published.write(os.Stdout)
		return code
	}))
}

// variant builds one of the variants.
func variant(t *testing.T, name string) string {
	t.Helper()
	patches := variants(t)[name]
	require.NotEmpty(t, patches, "unknown variant %q", name)
	binary, err := podlinktest.Build(t.TempDir(), patches...)
	require.NoError(t, err)
	return binary
}

// start starts a number of podlinks with the same environment, and waits until they are ready.
func start(t *testing.T, binary string, podlinks int, env ...string) []*podlinktest.Process {
	t.Helper()
	started := make([]*podlinktest.Process, podlinks)
	for i := range started {
		started[i] = podlinktest.Start(t, binary, env...)
		started[i].WaitReady(t)
	}
	return started
}
