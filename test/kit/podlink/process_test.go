package podlink

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
)

// TestPatchedProcess builds podlink with a patch of its Go and one of its Lua, and observes both.
func TestPatchedProcess(t *testing.T) {
	binary, err := Build(t.TempDir(),
		Patch{
			File: "internal/server/admin.go",
			Old:  "GET /healthz",
			New:  "GET /patched",
		},
		Patch{
			File: "internal/data/lua/assembled/statefulSetLinkIfAbsent.lua",
			Old:  "if pod then status = 'EXISTING' end\n",
			New:  "",
		})
	require.NoError(t, err)
	p := Start(t, binary)
	p.WaitReady(t)
	status, _, err := p.getAdmin("/patched")
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status)
	require.Positive(t, p.Metric(t, "go_goroutines"))

	links := v1.NewLinkServiceClient(p.Conn(t))
	for _, pod := range []int32{1, 2} {
		reply, err := links.SetLinkedPodIfAbsent(t.Context(), &v1.SetLinkedPodIfAbsentRequest{
			Namespace: "ns", Uid: "u", Service: "game", PodId: proto.Int32(pod),
		})
		require.NoError(t, err)
		require.Equal(t, pod, reply.GetLink().GetPodId())
	}
	require.Zero(t, p.Stop(t))
}

func TestBuildFails(t *testing.T) {
	_, err := Build(t.TempDir(), Patch{File: "internal/server/admin.go", Old: "package server", New: "package"})
	require.ErrorContains(t, err, "make build: exit status 2")
}
