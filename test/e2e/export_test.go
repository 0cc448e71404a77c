package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	podlinktest "podlink/test/kit/podlink"
)

// exported returns the links of an export.
func exported(ctx context.Context, t *testing.T, p *podlinktest.Process, namespace string) map[string]*v1.Link {
	t.Helper()
	stream, err := v1.NewFleetServiceClient(p.Conn(t)).ExportLinks(ctx, &v1.ExportLinksRequest{Namespace: namespace})
	require.NoError(t, err)
	links := make(map[string]*v1.Link)
	for {
		m, err := stream.Recv()
		require.NoError(t, err)
		for _, link := range m.GetLinks() {
			links[link.GetService()+":"+link.GetUid()] = link
		}
		if m.GetDone() {
			return links
		}
	}
}

// TestDocumentedImport runs the commands of docs/operations.md that copy a namespace from one podlink into another, twice: a link that is
// there stays as it is.
func TestDocumentedImport(t *testing.T) {
	t.Parallel()
	const users = 300
	patient := []string{ // The machine may be busy with other tests.
		"PODLINK_SERVER_HTTP_TIMEOUT=20s", "PODLINK_SERVER_GRPC_TIMEOUT=20s", "PODLINK_DATA_REDIS_READ_TIMEOUT=15s",
	}
	from, to := start(t, patient...), start(t, patient...)
	links := v1.NewLinkServiceClient(from.Conn(t))
	for i := range users {
		request := &v1.SetLinkedPodRequest{
			Namespace: "game", Uid: fmt.Sprintf("user %d's", i), Service: []string{"chat", "room"}[i%2], PodId: proto.Int32(int32(i % 5)),
		}
		switch i % 3 {
		case 0:
			request.PersistSeconds = proto.Int32(600)
		case 1:
			request.Claim = 7
		}
		_, err := links.SetLinkedPod(t.Context(), request)
		require.NoError(t, err)
	}
	_, err := v1.NewLinkServiceClient(to.Conn(t)).SetLinkedPod(t.Context(), &v1.SetLinkedPodRequest{
		Namespace: "game", Uid: "user 2's", Service: "chat", PodId: proto.Int32(99),
	})
	require.NoError(t, err)

	_, section, found := strings.Cut(document(t, "docs/operations.md"), "## Export and import\n")
	require.True(t, found)
	section, _, _ = strings.Cut(section, "\n## ")
	script := "set -eu -o pipefail\n"
	for _, block := range blocks(section) {
		script += block.text
	}
	script = strings.NewReplacer("127.0.0.1:8000", from.HTTP, "127.0.0.1:8100", to.HTTP).Replace(script)
	dir := t.TempDir()
	for range 2 {
		cmd := exec.CommandContext(t.Context(), "bash", "-c", script)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Equal(t, "true\n", string(out))
	}
	want, got := exported(t.Context(), t, from, "game"), exported(t.Context(), t, to, "game")
	require.Len(t, want, users)
	require.Len(t, got, users)
	for key, link := range want {
		copied := got[key]
		if key == "chat:user 2's" {
			require.EqualValues(t, 99, copied.GetPodId())
			continue
		}
		require.Equal(t, link.GetPodId(), copied.GetPodId(), key)
		require.Equal(t, link.GetPersistent(), copied.GetPersistent(), key)
		require.InDelta(t, link.GetTtlSeconds(), copied.GetTtlSeconds(), 60, key)
		require.Equal(t, link.GetClaim(), copied.GetClaim(), key)
		require.Greater(t, copied.GetEpoch(), link.GetEpoch(), key)
	}
}

// TestExportOfAllServices: whoever may not have all of them gets none, instead of a part that looks like all.
func TestExportOfAllServices(t *testing.T) {
	t.Parallel()
	p := startGuarded(t, identities)
	fleet := v1.NewFleetServiceClient(p.caller("admin").conn)
	first := func(who, service string) string {
		stream, err := fleet.ExportLinks(p.as(who), &v1.ExportLinksRequest{Namespace: "game", Service: service})
		require.NoError(t, err)
		if _, err = stream.Recv(); err != nil {
			return kerrors.Reason(err)
		}
		return ""
	}
	require.Empty(t, first("admin", ""))
	require.Empty(t, first("admin-of-another", "room"))
	require.Equal(t, "PERMISSION_DENIED", first("admin-of-another", "chat"))
	require.Equal(t, "PERMISSION_DENIED", first("admin-of-another", ""))
	require.Equal(t, "PERMISSION_DENIED", first("reader", "chat"))
}
