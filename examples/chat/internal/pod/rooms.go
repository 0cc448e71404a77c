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

// keep is how long a room that was left finds its pod again.
const keep = 5 * time.Second

// rooms are those that this pod holds. They are a chatv1.ChatServiceServer behind the agent's Guard.
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
	epoch int64      // that it was loaded with; 0: it is not loaded
	ids   []string
}

func (r *rooms) room(name string) *room {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open[name] == nil {
		r.open[name] = &room{}
	}
	return r.open[name]
}

// Say implements chatv1.ChatServiceServer.
func (r *rooms) Say(ctx context.Context, request *chatv1.SayRequest) (*chatv1.SayReply, error) {
	held := r.room(request.GetRoom())
	held.mu.Lock()
	defer held.mu.Unlock()
	if held.epoch == 0 || held.epoch < client.Epoch(ctx) {
		if err := r.load(ctx, request.GetRoom(), held); err != nil {
			return nil, err
		}
	}
	reply := &chatv1.SayReply{PodId: r.agent.PodID(), Epoch: held.epoch}
	if said := slices.Index(held.ids, request.GetId()); said >= 0 {
		reply.Number = int64(said) + 1
		return reply, nil
	}
	_, err := r.store.AppendMessage(ctx, &chatv1.AppendMessageRequest{
		Room: request.GetRoom(), Epoch: held.epoch, PodId: r.agent.PodID(), Id: request.GetId(), Text: request.GetText(),
	})
	if err != nil {
		held.epoch = 0 // What the store has is not known any more.
		return nil, stale(err)
	}
	held.ids = append(held.ids, request.GetId())
	reply.Number = int64(len(held.ids))
	return reply, nil
}

// load begins the room's session, and reads what was said in it. From then on the store refuses whoever held it before.
func (r *rooms) load(ctx context.Context, name string, held *room) error {
	epoch, err := r.agent.StartSession(ctx, name)
	if err != nil {
		return err
	}
	opened, err := r.store.OpenRoom(ctx, &chatv1.OpenRoomRequest{Room: name, Epoch: epoch, PodId: r.agent.PodID()})
	if err != nil {
		return stale(err)
	}
	held.epoch, held.ids = epoch, opened.GetIds()
	return nil
}

// stale makes the store's refusal what it means to a caller: the room is another pod's.
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

// close forgets a room; all of it is in the store.
func (r *rooms) close(ctx context.Context, name string, keep time.Duration) {
	held := r.room(name)
	held.mu.Lock()
	defer held.mu.Unlock()
	held.epoch, held.ids = 0, nil
	r.agent.EndSession(ctx, name, keep)
}

// lost forgets a room that is another pod's.
func (r *rooms) lost(name string, epoch int64) {
	go func() { // The room may be busy with a message that waits for this very call.
		held := r.room(name)
		held.mu.Lock()
		defer held.mu.Unlock()
		if held.epoch == epoch {
			held.epoch, held.ids = 0, nil
		}
	}()
}

// handOver lets the rooms' sessions go on for a while, and then gives the rooms to the other pods.
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
