// Package store is the chat's storage, in memory. It is fenced, as a database with a condition on the epoch would be: loading a
// room raises its stored epoch in the same step, and every later call with a smaller epoch is refused. To fence only the writes
// would lose messages: a previous owner could write between the load and the first write of the next one.
package store

import (
	"context"
	"slices"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	chatv1 "podlink/examples/chat/api/chat/v1"
)

// Store implements chatv1.StoreServiceServer.
type Store struct {
	chatv1.UnimplementedStoreServiceServer

	mu      sync.Mutex
	rooms   map[string]*room
	refused int
	shared  int
}

type room struct {
	epoch   int64  // the greatest epoch that opened it
	process string // the process that opened it with that epoch
	ids     []string
}

// New returns an empty store.
func New() *Store {
	return &Store{rooms: map[string]*room{}}
}

// OpenRoom implements chatv1.StoreServiceServer. From then on, writes with a smaller epoch are refused.
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
	case request.GetEpoch() == r.epoch && request.GetProcess() != r.process:
		s.shared++ // Two processes own one room: podlink must prevent this.
		return nil, s.stale()
	}
	r.epoch, r.process = request.GetEpoch(), request.GetProcess()
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
	case request.GetProcess() != r.process:
		s.shared++
		return nil, s.stale()
	}
	r.ids = append(r.ids, request.GetId())
	return &chatv1.AppendMessageReply{}, nil
}

// stale counts a refused call and returns its error. The caller must hold the lock.
func (s *Store) stale() error {
	s.refused++
	return status.Error(codes.FailedPrecondition, "another process has opened the room since")
}

// IDs returns the ids of a room's messages, oldest first.
func (s *Store) IDs(name string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.rooms[name]; r != nil {
		return slices.Clone(r.ids)
	}
	return nil
}

// Refused returns the number of refused calls, and how many of them came from a second process with the same epoch: that must be 0.
func (s *Store) Refused() (refused, shared int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused, s.shared
}
