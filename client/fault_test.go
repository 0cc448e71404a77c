package client

import (
	"context"
	"errors"
	"io"
	nethttp "net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-kratos/kratos/contrib/registry/etcd/v2"
	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	etcdtest "podlink/test/kit/etcd"
	podlinktest "podlink/test/kit/podlink"
	"podlink/test/kit/proc"
	redistest "podlink/test/kit/redis"
)

// slack is how much later than its time a call may end on a busy machine.
const slack = 2 * time.Second

// freeze stops podlink as a stalled machine would: connections stay open, and nothing answers. It goes on with the test's end
// at the latest.
func freeze(t *testing.T, p *podlinktest.Process) (thaw func()) {
	t.Helper()
	require.NoError(t, p.Freeze())
	thaw = func() { _ = p.Resume() } // It may have been killed.
	t.Cleanup(thaw)
	return thaw
}

// requests is how many calls of the operation, such as SetLinkedPod, podlink has answered so; with no reason: well.
func requests(t *testing.T, p *podlinktest.Process, operation, reason string) (n int) {
	t.Helper()
	response, err := (&nethttp.Client{Transport: &nethttp.Transport{DisableKeepAlives: true}}).Get("http://" + p.Admin + "/metrics")
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "server_requests_code_total{") && strings.Contains(line, "/"+operation+`"`) && strings.Contains(line, `reason="`+reason+`"`) {
			value, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndex(line, " "):]), 64)
			require.NoError(t, err)
			n += int(value)
		}
	}
	return n
}

// TestPodlinkIsNotThere: nothing was carried out, and the call says so within its time.
func TestPodlinkIsNotThere(t *testing.T) {
	t.Parallel()
	for name, gone := range map[string]func(t *testing.T, http bool, o Options) *Client{
		"never was": func(t *testing.T, _ bool, o Options) *Client { return dialed(t, proc.FreeAddr(t), o) },
		"killed": func(t *testing.T, http bool, o Options) *Client {
			p := start(t)
			c := dialed(t, addr(p, http), o)
			_, err := setLink(t.Context(), c)
			require.NoError(t, err)
			p.Kill()
			_, _ = readLink(t.Context(), c) // From now on the client knows, and a mutation is not sent.
			return c
		},
	} {
		t.Run(name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, http bool) {
				t.Parallel()
				const timeout = time.Second
				c := gone(t, http, Options{HTTP: http, Timeout: timeout})
				for _, call := range []apiCall{readLink, setLink} {
					begin := time.Now()
					_, err := call(t.Context(), c)
					requireError(t, wantError{is: ErrUnavailable}, err)
					require.Less(t, time.Since(begin), timeout+slack)
				}
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				_, err := setLink(ctx, c)
				requireError(t, wantError{is: ErrCanceled}, err)
				require.ErrorIs(t, err, context.Canceled)
			})
		})
	}
}

// TestPodlinkHangs: a read has run out of time; of a mutation nobody knows. Each call ends within the time of the client, or
// of its caller where that is shorter, and it was sent once if it is a mutation.
func TestPodlinkHangs(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		call             apiCall
		timeout, callers time.Duration // 0: the caller has none
		want             error
	}{
		"a read":                            {readLink, 1500 * time.Millisecond, 0, ErrDeadlineExceeded},
		"a mutation":                        {setLink, 1500 * time.Millisecond, 0, ErrOutcomeUnknown},
		"a read, a caller in a hurry":       {readLink, time.Hour, 500 * time.Millisecond, ErrDeadlineExceeded},
		"a mutation, a caller in a hurry":   {setLink, time.Hour, 500 * time.Millisecond, ErrOutcomeUnknown},
		"a read, a caller who has time":     {readLink, 1500 * time.Millisecond, time.Hour, ErrDeadlineExceeded},
		"a mutation, a caller who has time": {setLink, 1500 * time.Millisecond, time.Hour, ErrOutcomeUnknown},
		"a mutation, the default":           {setLink, 0, 0, ErrOutcomeUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, http bool) {
				t.Parallel()
				p := start(t)
				c := dialed(t, addr(p, http), Options{HTTP: http, Timeout: row.timeout})
				_, err := setLink(t.Context(), c)
				require.NoError(t, err)
				thaw := freeze(t, p)
				ctx, limit, hurry := t.Context(), c.timeout, row.callers > 0 && row.callers < c.timeout
				if row.callers > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, row.callers)
					defer cancel()
					limit = min(limit, row.callers)
				}
				begin := time.Now()
				_, err = row.call(ctx, c)
				require.Less(t, time.Since(begin), limit+slack)
				requireError(t, wantError{is: row.want}, err)
				if hurry {
					require.ErrorIs(t, err, context.DeadlineExceeded)
				}
				thaw()
				_, err = dialed(t, addr(p, http), Options{HTTP: http, Timeout: time.Minute}).GetServiceState(
					t.Context(), &v1.GetServiceStateRequest{Namespace: "game", Service: "room"})
				require.NoError(t, err)
				require.LessOrEqual(t, requests(t, p, "SetLinkedPod", ""), 2, "the one before, and this one at most once")
			})
		})
	}
}

// TestReadOutlivesAFreeze: podlink hangs for longer than a try, and the read is answered all the same.
func TestReadOutlivesAFreeze(t *testing.T) {
	overBoth(t, func(t *testing.T, http bool) {
		t.Parallel()
		p := start(t)
		const timeout = 12 * time.Second
		c := dialed(t, addr(p, http), Options{HTTP: http, Timeout: timeout})
		_, err := setLink(t.Context(), c)
		require.NoError(t, err)
		thaw := freeze(t, p)
		begin := time.Now()
		time.AfterFunc(timeout/tries+time.Second, thaw)
		got, err := readLink(t.Context(), c)
		require.NoError(t, err)
		require.Greater(t, time.Since(begin), timeout/tries)
		require.EqualValues(t, 3, got.(*v1.GetLinkedPodReply).GetLink().GetPodId())
	})
}

// cutTry is a transport whose first try is answered that the store is unavailable; no later one finds the time to be sent.
type cutTry struct {
	grpc.ClientConnInterface
	tries int
}

func (c *cutTry) Invoke(ctx context.Context, _ string, _, _ any, _ ...grpc.CallOption) error {
	if c.tries++; c.tries == 1 {
		ctx.Value(sentKey{}).(*atomic.Bool).Store(true)
		return ErrStoreUnavailable
	}
	<-ctx.Done()
	return ctx.Err()
}

// TestLastTryIsCut: a call is what its last try has met that had the time to be sent.
func TestLastTryIsCut(t *testing.T) {
	t.Parallel()
	for _, method := range []string{v1.LinkService_GetLinkedPod_FullMethodName, v1.LinkService_SetLinkedPod_FullMethodName} {
		var cut cutTry
		err := conn{&cut, time.Second, t.Context()}.Invoke(t.Context(), method, &v1.GetLinkedPodRequest{}, nil)
		requireError(t, wantError{is: ErrStoreUnavailable}, err)
		require.Equal(t, 2, cut.tries)

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err = conn{new(cutTry), time.Hour, t.Context()}.Invoke(ctx, method, &v1.GetLinkedPodRequest{}, nil)
		requireError(t, wantError{is: ErrStoreUnavailable}, err)
		require.ErrorIs(t, err, context.DeadlineExceeded, "the caller's time was over")
	}
}

// TestWhoIsSentAgain: after a try without an answer, a read is, and a mutation is not.
func TestWhoIsSentAgain(t *testing.T) {
	overBoth(t, func(t *testing.T, http bool) {
		t.Parallel()
		var calls atomic.Int32
		s := served(t, http, nil, func(ctx context.Context) error {
			if calls.Add(1)%2 == 1 {
				return hangs(ctx)
			}
			return nil
		})
		c := dialed(t, s.addr, Options{HTTP: http, Timeout: 3 * time.Second})
		_, err := readLink(t.Context(), c)
		require.NoError(t, err)
		require.EqualValues(t, 2, calls.Load())

		_, err = setLink(t.Context(), c)
		requireError(t, wantError{is: ErrOutcomeUnknown}, err)
		require.EqualValues(t, 3, calls.Load())
	})
}

// TestCallerLeaves: the call ends at once. A mutation that has reached podlink may be carried out.
func TestCallerLeaves(t *testing.T) {
	for name, row := range map[string]struct {
		call  apiCall
		leave func(t *testing.T, cancel func(), c *Client)
		want  error
		cause error
	}{
		"a read is canceled":               {readLink, func(_ *testing.T, cancel func(), _ *Client) { cancel() }, ErrCanceled, context.Canceled},
		"a mutation is canceled":           {setLink, func(_ *testing.T, cancel func(), _ *Client) { cancel() }, ErrOutcomeUnknown, context.Canceled},
		"the client is closed, a read":     {readLink, func(t *testing.T, _ func(), c *Client) { require.NoError(t, c.Close()) }, ErrUnavailable, nil},
		"the client is closed, a mutation": {setLink, func(t *testing.T, _ func(), c *Client) { require.NoError(t, c.Close()) }, ErrOutcomeUnknown, nil},
	} {
		t.Run(name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, http bool) {
				s := served(t, http, nil, hangs)
				c, err := New(s.addr, Options{HTTP: http, Timeout: time.Hour})
				require.NoError(t, err)
				defer c.Close()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				done := make(chan error, 1)
				go func() {
					_, err := row.call(ctx, c)
					done <- err
				}()
				<-s.arrived
				row.leave(t, cancel, c)
				err = <-done
				requireError(t, wantError{is: row.want}, err)
				if row.cause != nil {
					require.ErrorIs(t, err, row.cause)
				}
			})
		})
	}
}

// TestCallerLeavesBetweenTries: nothing was carried out, and it is the caller who has left.
func TestCallerLeavesBetweenTries(t *testing.T) {
	for name, call := range map[string]apiCall{"a read": readLink, "a mutation": setLink} {
		t.Run(name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, http bool) {
				s := served(t, http, nil, func(context.Context) error { return ErrStoreUnavailable })
				c := dialed(t, s.addr, Options{HTTP: http, Timeout: time.Hour})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				done := make(chan error, 1)
				go func() {
					_, err := call(ctx, c)
					done <- err
				}()
				for range 4 { // It is repeated.
					<-s.arrived
				}
				cancel()
				err := <-done
				require.ErrorIs(t, err, context.Canceled)
				if !errors.Is(err, ErrOutcomeUnknown) { // In the short time of a try.
					requireError(t, wantError{is: ErrCanceled}, err)
				}
			})
		})
	}
}

// TestMutationWaitsForPodlink: it is repeated until podlink is there, and carried out once.
func TestMutationWaitsForPodlink(t *testing.T) {
	overBoth(t, func(t *testing.T, http bool) {
		t.Parallel()
		target, listener := proc.FreeAddr(t), "GRPC"
		if http {
			listener = "HTTP"
		}
		c := dialed(t, target, Options{HTTP: http, Timeout: 30 * time.Second})
		done := make(chan error, 1)
		var reply proto.Message
		go func() {
			var err error
			reply, err = setLink(t.Context(), c)
			done <- err
		}()
		select { // Long enough for some tries.
		case err := <-done:
			require.NoError(t, err, "podlink is not there yet")
		case <-time.After(time.Second):
		}
		p := start(t, "PODLINK_SERVER_"+listener+"_ADDR="+target)
		require.NoError(t, <-done)
		require.EqualValues(t, -1, reply.(*v1.SetLinkedPodReply).GetPreviousPodId())
		require.Equal(t, 1, requests(t, p, "SetLinkedPod", ""))
	})
}

// TestCallsWaitForTheStore: STORE_UNAVAILABLE is repeated, for a read and for a mutation, until the store is back.
func TestCallsWaitForTheStore(t *testing.T) {
	for name, row := range map[string]struct {
		operation string
		call      apiCall
	}{"a read": {"GetLinkedPod", readLink}, "a mutation": {"SetLinkedPod", setLink}} {
		t.Run(name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, http bool) {
				t.Parallel()
				redis := redistest.Start(t)
				p := start(t, podlinktest.OnRedis("standalone", redis.Addr())...)
				p.WaitReady(t)
				c := dialed(t, addr(p, http), Options{HTTP: http, Timeout: 30 * time.Second})
				redis.Kill()
				done := make(chan error, 1)
				go func() {
					_, err := row.call(t.Context(), c)
					done <- err
				}()
				require.Eventually(t, func() bool { return requests(t, p, row.operation, "STORE_UNAVAILABLE") > 1 }, 10*time.Second, 20*time.Millisecond)
				redis.Restart()
				require.NoError(t, <-done)
				require.Equal(t, 1, requests(t, p, row.operation, ""), "carried out once")
			})
		})
	}
}

// TestSomethingBetween: a proxy or another server that answers in podlink's place, in its own way.
func TestSomethingBetween(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		status int
		body   string
		read   error // nil: what it said
		set    error
	}{
		"a proxy that lost podlink":        {502, "<html>Bad Gateway</html>", ErrUnavailable, ErrOutcomeUnknown},
		"a proxy that waited too long":     {504, "upstream timeout", ErrDeadlineExceeded, ErrOutcomeUnknown},
		"a proxy that forbids":             {403, "no", nil, nil},
		"another server":                   {404, "404 page not found", nil, nil},
		"a portal that says yes to all":    {200, "<html>Welcome</html>", ErrUnavailable, ErrOutcomeUnknown},
		"an answer that ends in its midst": {200, `{"link":{"podId":`, ErrUnavailable, ErrOutcomeUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int32
			between := httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, _ *nethttp.Request) {
				calls.Add(1)
				w.WriteHeader(row.status)
				_, _ = io.WriteString(w, row.body)
			}))
			t.Cleanup(between.Close)
			c := dialed(t, between.URL, Options{HTTP: true, Timeout: time.Second})
			for want, call := range map[*error]apiCall{&row.read: readLink, &row.set: setLink} {
				calls.Store(0)
				err := atItsEnd(*want, func() error {
					_, err := call(t.Context(), c)
					return err
				})
				if *want == nil {
					require.EqualValues(t, row.status, kerrors.Code(err))
					require.EqualValues(t, 1, calls.Load(), "not repeated")
					continue
				}
				requireError(t, wantError{is: *want}, err)
			}
			if row.set != nil {
				calls.Store(0)
				_, _ = setLink(t.Context(), c)
				require.EqualValues(t, 1, calls.Load(), "a mutation is sent once")
			}
		})
	}
}

// registryOf returns a registry of Kratos in the etcd.
func registryOf(t *testing.T, server *etcdtest.Server) *etcd.Registry {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{server.Addr}, Logger: zap.NewNop()})
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return etcd.New(client)
}

// TestDiscovery: podlink is found by its name; calls go on while the registry is away, and a new client finds podlink soon
// after it is back.
func TestDiscovery(t *testing.T) {
	overBoth(t, func(t *testing.T, http bool) {
		t.Parallel()
		const foundLimit = 10 * time.Second
		server := etcdtest.Start(t)
		start(t, "PODLINK_REGISTRY_TYPE=etcd", "PODLINK_REGISTRY_ADDRS="+server.Addr, "PODLINK_DATA_REDIS_ALLOW_EMBEDDED=true")
		o := Options{HTTP: http, Discovery: registryOf(t, server), Timeout: foundLimit}
		c := dialed(t, "discovery:///podlink", o)
		_, err := setLink(t.Context(), c)
		require.NoError(t, err)

		server.Kill()
		_, err = readLink(t.Context(), c)
		require.NoError(t, err, "it knows where podlink is")
		server.Restart()
		_, err = readLink(t.Context(), c)
		require.NoError(t, err)
		o.Discovery = registryOf(t, server)
		_, err = readLink(t.Context(), dialed(t, "discovery:///podlink", o))
		require.NoError(t, err, "a new client")
	})
}

// TestNewWithoutTheRegistry: it returns at once, calls end within their time, and work as soon as the registry is back.
func TestNewWithoutTheRegistry(t *testing.T) {
	overBoth(t, func(t *testing.T, http bool) {
		t.Parallel()
		server := etcdtest.Start(t)
		p := start(t, "PODLINK_REGISTRY_TYPE=etcd", "PODLINK_REGISTRY_ADDRS="+server.Addr, "PODLINK_DATA_REDIS_ALLOW_EMBEDDED=true")
		p.Log.Wait(t, "podlink is registered")
		server.Kill()
		begin := time.Now()
		o := Options{HTTP: http, Discovery: registryOf(t, server), Timeout: time.Second}
		c := dialed(t, "discovery:///podlink", o)
		_, err := setLink(t.Context(), c)
		requireError(t, wantError{is: ErrUnavailable}, err)
		require.Less(t, time.Since(begin), o.Timeout+slack)
		server.Restart()
		require.Eventually(t, func() bool {
			_, err := setLink(t.Context(), c)
			return err == nil
		}, 30*time.Second, 20*time.Millisecond)
	})
}

// TestNobodyIsRegistered: the registry is there, and knows no podlink.
func TestNobodyIsRegistered(t *testing.T) {
	server := etcdtest.Start(t)
	overBoth(t, func(t *testing.T, http bool) {
		t.Parallel()
		c := dialed(t, "discovery:///podlink", Options{HTTP: http, Discovery: registryOf(t, server), Timeout: time.Second})
		for _, call := range []apiCall{readLink, setLink} {
			_, err := call(t.Context(), c)
			requireError(t, wantError{is: ErrUnavailable}, err)
		}
	})
}
