package pod

import (
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"podlink/client"
	chatv1 "podlink/examples/chat/api/chat/v1"
)

// keep is the lifetime of a left room's link: until then, the next message goes to the same pod.
const keep = 5 * time.Second

// rooms implements chatv1.ChatServiceServer with the rooms in this pod's memory. It runs behind the agent's Guard.
type rooms struct {
	chatv1.UnimplementedChatServiceServer
	agent *client.Agent
	store chatv1.StoreServiceClient

	mu   sync.Mutex
	open map[string]*room
}

// room is a room in memory.
type room struct {
	mu    sync.Mutex // one message at a time
	epoch int64      // the link's epoch when it was loaded; 0: not loaded
	ids   []string
}

// get returns the room of that name, which may not be loaded yet.
func (r *rooms) get(name string) *room {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open[name] == nil {
		r.open[name] = &room{}
	}
	return r.open[name]
}

// Say implements chatv1.ChatServiceServer.
func (r *rooms) Say(ctx context.Context, request *chatv1.SayRequest) (*chatv1.SayReply, error) {
	rm := r.get(request.GetRoom())
	rm.mu.Lock()
	defer rm.mu.Unlock()
	if rm.epoch == 0 || rm.epoch < client.Epoch(ctx) {
		if err := r.load(ctx, request.GetRoom(), rm); err != nil {
			return nil, err
		}
	}
	reply := &chatv1.SayReply{PodId: r.agent.PodID(), Epoch: rm.epoch}
	if said := slices.Index(rm.ids, request.GetId()); said >= 0 {
		reply.Number = int64(said) + 1
		return reply, nil
	}
	_, err := r.store.AppendMessage(ctx, &chatv1.AppendMessageRequest{
		Room: request.GetRoom(), Epoch: rm.epoch, PodId: r.agent.PodID(), Id: request.GetId(), Text: request.GetText(),
	})
	if err != nil {
		rm.epoch = 0 // The message may be in the store: load the room again.
		return nil, stale(err)
	}
	rm.ids = append(rm.ids, request.GetId())
	reply.Number = int64(len(rm.ids))
	return reply, nil
}

// load starts the room's session and reads its messages. From then on the store refuses the previous owner.
func (r *rooms) load(ctx context.Context, name string, rm *room) error {
	epoch, err := r.agent.StartSession(ctx, name)
	if err != nil {
		return err
	}
	opened, err := r.store.OpenRoom(ctx, &chatv1.OpenRoomRequest{Room: name, Epoch: epoch, PodId: r.agent.PodID()})
	if err != nil {
		return stale(err)
	}
	rm.epoch, rm.ids = epoch, opened.GetIds()
	return nil
}

// stale maps the store's refusal of an old epoch to the error for callers: another pod owns the room.
func stale(err error) error {
	if status.Code(err) == codes.FailedPrecondition {
		return client.ErrWrongPod
	}
	return err
}

// Leave implements chatv1.ChatServiceServer.
func (r *rooms) Leave(ctx context.Context, request *chatv1.LeaveRequest) (*chatv1.LeaveReply, error) {
	r.close(ctx, request.GetRoom(), keep)
	return &chatv1.LeaveReply{}, nil
}

// close drops a room from memory and ends its session. The store has all of its messages.
func (r *rooms) close(ctx context.Context, name string, keep time.Duration) {
	rm := r.get(name)
	rm.mu.Lock()
	defer rm.mu.Unlock()
	rm.epoch, rm.ids = 0, nil
	r.agent.EndSession(ctx, name, keep)
}

// lost drops a room that another pod owns now.
func (r *rooms) lost(name string, epoch int64) {
	go func() { // In the background: the message that holds the room's lock may be waiting for this callback.
		rm := r.get(name)
		rm.mu.Lock()
		defer rm.mu.Unlock()
		if rm.epoch == epoch {
			rm.epoch, rm.ids = 0, nil
		}
	}()
}

// handOver ends all sessions after a while, so that other pods take the rooms.
func (r *rooms) handOver(ctx context.Context, after time.Duration) {
	select {
	case <-time.After(after):
	case <-ctx.Done():
		return
	}
	r.mu.Lock()
	var names []string
	for name := range r.open {
		names = append(names, name)
	}
	r.mu.Unlock()
	for _, name := range names {
		r.close(ctx, name, 0)
	}
}
