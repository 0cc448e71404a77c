// Package store keeps the rooms of the chat in memory, and refuses the writes of pods that have lost a room: it is what a
// database with a condition on the epoch would be.
package store

import (
	"context"
	"slices"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	chatv1 "podlink/examples/chat/api/chat/v1"
)

// Store is a chatv1.StoreServiceServer.
type Store struct {
	chatv1.UnimplementedStoreServiceServer

	mu      sync.Mutex
	rooms   map[string]*room
	refused int
	shared  int
}

type room struct {
	epoch int64 // the greatest one that it was opened with
	pod   int32 // that opened it
	ids   []string
}

// New returns an empty store.
func New() *Store {
	return &Store{rooms: map[string]*room{}}
}

// OpenRoom implements chatv1.StoreServiceServer. From now on only this epoch, or a greater one, may write.
func (s *Store) OpenRoom(_ context.Context, request *chatv1.OpenRoomRequest) (*chatv1.OpenRoomReply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.rooms[request.GetRoom()]
	if r == nil {
		r = &room{}
		s.rooms[request.GetRoom()] = r
	}
	switch {
	case request.GetEpoch() < r.epoch:
		return nil, s.stale()
	case request.GetEpoch() == r.epoch && request.GetPodId() != r.pod:
		s.shared++ // Two pods hold one room: what podlink is there to prevent.
		return nil, s.stale()
	}
	r.epoch, r.pod = request.GetEpoch(), request.GetPodId()
	return &chatv1.OpenRoomReply{Ids: slices.Clone(r.ids)}, nil
}

// AppendMessage implements chatv1.StoreServiceServer.
func (s *Store) AppendMessage(_ context.Context, request *chatv1.AppendMessageRequest) (*chatv1.AppendMessageReply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.rooms[request.GetRoom()]
	switch {
	case r == nil || request.GetEpoch() != r.epoch:
		return nil, s.stale()
	case request.GetPodId() != r.pod:
		s.shared++
		return nil, s.stale()
	}
	r.ids = append(r.ids, request.GetId())
	return &chatv1.AppendMessageReply{}, nil
}

// stale refuses a pod that has lost the room; the caller holds the lock.
func (s *Store) stale() error {
	s.refused++
	return status.Error(codes.FailedPrecondition, "another pod has opened the room since")
}

// IDs returns the ids of a room's messages, in their order.
func (s *Store) IDs(name string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.rooms[name]; r != nil {
		return slices.Clone(r.ids)
	}
	return nil
}

// Refused returns how many calls of stale owners were refused, and Shared how often two pods came with the same epoch, which
// must never be.
func (s *Store) Refused() (refused, shared int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused, s.shared
}
