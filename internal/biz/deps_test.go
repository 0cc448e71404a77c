package biz_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDomainIsPure: the domain imports no library for storage, transport, metrics or traces.
func TestDomainIsPure(t *testing.T) {
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", "podlink/internal/biz")
	out, err := list.Output()
	require.NoError(t, err)
	packages := strings.Fields(string(out))
	require.Contains(t, packages, "podlink/internal/biz")
	for _, name := range packages {
		for _, foreign := range []string{"prometheus", "otel", "opentelemetry", "redis", "kratos", "grpc", "protobuf", "net/http"} {
			require.NotContains(t, name, foreign)
		}
		if strings.HasPrefix(name, "podlink/") {
			require.Equal(t, "podlink/internal/biz", name, "biz imports no other package of podlink")
		}
	}
}
