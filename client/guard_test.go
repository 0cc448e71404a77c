package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/transport"
	"github.com/stretchr/testify/require"

	v1 "podlink/api/podlink/v1"
)

func get(uid string) *v1.GetLinkedPodRequest {
	return &v1.GetLinkedPodRequest{Namespace: testNamespace, Uid: uid, Service: testService}
}

// refusedWith requires that the error is that refusal of pod 0, with the pod and the epoch.
func refusedWith(t *testing.T, err, want error, uid string, pod, epoch int64) {
	t.Helper()
	require.Error(t, err)
	require.ErrorIs(t, kerrors.FromError(err), want)
	require.Equal(t, map[string]string{
		"namespace": testNamespace, "service": testService, "uid": uid, "pod_id": fmt.Sprint(pod), "epoch": fmt.Sprint(epoch),
		"refused_by": "0",
	}, kerrors.FromError(err).Metadata)
}

// TestGuard: over both transports only users who are linked to the pod pass, and the others hear whose they are.
func TestGuard(t *testing.T) {
	onBoth(t, func(t *testing.T, over string) {
		w := newGuardWorld(t, func(o *guardOptions) { o.public = []string{v1.OperationWorkloadServiceBatchGetWorkloadState} })
		p := newPod(t, 0, w.middleware)
		registry := &world{t: t, over: over, instances: newInstances()}
		registry.put(p.instance(nil))
		chat := registry.stub(soon, nil)
		registry.connected(chat, 1) // By an operation that is public.
		p.done.Store(0)
		w.podlink.link("here", 0, 7)
		w.podlink.link("elsewhere", 1, 8)
		for range 2 {
			reply, err := chat.set(t.Context(), "here", "text")
			require.NoError(t, err)
			require.EqualValues(t, 7, reply.GetUpdateMs(), "the epoch")
			_, err = chat.set(t.Context(), "elsewhere", "text")
			refusedWith(t, err, ErrWrongPod, "elsewhere", 1, 8)
			_, err = chat.set(t.Context(), "nowhere", "text")
			refusedWith(t, err, ErrWrongPod, "nowhere", -1, 0)
		}
		require.EqualValues(t, 2, p.done.Load())
		w.podlink.link("nowhere", 0, 9)
		_, err := chat.set(t.Context(), "nowhere", "text")
		require.NoError(t, err, "a refusal is not remembered")
		w.leased.supersede()
		_, err = chat.set(t.Context(), "here", "text")
		refusedWith(t, err, ErrWrongPod, "here", 0, 0)
	})
}

// TestGuardAsksOnce: podlink is asked about a user once per CacheTTL, however many requests there are.
func TestGuardAsksOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newGuardWorld(t, nil)
		w.podlink.link("u", 0, 1)
		for range 10 {
			require.NoError(t, w.serve("u"))
		}
		require.Equal(t, 1, w.podlink.questions("u"))
		time.Sleep(guardCacheTTL)
		require.NoError(t, w.serve("u"))
		require.Equal(t, 2, w.podlink.questions("u"))
		require.Len(t, w.held.seen, 2, "the sessions see each answer")
	})
}

// TestGuardRequiresUser: a request that names no user is refused unless its operation is public, and so is one that names two.
func TestGuardRequiresUser(t *testing.T) {
	for name, row := range map[string]struct {
		header, body string
		match        UIDFunc
		uid          UIDFunc
		public       bool
		operation    string
		want         error
		epoch        int64 // of the user who was served
	}{
		"no header":                      {want: ErrUIDRequired},
		"no header, public":              {public: true},
		"no header, the body alone":      {body: "bob", want: ErrUIDRequired},
		"no field":                       {uid: userField, want: ErrUIDRequired},
		"no such field":                  {uid: Field("user"), body: "alice", want: ErrUIDRequired},
		"header":                         {header: "alice", epoch: 1},
		"header, public":                 {header: "alice", public: true, epoch: 1},
		"header alone, body another":     {header: "alice", body: "bob", epoch: 1},
		"match: both":                    {header: "alice", body: "alice", match: userField, epoch: 1},
		"match: they differ":             {header: "alice", body: "bob", match: userField, want: ErrUIDMismatch},
		"match: they differ, public":     {header: "alice", body: "bob", match: userField, public: true, want: ErrUIDMismatch},
		"match: header alone":            {header: "alice", match: userField, want: ErrUIDMismatch},
		"match: body alone":              {body: "bob", match: userField, want: ErrUIDRequired},
		"match: body alone, public":      {body: "bob", match: userField, public: true, want: ErrUIDRequired},
		"match: neither":                 {match: userField, want: ErrUIDRequired},
		"match: neither, public":         {match: userField, public: true},
		"another user":                   {header: "carol", want: ErrWrongPod},
		"another user, public":           {header: "carol", public: true, want: ErrWrongPod},
		"health":                         {operation: "/grpc.health.v1.Health/Check"},
		"Kratos' own":                    {operation: "/kratos.api.Metadata/ListServices"},
		"a name like health's":           {operation: "/grpcx.Health/Check", want: ErrUIDRequired},
		"a uid that podlink can't have":  {header: strings.Repeat("x", 257), want: ErrInvalidArgument},
		"a uid with a control character": {uid: userField, body: "a\x00b", want: ErrInvalidArgument},
		"a uid that is no text":          {header: "%ff", want: ErrInvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			if row.operation == "" {
				row.operation = operationSet
			}
			w := newGuardWorld(t, func(o *guardOptions) {
				o.uid, o.match = row.uid, row.match
				if row.public {
					o.public = []string{row.operation}
				}
			})
			w.podlink.link("alice", 0, 1)
			w.podlink.link("bob", 0, 2)
			w.podlink.link("carol", 1, 3)
			headers := header{}
			if row.header != "" {
				headers.Set(uidHeader, row.header)
			}
			served := false
			_, err := w.middleware(func(ctx context.Context, _ any) (any, error) {
				served = true
				require.Equal(t, row.epoch, Epoch(ctx))
				return nil, nil
			})(transport.NewServerContext(t.Context(), operationCall{&call{headers}, row.operation}), &v1.SetWorkloadStateRequest{Service: row.body})
			require.Equal(t, row.want == nil, served)
			require.ErrorIs(t, err, row.want)
			if errors.Is(err, ErrUIDRequired) || errors.Is(err, ErrUIDMismatch) {
				require.Contains(t, kerrors.FromError(err).Message, row.operation, "what to change")
				require.EqualValues(t, 400, kerrors.FromError(err).Code)
			}
		})
	}
}

// operationCall is a call of an operation.
type operationCall struct {
	*call
	operation string
}

func (c operationCall) Operation() string { return c.operation }

// TestGuardFailingUser: a user about whom podlink can't answer, once a second, keeps no other user from being asked about: one who
// was moved is refused within CacheTTL.
func TestGuardFailingUser(t *testing.T) {
	for name, row := range map[string]struct {
		uid  string
		fail error
		want error
	}{
		"corrupt data":      {uid: "bad", fail: v1.ErrorStoreDataCorrupt("the key holds something else"), want: ErrLinkUncertain},
		"internal":          {uid: "bad", fail: v1.ErrorInternal("internal"), want: ErrLinkUncertain},
		"malformed":         {uid: "bad", fail: v1.ErrorInvalidArgument("uid"), want: ErrInvalidArgument},
		"unavailable store": {uid: "bad", fail: v1.ErrorStoreUnavailable("one node"), want: ErrLinkUncertain},
		"rate limited":      {uid: "bad", fail: v1.ErrorRateLimited("slow down"), want: ErrLinkUncertain},
		"denied":            {uid: "bad", fail: v1.ErrorPermissionDenied("no"), want: ErrLinkUncertain},
		"no answer":         {uid: "bad", fail: withCause(ErrDeadlineExceeded, nil), want: ErrLinkUncertain},
		"not reached":       {uid: "bad", fail: withCause(ErrUnavailable, nil), want: ErrLinkUncertain},
		"a mishap":          {uid: "bad", fail: errors.New("stream terminated by RST_STREAM"), want: ErrLinkUncertain},
		"far too long":      {uid: strings.Repeat("x", 40_000), want: ErrInvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newGuardWorld(t, nil)
				w.podlink.link("good", 0, 1)
				w.podlink.set(func(p *guardPodlink) { p.errs[row.uid] = row.fail })
				require.NoError(t, w.serve("good"))
				w.podlink.link("good", 1, 2)
				moved := time.Now()
				for range 20 {
					require.ErrorIs(t, w.serve(row.uid), row.want)
					if err := w.serve("good"); err != nil {
						refusedWith(t, err, ErrWrongPod, "good", 1, 2)
						return
					}
					require.Less(t, time.Since(moved), guardCacheTTL)
					time.Sleep(time.Second)
				}
				t.Fatal("a user who has left is served for ever")
			})
		})
	}
}

// TestGuardOfCorruptUser: the user's own link does not count when podlink answers that it can't be read.
func TestGuardOfCorruptUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newGuardWorld(t, nil)
		w.podlink.link("u", 0, 5)
		require.NoError(t, w.serve("u"))
		w.podlink.set(func(p *guardPodlink) { p.errs["u"] = v1.ErrorStoreDataCorrupt("the key holds something else") })
		time.Sleep(guardCacheTTL)
		err := w.serve("u")
		refusedWith(t, err, ErrLinkUncertain, "u", 0, 0)
		require.Contains(t, kerrors.FromError(err).Message, "STORE_DATA_CORRUPT")
	})
}

// TestGuardWithoutPodlink: however podlink is away, known users are served as long as the lease holds, and others are not.
func TestGuardWithoutPodlink(t *testing.T) {
	for name, away := range map[string]func(p *guardPodlink){
		"refuses": func(p *guardPodlink) { p.down = withCause(ErrUnavailable, errors.New("connection refused")) },
		"hangs":   func(p *guardPodlink) { p.hangs = true },
		"is full": func(p *guardPodlink) { p.down = v1.ErrorStoreUnavailable("the store is unavailable") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newGuardWorld(t, nil)
				for _, uid := range []string{"u", "v", "idle"} {
					w.podlink.link(uid, 0, 1)
					require.NoError(t, w.serve(uid))
				}
				w.podlink.link("stranger", 0, 1)
				w.podlink.link("player", 0, 3)
				w.held.hold("player", holding{epoch: 3, verified: time.Now()})
				lease := time.Now()
				w.podlink.set(away)
				for time.Since(lease) < guardTTL-3*time.Second {
					require.NoError(t, w.serve("u"))
					require.NoError(t, w.serve("v"))
					require.NoError(t, w.serve("player"), "a session is a link that is known")
					refusedWith(t, w.serve("stranger"), ErrLinkUncertain, "stranger", 0, 0)
					time.Sleep(time.Second)
				}
				require.NoError(t, w.serve("idle"))
				time.Sleep(time.Until(lease.Add(guardTTL)))
				for range 2 {
					for _, uid := range []string{"u", "v", "idle", "stranger"} {
						refusedWith(t, w.serve(uid), ErrLinkUncertain, uid, 0, 0)
					}
					refusedWith(t, w.serve("player"), ErrLinkUncertain, "player", 0, 3)
					time.Sleep(time.Second)
				}
				w.podlink.set(func(p *guardPodlink) { p.down, p.hangs = nil, false })
				w.podlink.link("v", 1, 2)
				w.cache.way.note("", nil) // As the report's answer says.
				w.report()
				time.Sleep(guardTimeout) // Questions that hang are over.
				for _, uid := range []string{"u", "idle", "stranger", "player"} {
					require.NoError(t, w.serve(uid), uid)
				}
				refusedWith(t, w.serve("v"), ErrWrongPod, "v", 1, 2)
			})
		})
	}
}

// TestGuardWithoutLease: a pod that podlink may take for dead asks about each request, for podlink may move its users any time.
func TestGuardWithoutLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newGuardWorld(t, nil)
		w.podlink.link("u", 0, 1)
		time.Sleep(guardTTL - time.Second)
		require.NoError(t, w.serve("u"))
		w.podlink.link("u", 1, 2)
		require.NoError(t, w.serve("u"), "it was read under the lease")
		time.Sleep(time.Second)
		refusedWith(t, w.serve("u"), ErrWrongPod, "u", 1, 2)
		w.podlink.link("u", 0, 3)
		require.NoError(t, w.serve("u"))
		w.podlink.link("u", 1, 4)
		refusedWith(t, w.serve("u"), ErrWrongPod, "u", 1, 4)
	})
}

// TestGuardAfterLapse: what was known under a lease that has ended does not count under the next one, nor does an answer that was
// asked for before.
func TestGuardAfterLapse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newGuardWorld(t, nil)
		w.podlink.link("u", 0, 1)
		w.podlink.link("late", 0, 1)
		time.Sleep(guardTTL - time.Second)
		require.NoError(t, w.serve("u"))
		answer := make(chan error, 1)
		w.podlink.set(func(p *guardPodlink) { p.before = func() { time.Sleep(2500 * time.Millisecond) } })
		go func() { // Podlink has read the link before it moves the user, and answers late.
			_, err := w.request(context.Background(), "late")
			answer <- err
		}()
		time.Sleep(2 * time.Second)
		w.podlink.set(func(p *guardPodlink) { p.before = nil })
		w.podlink.link("u", 1, 2)
		w.podlink.link("late", 1, 2)
		w.report()
		refusedWith(t, w.serve("u"), ErrWrongPod, "u", 1, 2)
		refusedWith(t, <-answer, ErrWrongPod, "late", 1, 2)

		w.held.hold("player", holding{epoch: 3, verified: time.Now().Add(-3 * time.Second)})
		w.podlink.set(func(p *guardPodlink) { p.down = withCause(ErrUnavailable, nil) })
		refusedWith(t, w.serve("player"), ErrLinkUncertain, "player", 0, 3)
	})
}

// TestGuardBeforeFirstLease: what was known before the first report counts no longer: podlink may have moved the users of the
// process before.
func TestGuardBeforeFirstLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newGuardWorld(t, func(o *guardOptions) { o.lease = newLease(guardTTL) })
		w.podlink.link("u", 0, 1)
		require.NoError(t, w.serve("u"))
		w.podlink.link("u", 1, 2)
		refusedWith(t, w.serve("u"), ErrWrongPod, "u", 1, 2)
		w.podlink.link("u", 0, 3)
		require.NoError(t, w.serve("u"))
		w.podlink.link("u", 1, 4)
		time.Sleep(time.Millisecond)
		w.lease.renew(renewal{begun: time.Now(), generation: 1})
		refusedWith(t, w.serve("u"), ErrWrongPod, "u", 1, 4)
	})
}

// TestGuardSuperseded: a process whose ordinal another one has taken over serves nothing any more, except that it is not healthy.
func TestGuardSuperseded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newGuardWorld(t, func(o *guardOptions) { o.public = []string{operationSet} })
		w.podlink.link("u", 0, 1)
		require.NoError(t, w.serve("u"))
		require.NoError(t, w.serve(""))
		w.leased.supersede()
		err := w.serve("u")
		refusedWith(t, err, ErrWrongPod, "u", 0, 0)
		require.Equal(t, "another process has taken over this pod", kerrors.FromError(err).Message)
		refusedWith(t, w.serve(""), ErrWrongPod, "", 0, 0)
		require.Equal(t, 1, w.podlink.questions("u"))
	})
}

// TestGuardLeavesTime: the caller of a pod hears that podlink hangs in half of its time.
func TestGuardLeavesTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newGuardWorld(t, nil)
		w.podlink.set(func(p *guardPodlink) { p.hangs = true })
		w.held.restoring = func(ctx context.Context, uid string) (holding, error) {
			<-ctx.Done()
			return w.held.holding(uid), ctx.Err()
		}
		w.held.hold("doubted", holding{epoch: 1, uncertain: true})
		for _, uid := range []string{"u", "doubted"} {
			begin := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			_, err := w.request(ctx, uid)
			require.ErrorIs(t, err, ErrLinkUncertain)
			require.LessOrEqual(t, time.Since(begin), time.Second)
			cancel()
		}
		begin := time.Now()
		_, err := w.request(t.Context(), "u")
		require.ErrorIs(t, err, ErrLinkUncertain)
		require.LessOrEqual(t, time.Since(begin), guardTimeout, "without a deadline podlink's own")
	})
}

// TestGuardCallerLeaves: a caller who leaves is no sign that podlink is away.
func TestGuardCallerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newGuardWorld(t, nil)
		w.podlink.set(func(p *guardPodlink) { p.hangs = true })
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := w.request(ctx, "u")
		require.ErrorIs(t, err, ErrCanceled)
	})
}

// TestGuardRestores: a link with an epoch from before the session, and one that is gone, are the sessions' to put right, and then
// the user is served at once.
func TestGuardRestores(t *testing.T) {
	decided := func(held holding, err error) func(context.Context, string) (holding, error) {
		return func(context.Context, string) (holding, error) { return held, err }
	}
	for name, row := range map[string]struct {
		pod       int32
		epoch     int64
		held      holding
		restoring func(context.Context, string) (holding, error)
		restores  int
		served    int64 // the epoch; 0: refused
		want      error
	}{
		"older":                {pod: 0, epoch: 4, held: holding{epoch: 5}, restoring: decided(holding{epoch: 6}, nil), restores: 1, served: 6},
		"gone":                 {pod: -1, held: holding{epoch: 5}, restoring: decided(holding{epoch: 6}, nil), restores: 1, served: 6},
		"doubted":              {pod: 0, epoch: 5, held: holding{epoch: 5, uncertain: true}, restoring: decided(holding{epoch: 6}, nil), restores: 1, served: 6},
		"gone, not decided":    {pod: -1, held: holding{epoch: 5}, restoring: decided(holding{epoch: 5, uncertain: true}, nil), restores: 1, want: ErrLinkUncertain},
		"older, a failure":     {pod: 0, epoch: 4, held: holding{epoch: 5}, restoring: decided(holding{epoch: 5}, io.EOF), restores: 1, want: ErrLinkUncertain},
		"older, not decided":   {pod: 0, epoch: 4, held: holding{epoch: 5}, restoring: decided(holding{epoch: 5, uncertain: true}, withCause(ErrLinkUncertain, io.EOF)), restores: 1, want: ErrLinkUncertain},
		"older, left":          {pod: 0, epoch: 4, held: holding{epoch: 5}, restoring: decided(holding{epoch: 5}, withCause(ErrCanceled, nil)), restores: 1, want: ErrCanceled},
		"older, lost by it":    {pod: 0, epoch: 4, held: holding{epoch: 5}, restoring: decided(holding{}, withCause(ErrWrongPod, nil)), restores: 1, want: ErrWrongPod},
		"older, ended by then": {pod: 0, epoch: 4, held: holding{epoch: 5}, restoring: decided(holding{}, nil), restores: 1, want: ErrLinkUncertain},
		"right":                {pod: 0, epoch: 5, held: holding{epoch: 5}, served: 5},
		"newer":                {pod: 0, epoch: 6, held: holding{epoch: 5}, served: 6},
		"another pod's":        {pod: 1, epoch: 6, held: holding{epoch: 5}, want: ErrWrongPod},
		"gone, no session":     {pod: -1, want: ErrWrongPod},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newGuardWorld(t, nil)
				w.podlink.link("u", row.pod, row.epoch)
				w.held.hold("u", row.held)
				w.held.restoring = row.restoring
				inner, err := w.request(t.Context(), "u")
				require.ErrorIs(t, err, row.want)
				require.Equal(t, row.restores, w.held.restores)
				if row.served != 0 {
					require.Equal(t, row.served, Epoch(inner))
				}
			})
		})
	}
}

// TestGuardTrustsTheSession: a claim that podlink has just confirmed need not be asked about, also if what was known before is older.
func TestGuardTrustsTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newGuardWorld(t, nil)
		w.podlink.link("u", 0, 4)
		require.NoError(t, w.serve("u"))
		w.podlink.link("u", 0, 5)
		w.held.hold("u", holding{epoch: 5, verified: time.Now()})
		inner, err := w.request(t.Context(), "u")
		require.NoError(t, err)
		require.EqualValues(t, 5, Epoch(inner))
		w.forget("u")
		require.NoError(t, w.serve("u"))
		require.Equal(t, 1, w.podlink.questions("u"))
		w.podlink.link("u", 1, 6)
		time.Sleep(guardCacheTTL)
		refusedWith(t, w.serve("u"), ErrWrongPod, "u", 1, 6)
	})
}

// TestGuardDoesNotAskAboutDoubt: while the sessions find out what has happened to a link, its requests do not ask podlink.
func TestGuardDoesNotAskAboutDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newGuardWorld(t, nil)
		w.held.hold("u", holding{epoch: 5, uncertain: true})
		for range 10 {
			refusedWith(t, w.serve("u"), ErrLinkUncertain, "u", 0, 5)
		}
		require.Zero(t, w.podlink.questions("u"))
	})
}

// TestGuardEpoch: the handler's context has the link's epoch, and the agent learns from it which one the request has seen.
func TestGuardEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, other := newGuardWorld(t, nil), newGuardWorld(t, nil)
		w.podlink.link("u", 0, 7)
		inner, err := w.request(t.Context(), "u")
		require.NoError(t, err)
		require.EqualValues(t, 7, Epoch(inner))
		require.EqualValues(t, 7, w.seen(inner, "u"))
		require.Zero(t, w.seen(inner, "v"), "of another user than the request's")
		require.Zero(t, other.seen(inner, "u"), "of another pod's guard")
		require.Zero(t, Epoch(t.Context()))
		require.Zero(t, w.seen(t.Context(), "u"))
		derived, cancel := context.WithTimeout(inner, time.Second)
		defer cancel()
		require.EqualValues(t, 7, Epoch(derived))
	})
}

// TestGuardOfPanickingFunction: a request at which the user's function panics is refused, and the log says so once per operation.
func TestGuardOfPanickingFunction(t *testing.T) {
	var logged strings.Builder
	w := newGuardWorld(t, func(o *guardOptions) {
		o.uid = func(_ context.Context, request any) string { return request.(*v1.GetLinkedPodRequest).GetUid() }
		o.log = log.NewHelper(log.NewStdLogger(&logged))
	})
	for range 3 {
		require.ErrorIs(t, w.serve("u"), ErrUIDRequired)
	}
	require.Equal(t, 1, strings.Count(logged.String(), "panicked at "+operationSet))
	require.Contains(t, logged.String(), "guard_test.go", "the stack")
}
