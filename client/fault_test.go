package client

import (
	"context"
	"io"
	"net"
	nethttp "net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-kratos/kratos/contrib/registry/etcd/v2"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
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
			waitConnected(t, c)
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

// TestPodlinkHangs: a read has run out of time; of a mutation the outcome is unknown. Each call ends within the time of the client, or
// of its caller where that is shorter, and it was sent once if it is a mutation.
func TestPodlinkHangs(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		call             apiCall
		timeout, callers time.Duration // 0: the caller has none
		want             error
	}{
		"a read":                            {readLink, 4500 * time.Millisecond, 0, ErrDeadlineExceeded},
		"a mutation":                        {setLink, 4500 * time.Millisecond, 0, ErrOutcomeUnknown},
		"a read, a caller in a hurry":       {readLink, time.Hour, 2 * time.Second, ErrDeadlineExceeded},
		"a mutation, a caller in a hurry":   {setLink, time.Hour, 2 * time.Second, ErrOutcomeUnknown},
		"a read, a caller who has time":     {readLink, 4500 * time.Millisecond, time.Hour, ErrDeadlineExceeded},
		"a mutation, a caller who has time": {setLink, 4500 * time.Millisecond, time.Hour, ErrOutcomeUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, http bool) {
				t.Parallel()
				p := start(t)
				c := dialed(t, addr(p, http), Options{HTTP: http, Timeout: row.timeout})
				waitConnected(t, c)
				thaw := freeze(t, p)
				ctx, limit, hurry := t.Context(), c.timeout, row.callers > 0 && row.callers < c.timeout
				if row.callers > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, row.callers)
					defer cancel()
					limit = min(limit, row.callers)
				}
				begin := time.Now()
				_, err := row.call(ctx, c)
				require.Less(t, time.Since(begin), limit+slack)
				requireError(t, wantError{is: row.want}, err)
				if hurry {
					require.ErrorIs(t, err, context.DeadlineExceeded)
				}
				thaw()
				_, err = dialed(t, addr(p, http), Options{HTTP: http, Timeout: time.Minute}).GetServiceState(
					t.Context(), &v1.GetServiceStateRequest{Namespace: "game", Service: "room"})
				require.NoError(t, err)
				require.LessOrEqual(t, requests(t, p, "SetLinkedPod", ""), 1, "at most once")
			})
		})
	}
}

// TestReadOutlivesAFreeze: podlink hangs for longer than an attempt, and the read is answered all the same.
func TestReadOutlivesAFreeze(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, http bool) {
		t.Parallel()
		p := start(t)
		const timeout = 12 * time.Second
		c := dialed(t, addr(p, http), Options{HTTP: http, Timeout: timeout})
		_, err := setLink(t.Context(), c)
		require.NoError(t, err)
		thaw := freeze(t, p)
		begin := time.Now()
		time.AfterFunc(timeout/attempts+time.Second, thaw)
		got, err := readLink(t.Context(), c)
		require.NoError(t, err)
		require.Greater(t, time.Since(begin), timeout/attempts)
		require.EqualValues(t, 3, got.(*v1.GetLinkedPodReply).GetLink().GetPodId())
	})
}

// TestLastAttemptIsCut: a call is what its last attempt has met that had the time to be sent.
func TestLastAttemptIsCut(t *testing.T) {
	for name, call := range map[string]apiCall{"a read": readLink, "a mutation": setLink} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first := true
				cut := func(ctx context.Context) error {
					if first {
						first = false
						return ErrStoreUnavailable
					}
					<-ctx.Done()
					return &net.OpError{Op: "dial", Err: ctx.Err()}
				}
				c := NewOver(&answering{answer: cut}, time.Second)
				defer c.Close()
				_, err := call(t.Context(), c)
				requireError(t, wantError{is: ErrStoreUnavailable}, err)
				require.False(t, first)

				first = true
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				patient := NewOver(&answering{answer: cut}, time.Hour)
				defer patient.Close()
				_, err = call(ctx, patient)
				requireError(t, wantError{is: ErrStoreUnavailable}, err)
				require.ErrorIs(t, err, context.DeadlineExceeded, "the caller's time was over")
			})
		})
	}
}

// TestWhoIsSentAgain: after an attempt without an answer, a read is, and a mutation is not.
func TestWhoIsSentAgain(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, http bool) {
		t.Parallel()
		var calls atomic.Int32
		s := served(t, http, nil, func(ctx context.Context) error {
			if calls.Add(1)%2 == 1 {
				return hangs(ctx)
			}
			return nil
		})
		c := dialed(t, s.addr, Options{HTTP: http, Timeout: 6 * time.Second})
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

// TestCallerLeavesBetweenAttempts: nothing was carried out, and it is the caller who has left.
func TestCallerLeavesBetweenAttempts(t *testing.T) {
	for name, call := range map[string]apiCall{"a read": readLink, "a mutation": setLink} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				podlink := &answering{answer: always(ErrStoreUnavailable)}
				c := NewOver(podlink, time.Hour)
				defer c.Close()
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(10*time.Second, cancel)
				_, err := call(ctx, c)
				require.Greater(t, podlink.requests.Load(), int64(4), "it is repeated")
				require.ErrorIs(t, err, context.Canceled)
				requireError(t, wantError{is: ErrCanceled}, err)
			})
		})
	}
}

// TestMutationWaitsForPodlink: it is repeated until podlink is there, and carried out once.
func TestMutationWaitsForPodlink(t *testing.T) {
	t.Parallel()
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
		select { // Long enough for some attempts.
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
	t.Parallel()
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
	t.Parallel()
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
	t.Parallel()
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

// TestNoneIsRegistered: the registry is there, and knows no podlink.
func TestNoneIsRegistered(t *testing.T) {
	t.Parallel()
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
