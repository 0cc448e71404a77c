package store

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	chatv1 "podlink/examples/chat/api/chat/v1"
)

func open(s *Store, epoch int64, process string) ([]string, error) {
	reply, err := s.OpenRoom(context.Background(), &chatv1.OpenRoomRequest{Room: "r", Epoch: epoch, Process: process})
	return reply.GetIds(), err
}

func say(s *Store, epoch int64, process string, id string) error {
	_, err := s.AppendMessage(context.Background(), &chatv1.AppendMessageRequest{Room: "r", Epoch: epoch, Process: process, Id: id})
	return err
}

// TestStaleOwnersAreRefused: only the process that opened the room with the greatest epoch may write.
func TestStaleOwnersAreRefused(t *testing.T) {
	s := New()
	require.Error(t, say(s, 1, "chat-0", "before it was opened"))
	_, err := open(s, 5, "chat-0")
	require.NoError(t, err)
	require.NoError(t, say(s, 5, "chat-0", "a"))
	ids, err := open(s, 7, "chat-1")
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, ids, "the next owner reads all messages")
	require.Equal(t, codes.FailedPrecondition, status.Code(say(s, 5, "chat-0", "late")))
	_, err = open(s, 5, "chat-0")
	require.Equal(t, codes.FailedPrecondition, status.Code(err))
	require.NoError(t, say(s, 7, "chat-1", "b"))
	require.Equal(t, []string{"a", "b"}, s.IDs("r"))
	refused, shared := s.Refused()
	require.Equal(t, 3, refused)
	require.Zero(t, shared)
}

// TestTwoProcessesWithOneEpoch: two owners with the same epoch are refused and counted, as podlink's promise is broken.
func TestTwoProcessesWithOneEpoch(t *testing.T) {
	s := New()
	_, err := open(s, 5, "chat-0")
	require.NoError(t, err)
	_, err = open(s, 5, "chat-1")
	require.Error(t, err)
	require.Error(t, say(s, 5, "chat-1", "a"))
	_, shared := s.Refused()
	require.Equal(t, 2, shared)
}
