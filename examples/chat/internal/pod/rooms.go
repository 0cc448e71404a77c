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
const keep = 30 * time.Second

// rooms implements chatv1.ChatServiceServer with the rooms in this pod's memory. It runs behind the agent's Guard.
type rooms struct {
	chatv1.UnimplementedChatServiceServer
	agent   *client.Agent
	store   chatv1.StoreServiceClient
	process string

	mu   sync.Mutex
	open map[string]*room
}

// room is a room in memory, or the place for one.
type room struct {
	mu      sync.Mutex      // one message at a time
	session *client.Session // nil: the pod does not hold the room
	epoch   int64           // of the session when the room was loaded; 0: not loaded
	ids     []string
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
	if err := r.load(ctx, request.GetRoom(), rm); err != nil {
		return nil, err
	}
	reply := &chatv1.SayReply{PodId: r.agent.PodID(), Epoch: rm.epoch}
	if said := slices.Index(rm.ids, request.GetId()); said >= 0 {
		reply.Number = int64(said) + 1
		return reply, nil
	}
	_, err := r.store.AppendMessage(ctx, &chatv1.AppendMessageRequest{
		Room: request.GetRoom(), Epoch: rm.epoch, Process: r.process, Id: request.GetId(), Text: request.GetText(),
	})
	if err != nil {
		rm.epoch = 0 // The message may be in the store: load the room again.
		return nil, rm.refused(ctx, err)
	}
	rm.ids = append(rm.ids, request.GetId())
	reply.Number = int64(len(rm.ids))
	return reply, nil
}

// load starts the room's session unless it runs, and reads the room unless it was read with the session's epoch: a greater one
// means that another pod may have held the room in between. From then on the store refuses all earlier owners.
func (r *rooms) load(ctx context.Context, name string, rm *room) error {
	if rm.session == nil || isLost(rm.session) {
		session, err := r.agent.StartSession(ctx, name)
		if err != nil {
			return err
		}
		rm.session, rm.epoch = session, 0
	}
	epoch := rm.session.Epoch()
	if rm.epoch == epoch {
		return nil
	}
	opened, err := r.store.OpenRoom(ctx, &chatv1.OpenRoomRequest{Room: name, Epoch: epoch, Process: r.process})
	if err != nil {
		return rm.refused(ctx, err)
	}
	rm.epoch, rm.ids = epoch, opened.GetIds()
	return nil
}

func isLost(session *client.Session) bool {
	select {
	case <-session.Lost():
		return true
	default:
		return false
	}
}

// refused returns the error for the sender of a message that the store has not taken. When the store knows a greater epoch, another
// process owns the room, and the session here is over, whether podlink has said so already or not: the sender's router asks podlink, and
// repeats the message there.
func (rm *room) refused(ctx context.Context, err error) error {
	if status.Code(err) != codes.FailedPrecondition {
		return err
	}
	refusal := rm.session.Refusal()
	rm.end(ctx, keep)
	return refusal
}

// end ends the room's session, and drops the room. The store has all of its messages. The caller holds the lock.
func (rm *room) end(ctx context.Context, keep time.Duration) {
	if rm.session != nil {
		rm.session.End(ctx, keep)
	}
	rm.session, rm.epoch, rm.ids = nil, 0, nil
}

// Leave implements chatv1.ChatServiceServer.
func (r *rooms) Leave(ctx context.Context, request *chatv1.LeaveRequest) (*chatv1.LeaveReply, error) {
	rm := r.get(request.GetRoom())
	rm.mu.Lock()
	defer rm.mu.Unlock()
	rm.end(ctx, keep)
	return &chatv1.LeaveReply{}, nil
}

// lost drops a room whose session of that epoch is lost: nothing of it may be saved. It waits for the message that the room may be
// in the middle of, whose write the store refuses.
func (r *rooms) lost(name string, epoch int64) {
	rm := r.get(name)
	rm.mu.Lock()
	defer rm.mu.Unlock()
	if rm.session != nil && rm.session.Epoch() <= epoch {
		rm.end(context.Background(), 0)
	}
}

// handOver ends all sessions after a while, so that other pods take the rooms.
func (r *rooms) handOver(ctx context.Context, after time.Duration) {
	select {
	case <-time.After(after):
	case <-ctx.Done():
		return
	}
	r.mu.Lock()
	all := make([]*room, 0, len(r.open))
	for _, rm := range r.open {
		all = append(all, rm)
	}
	r.mu.Unlock()
	for _, rm := range all {
		rm.mu.Lock()
		rm.end(ctx, 0)
		rm.mu.Unlock()
	}
}
