package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestCompareTheTreeWithItself builds podlink and the worker of this tree, and runs every measure in one short round. The figures
// mean nothing; that they exist shows that every call succeeds.
func TestCompareTheTreeWithItself(t *testing.T) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("no redis-server on PATH")
		}
		t.Skip("install redis-server, or run make test, which does")
	}
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	both, err := build(t.Context(), root, root, t.TempDir())
	require.NoError(t, err)
	var out strings.Builder
	o := options{limit: 0, plan: plan{slice: 5 * time.Millisecond, turns: 1, rounds: 1}}
	secured, err := both.withDoors(t.TempDir())
	require.NoError(t, err)
	err = o.compare(t.Context(), &out, func(string) {}, requestPath(both, secured, operations), dataLayers(both, both))
	require.NoError(t, err, "%s", &out)
	for _, part := range []string{"gRPC, ", "HTTP, ", "data layer, ", "all of gRPC", "all of HTTP", "all of data layer"} {
		require.Contains(t, out.String(), part)
	}
	require.NotContains(t, out.String(), "NaN")
}

func TestRunRefusesAnUnknownRevision(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	err := run(t.Context(), options{base: "no-such-revision"}, io.Discard, io.Discard)
	require.ErrorContains(t, err, "no-such-revision")
	left, err := os.ReadDir(os.TempDir())
	require.NoError(t, err)
	require.Empty(t, left)
}
