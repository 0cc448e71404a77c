package e2e

import (
	"context"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	v1 "podlink/api/podlink/v1"
)

// TestLateMessages: who opens a call or a stream and holds its message back has not saved up the right to it: when the message comes at
// last, its caller must still be known.
func TestLateMessages(t *testing.T) {
	t.Parallel()
	written := guardTexts()
	path := files(t, map[string]string{"tokens.yaml": written.tokens, "policy.yaml": written.policy})
	p := start(t, "PODLINK_AUTH_MODE=required", "PODLINK_AUTH_TOKENS_FILE="+path("tokens.yaml"),
		"PODLINK_AUTH_POLICY_FILE="+path("policy.yaml"))
	p.WaitReady(t)
	ctx, cancel := context.WithTimeout(as(t.Context(), "reader"), 2*patience)
	defer cancel()
	held := map[string]grpc.ClientStream{}
	for method, desc := range map[string]*grpc.StreamDesc{
		v1.FleetService_WatchLinks_FullMethodName:  {ServerStreams: true},
		v1.LinkService_GetLinkedPod_FullMethodName: {ClientStreams: true},
	} {
		stream, err := p.Conn(t).NewStream(ctx, desc, method)
		require.NoError(t, err)
		held[method] = stream
	}
	require.Eventually(t, func() bool {
		return count(t, p, `podlink_authentications_total{kind="token",outcome="ok"}`) == float64(len(held))
	}, patience, 10*time.Millisecond)
	require.NoError(t, os.WriteFile(path("new.yaml"), []byte("[]\n"), 0o600))
	require.NoError(t, os.Rename(path("new.yaml"), path("tokens.yaml")))
	require.Eventually(t, func() bool {
		code, _, _ := ask(t, http.MethodGet, "http://"+p.HTTP+aliceChat, "Bearer "+secret("reader"))
		return code == http.StatusUnauthorized
	}, patience, 100*time.Millisecond)
	for method, message := range map[string]proto.Message{
		v1.FleetService_WatchLinks_FullMethodName:  &v1.WatchLinksRequest{Namespace: "game", Service: "chat"},
		v1.LinkService_GetLinkedPod_FullMethodName: &v1.GetLinkedPodRequest{Namespace: "game", Service: "chat", Uid: "alice"},
	} {
		require.NoError(t, held[method].SendMsg(message))
		require.NoError(t, held[method].CloseSend())
		require.Equal(t, codes.Unauthenticated, status.Code(held[method].RecvMsg(new(emptypb.Empty))), method)
	}
}

// TestUnknownMethodsAreNotHeld: a call of a method that only Kratos knows, whose message never comes and whose deadline is far, would
// last until that. Its connection ends.
func TestUnknownMethodsAreNotHeld(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.WaitReady(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	stream, err := p.Conn(t).NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, "/kratos.api.Metadata/ListServices")
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- stream.RecvMsg(new(emptypb.Empty)) }()
	select {
	case err := <-ended:
		require.Equal(t, codes.Unavailable, status.Code(err), err)
	case <-time.After(patience):
		require.Fail(t, "the call is held open")
	}
}
