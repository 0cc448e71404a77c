package server

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"testing"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/auth"
)

// TestPrices: what each operation costs, before it is decoded. A new operation needs a row.
func TestPrices(t *testing.T) {
	want := map[string]price{
		"GetLinkedPod": {base: 1}, "GetLinkedPodIfPersist": {base: 1}, "SetLinkedPod": {base: 2}, "TrySetLinkedPod": {base: 2},
		"SetLinkedPodIfAbsent": {base: 2},
		"RemoveLinkedPod":      {base: 2}, "RemoveLinkedPodWithId": {base: 2}, "ComputeLinkedPod": {base: 2}, "ListLinkedServices": {base: 50},
		"BatchGetLinkedPod": {base: 1}, "BatchVerifyLinkedPod": {base: 1}, "BatchComputeLinkedPod": {base: 2}, "BatchSetLinkedPod": {base: 2},
		"BatchRemoveLinkedPod": {base: 2}, "GetServiceState": {base: 1}, "GetServicePod": {base: 1}, "SetServiceState": {base: 2, report: true},
		"RemoveServiceState": {base: 2}, "CordonPod": {base: 2}, "GetWorkloadState": {base: 1}, "BatchGetWorkloadState": {base: 1},
		"SetWorkloadState":    {base: 2},
		"RemoveWorkloadState": {base: 2},
		"ListNamespaces":      {base: 50}, "ListServices": {base: 50}, "ListPodLinks": {base: 50}, "CountPodLinks": {base: 50},
		"WatchLinks": {base: 50}, "ExportLinks": {base: 50}, "CreateJob": {base: 2}, "ListJobs": {base: 50}, "GetJob": {base: 1},
		"CancelJob": {base: 2}, "WatchJob": {base: 50},
	}
	all := pricesOf(v1.Methods())
	require.Len(t, all.byRequest, len(v1.Methods()), "no two operations share a request")
	for _, method := range v1.Methods() {
		name := string(method.Name())
		require.Contains(t, want, name)
		got := *all.operation(v1.Operation(method))
		require.Equal(t, len(name) > 5 && name[:5] == "Batch", got.entries != nil, name)
		require.Equal(t, leastRight(v1.Operation(method)), got.right, name)
		got.entries, got.right = nil, auth.None
		require.Equal(t, want[name], got, name)
		require.Same(t, all.operation(v1.Operation(method)), all.request(method.Input()))
		delete(want, name)
	}
	require.Empty(t, want, "operations that do not exist")
}

// TestBatchesCostTheirEntries: each 20 entries cost one, but a batch costs what a single call costs at least.
func TestBatchesCostTheirEntries(t *testing.T) {
	all := pricesOf(v1.Methods())
	for entries, want := range map[int]int{0: 0, 1: 0, 20: 0, 21: 1, 40: 1, 41: 2, 1000: 49} {
		request := &v1.BatchGetLinkedPodRequest{Uids: make([]string, entries)}
		require.Equal(t, want, all.request(request.ProtoReflect().Descriptor()).rest(request), entries)
	}
	for entries, want := range map[int]int{0: 0, 40: 0, 41: 1, 1000: 48} {
		request := &v1.BatchSetLinkedPodRequest{Items: make([]*v1.BatchSetLinkedPodRequest_Item, entries)}
		require.Equal(t, want, all.request(request.ProtoReflect().Descriptor()).rest(request), entries)
	}
}

// counting is rates with a clock that stands still.
func counting(usual float64, of map[string]float64) (*rates, *fixedRates, *time.Time) {
	policy, now := &fixedRates{of: of}, time.Unix(1_800_000_000, 0)
	r := newRates(policy, usual, nil)
	r.now = func() time.Time { return now }
	return r, policy, &now
}

func callerAt(name, pod, peer string) *caller {
	return &caller{Call: auth.Call{Identity: auth.Identity{Name: name, Pod: pod}, Peer: netip.MustParseAddrPort(peer)}}
}

// spent makes calls of a price until one is refused, and returns how many were not, and the wait of that one.
func spent(t *testing.T, r *rates, call *caller, p *price) (made int, wait time.Duration) {
	t.Helper()
	for ; made < 10_000; made++ {
		if err := r.take(call, p, p.base, r.now()); err != nil {
			require.True(t, v1.IsRateLimited(err))
			ms, err := strconv.Atoi(kerrors.FromError(err).Metadata["retry_after_ms"])
			require.NoError(t, err)
			return made, time.Duration(ms) * time.Millisecond
		}
	}
	t.Fatal("never refused")
	return 0, 0
}

var (
	aRead   = &price{base: readPrice}
	aWrite  = &price{base: writePrice}
	aList   = &price{base: listPrice}
	aReport = &price{base: writePrice, report: true}
)

// TestRateIsExact: a caller may make a second's calls at once, and then as many as its rate says; a refused call may be made again
// right after the wait that its error says, and not before.
func TestRateIsExact(t *testing.T) {
	for name, row := range map[string]struct {
		usual float64
		of    map[string]float64
		price *price
		made  int
		wait  time.Duration
	}{
		"reads":            {100, nil, aRead, 100, 10 * time.Millisecond},
		"writes":           {100, nil, aWrite, 50, 20 * time.Millisecond},
		"lists":            {100, nil, aList, 2, 500 * time.Millisecond},
		"a rule's rate":    {100, map[string]float64{"token:a": 7}, aRead, 7, 143 * time.Millisecond},
		"a greater one":    {100, map[string]float64{"token:a": 300}, aRead, 300, 4 * time.Millisecond},
		"a fraction":       {100, map[string]float64{"token:a": 0.5}, aRead, 1, 2 * time.Second},
		"more than a full": {10, nil, aList, 1, 5 * time.Second}, // It was allowed, and leaves a debt.
	} {
		t.Run(name, func(t *testing.T) {
			r, _, now := counting(row.usual, row.of)
			call := callerAt("token:a", "", "10.0.0.1:5")
			made, wait := spent(t, r, call, row.price)
			require.Equal(t, row.made, made)
			require.Equal(t, row.wait, wait)
			*now = now.Add(wait - 2*time.Millisecond)
			require.Error(t, r.take(call, row.price, row.price.base, r.now()), "too early")
			*now = now.Add(2 * time.Millisecond)
			require.NoError(t, r.take(call, row.price, row.price.base, r.now()))
			require.Error(t, r.take(call, row.price, row.price.base, r.now()), "one call only")
			*now = now.Add(time.Hour)
			made, _ = spent(t, r, call, row.price)
			require.Equal(t, row.made, made, "no more than a second's are saved up")
		})
	}
}

// TestWhoseRate: what one caller has spent is not missing to another.
func TestWhoseRate(t *testing.T) {
	spender := callerAt("token:a", "", "10.0.0.1:5")
	for name, row := range map[string]struct {
		first, second *caller
		same          bool
	}{
		"another connection":                {spender, callerAt("token:a", "", "10.0.0.1:6"), true},
		"another address":                   {spender, callerAt("token:a", "", "10.0.0.2:5"), false},
		"another identity":                  {spender, callerAt("token:b", "", "10.0.0.1:5"), false},
		"a pod":                             {spender, callerAt("token:a", "chat-1", "10.0.0.1:5"), false},
		"another pod, the same address":     {callerAt("jwt:k:sa", "chat-1", "10.0.0.1:5"), callerAt("jwt:k:sa", "chat-2", "10.0.0.1:5"), false},
		"the same pod, another address":     {callerAt("jwt:k:sa", "chat-1", "10.0.0.1:5"), callerAt("jwt:k:sa", "chat-1", "10.0.0.2:5"), true},
		"an IPv6 host's other address":      {callerAt("a", "", "[2001:db8::1]:5"), callerAt("a", "", "[2001:db8::2:1]:5"), true},
		"another IPv6 network":              {callerAt("a", "", "[2001:db8::1]:5"), callerAt("a", "", "[2001:db8:0:1::1]:5"), false},
		"an IPv4 address in IPv6's form":    {spender, callerAt("token:a", "", "[::ffff:10.0.0.1]:5"), true},
		"another IPv4 address in that form": {spender, callerAt("token:a", "", "[::ffff:10.0.0.2]:5"), false},
		"a link-local one's other zone":     {callerAt("a", "", "[fe80::1%eth0]:5"), callerAt("a", "", "[fe80::1%eth1]:5"), true},
	} {
		t.Run(name, func(t *testing.T) {
			r, _, _ := counting(10, nil)
			made, _ := spent(t, r, row.first, aRead)
			require.Equal(t, 10, made)
			made, _ = spent(t, r, row.second, aRead)
			require.Equal(t, row.same, made == 0, made)
		})
	}
}

// TestReportsHaveTheirRate: a caller that has spent its rate can still report its pod, and the other way round.
func TestReportsHaveTheirRate(t *testing.T) {
	r, _, _ := counting(10, nil)
	call := callerAt("jwt:k:sa", "chat-1", "10.0.0.1:5")
	made, _ := spent(t, r, call, aRead)
	require.Equal(t, 10, made)
	made, _ = spent(t, r, call, aReport)
	require.Equal(t, 5, made)
	r, _, _ = counting(10, nil)
	_, _ = spent(t, r, call, aReport)
	made, _ = spent(t, r, call, aRead)
	require.Equal(t, 10, made)
}

// TestRateOfAnotherPolicy: the rate of a policy that was reloaded counts at once, without a new bucket.
func TestRateOfAnotherPolicy(t *testing.T) {
	r, policy, now := counting(10, map[string]float64{})
	call := callerAt("token:a", "", "10.0.0.1:5")
	_, _ = spent(t, r, call, aRead)
	policy.of["token:a"], policy.generation = 100, 2
	_, wait := spent(t, r, call, aRead)
	require.Equal(t, 10*time.Millisecond, wait, "the bucket is as empty as before")
	*now = now.Add(time.Second)
	made, _ := spent(t, r, call, aRead)
	require.Equal(t, 100, made)
}

// TestRateOfAPolicyThatChangesMeanwhile: a policy that is reloaded while a caller's first bucket is made counts from its next call on.
func TestRateOfAPolicyThatChangesMeanwhile(t *testing.T) {
	r, policy, now := counting(10, map[string]float64{"token:a": 10})
	r.policy = changingRates{policy, func() { policy.of["token:a"], policy.generation = 100, 2 }}
	call := callerAt("token:a", "", "10.0.0.1:5")
	require.NoError(t, r.take(call, aRead, 1, r.now()))
	r.policy = policy
	require.NoError(t, r.take(call, aRead, 1, r.now()))
	*now = now.Add(time.Second)
	made, _ := spent(t, r, call, aRead)
	require.Equal(t, 100, made)
}

// changingRates are rates that change just after a rate was read.
type changingRates struct {
	Rates
	change func()
}

// Rate implements Rates.
func (c changingRates) Rate(who auth.Identity) float64 {
	defer c.change()
	return c.Rates.Rate(who)
}

// TestBucketsAreBounded: callers without number take no more memory than a bound.
func TestBucketsAreBounded(t *testing.T) {
	r, _, _ := counting(10, nil)
	for i := range 3 * maxBuckets {
		require.NoError(t, r.take(callerAt(strconv.Itoa(i), "", "10.0.0.1:5"), aRead, 1, r.now()))
	}
	r.buckets.CleanUp()
	require.LessOrEqual(t, r.buckets.EstimatedSize(), maxBuckets)
}

// TestRateLimitedReplies: both transports refuse a call above the rate with the wait. A batch is refused as a whole when its size
// is known, and not carried out.
func TestRateLimitedReplies(t *testing.T) {
	access := NewAccess(guests{}, &fixedRates{of: map[string]float64{"token:list": 0.4}}, 4, nil)
	w := serveGuarded(t, access, newParts(t))
	links := v1.NewLinkServiceClient(w.conn)
	for range 4 {
		_, err := links.GetLinkedPod(as(t, "grpc"), aGet)
		require.NoError(t, err)
	}
	_, err := links.GetLinkedPod(as(t, "grpc"), aGet)
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	require.Regexp(t, `^[1-9][0-9]*$`, kerrors.FromError(err).Metadata["retry_after_ms"])

	server := httptest.NewServer(w.http)
	defer server.Close()
	for range 4 {
		code, _, body := ask(t, server.URL, http.MethodGet, linkPath, "Bearer http")
		require.Equal(t, http.StatusOK, code, body)
	}
	for _, path := range []string{linkPath, linkPath + "?unknown=1", "/unknown"} {
		code, header, body := ask(t, server.URL, http.MethodGet, path, "Bearer http")
		require.Equal(t, http.StatusTooManyRequests, code, path)
		require.Equal(t, "1", header.Get("Retry-After"), path)
		require.Regexp(t, `"retry_after_ms":"[1-9][0-9]*"`, body)
	}

	uids := make([]string, 100) // It costs 5, of which 4 are a full bucket.
	for i := range uids {
		uids[i] = fmt.Sprint(i)
	}
	code, _, _ := ask(t, server.URL, http.MethodGet, linkPath, "Bearer batch")
	require.Equal(t, http.StatusOK, code)
	_, err = links.BatchGetLinkedPod(as(t, "batch"), &v1.BatchGetLinkedPodRequest{Namespace: "game", Service: "room", Uids: uids})
	require.Equal(t, codes.ResourceExhausted, status.Code(err))

	code, _, _ = ask(t, server.URL, http.MethodGet, linkPath, "Bearer list")
	require.Equal(t, http.StatusOK, code)
	code, header, _ := ask(t, server.URL, http.MethodGet, linkPath, "Bearer list")
	require.Equal(t, http.StatusTooManyRequests, code)
	require.Equal(t, "3", header.Get("Retry-After"), "whole seconds, rounded up")
}

// TestCallersOfAConnectionCountApart: a connection keeps the buckets of its last caller only, and those of no other.
func TestCallersOfAConnectionCountApart(t *testing.T) {
	r, policy, _ := counting(10, nil)
	conn := new(peerAddr)
	on := func(name, pod string) *caller {
		c := callerAt(name, pod, "10.0.0.1:5")
		c.peer = conn
		return c
	}
	for _, who := range []*caller{on("token:a", ""), on("token:b", ""), on("token:b", "chat-1"), on("token:b", "chat-2")} {
		made, _ := spent(t, r, who, aRead)
		require.Equal(t, 10, made, who.Identity)
	}
	for _, who := range []*caller{on("token:b", "chat-2"), on("token:a", ""), on("token:b", "chat-1"), on("token:b", "")} {
		require.Error(t, r.take(who, aRead, 1, r.now()), who.Identity)
	}
	other := callerAt("token:a", "", "10.0.0.1:6")
	require.Error(t, r.take(other, aRead, 1, r.now()), "the same caller over another connection")

	policy.of, policy.generation = map[string]float64{"token:a": 1000}, 1
	require.Error(t, r.take(on("token:a", ""), aRead, 1, r.now()), "a new rate fills no bucket")
}
