package biz_test

import (
	"context"
	"math"
	"strings"
	"testing"

	"podlink/internal/biz"

	"github.com/stretchr/testify/require"
)

// TestUsecasesRefuseBadValues calls every use-case with one bad value at a time. The repos are nil, because a refused call
// must not reach the store.
func TestUsecasesRefuseBadValues(t *testing.T) {
	views := biz.NewPodViews(nil, biz.NopObserver{})
	links := biz.NewLinkUsecase(nil, views, biz.Limits{MaxBatch: 3}, biz.NopObserver{})
	pods := biz.NewPodUsecase(views, 30)
	workloads := biz.NewWorkloadUsecase(nil, biz.Limits{MaxBatch: 3}, biz.NopObserver{})

	good := biz.LinkKey{Namespace: "game", UID: "alice", Service: "room"}
	service := biz.ServiceKey{Namespace: "game", Service: "room"}
	pod := func(n biz.PodID) *biz.PodID { return &n }
	epoch := func(n biz.Epoch) *biz.Epoch { return &n }
	ttl := func(n biz.TTL) *biz.TTL { return &n }
	ctx := context.Background()
	report := func(change func(*biz.NewReport)) error {
		r := biz.NewReport{Pod: pod(0), State: "up"}
		change(&r)
		_, _, err := pods.Set(ctx, service, r)
		return err
	}
	set := func(id *biz.PodID, seconds biz.TTL, expected *biz.Epoch) error {
		_, err := links.Set(ctx, good, id, seconds, expected)
		return err
	}

	for name, row := range map[string]struct {
		err   error
		field string
	}{
		"no pod":                      {set(nil, biz.Forever, nil), "pod_id"},
		"negative pod":                {set(pod(-1), biz.Forever, nil), "pod_id"},
		"zero seconds":                {set(pod(0), 0, nil), "persist_seconds"},
		"minus two seconds":           {set(pod(0), -2, nil), "persist_seconds"},
		"least seconds":               {set(pod(0), math.MinInt32, nil), "persist_seconds"},
		"negative epoch":              {set(pod(0), biz.Forever, epoch(-1)), "expected_epoch"},
		"no state":                    {report(func(r *biz.NewReport) { r.State = "" }), "state"},
		"state too long":              {report(func(r *biz.NewReport) { r.State = strings.Repeat("x", 1025) }), "state"},
		"state with a newline":        {report(func(r *biz.NewReport) { r.State = "a\nb" }), "state"},
		"negative load":               {report(func(r *biz.NewReport) { r.Load = -1 }), "load"},
		"unknown routing":             {report(func(r *biz.NewReport) { r.Routing = 3 }), "routing"},
		"negative routing":            {report(func(r *biz.NewReport) { r.Routing = -1 }), "routing"},
		"zero ttl":                    {report(func(r *biz.NewReport) { r.TTL = ttl(0) }), "ttl_seconds"},
		"report of no pod":            {report(func(r *biz.NewReport) { r.Pod = nil }), "pod_id"},
		"keep less than minus one":    {second(links.Remove(ctx, good, -2, nil)), "keep_seconds"},
		"remove at a negative epoch":  {second(links.Remove(ctx, good, 0, epoch(-1))), "expected_epoch"},
		"remove with no pod":          {second(links.RemoveWithID(ctx, good, nil, 0)), "pod_id"},
		"remove with id, wrong keep":  {second(links.RemoveWithID(ctx, good, pod(0), -2)), "keep_seconds"},
		"try-set with no pod":         {second(links.TrySet(ctx, good, nil, biz.Forever)), "pod_id"},
		"try-set, zero seconds":       {second(links.TrySet(ctx, good, pod(0), 0)), "persist_seconds"},
		"set if absent with no pod":   {second(links.SetIfAbsent(ctx, good, nil, biz.Forever)), "pod_id"},
		"set if absent, zero seconds": {second(links.SetIfAbsent(ctx, good, pod(0), 0)), "persist_seconds"},
		"compute, zero seconds":       {third(links.Compute(ctx, good, 0)), "persist_seconds"},
		"get a pod without id":        {second(pods.Get(ctx, service, nil)), "pod_id"},
		"remove a pod without id":     {second(pods.Remove(ctx, service, nil)), "pod_id"},
		"no uids":                     {second(links.BatchGet(ctx, "game", "room", nil)), "uids"},
		"too many uids":               {second(links.BatchGet(ctx, "game", "room", []string{"a", "a", "a", "a"})), "uids"},
		"a bad uid among uids":        {second(links.BatchGet(ctx, "game", "room", []string{"a", ""})), "uids[1]"},
		"no services":                 {second(workloads.BatchGet(ctx, "game", nil)), "services"},
		"a bad service among many":    {second(workloads.BatchGet(ctx, "game", []string{"a", "b", "c:d"})), "services[2]"},
		"workload without a state":    {second(workloads.Set(ctx, service, "")), "state"},
	} {
		t.Run(name, func(t *testing.T) { requireField(t, row.err, row.field) })
	}

	names := map[string]string{
		"empty": "", "too long": strings.Repeat("x", 129), "colon": "a:b", "slash": "a/b", "braces": "{a}", "space": "a b",
		"dot first": ".a", "dash last": "a-", "underscore first": "_a", "not ASCII": "é", "newline": "a\n", "NUL": "a\x00b",
	}
	uids := map[string]string{
		"empty": "", "257 bytes": strings.Repeat("x", 257), "not UTF-8": "a\xffb", "NUL": "a\x00b", "newline": "a\n",
		"C1 control": "a\u0085b", "DEL": "a\x7fb", "86 runes of 3 bytes": strings.Repeat("€", 86),
	}
	everywhere := map[string]func(key biz.LinkKey) error{
		"Set":           func(k biz.LinkKey) error { return second(links.Set(ctx, k, pod(0), biz.Forever, nil)) },
		"TrySet":        func(k biz.LinkKey) error { return second(links.TrySet(ctx, k, pod(0), biz.Forever)) },
		"SetIfAbsent":   func(k biz.LinkKey) error { return second(links.SetIfAbsent(ctx, k, pod(0), biz.Forever)) },
		"Compute":       func(k biz.LinkKey) error { return third(links.Compute(ctx, k, biz.Forever)) },
		"Get":           func(k biz.LinkKey) error { return second(links.Get(ctx, k)) },
		"GetIfPersist":  func(k biz.LinkKey) error { return second(links.GetIfPersist(ctx, k)) },
		"Remove":        func(k biz.LinkKey) error { return second(links.Remove(ctx, k, 0, nil)) },
		"RemoveWithID":  func(k biz.LinkKey) error { return second(links.RemoveWithID(ctx, k, pod(0), 0)) },
		"link BatchGet": func(k biz.LinkKey) error { return second(links.BatchGet(ctx, k.Namespace, k.Service, []string{k.UID})) },
	}
	onServices := map[string]func(key biz.ServiceKey) error{
		"pod Set": func(k biz.ServiceKey) error {
			return third(pods.Set(ctx, k, biz.NewReport{Pod: pod(0), State: "up"}))
		},
		"pod List":      func(k biz.ServiceKey) error { return second(pods.List(ctx, k, false)) },
		"pod Get":       func(k biz.ServiceKey) error { return second(pods.Get(ctx, k, pod(0))) },
		"pod Remove":    func(k biz.ServiceKey) error { return second(pods.Remove(ctx, k, pod(0))) },
		"workload Set":  func(k biz.ServiceKey) error { return second(workloads.Set(ctx, k, "up")) },
		"workload Gone": func(k biz.ServiceKey) error { return second(workloads.Remove(ctx, k)) },
		"workload Get":  func(k biz.ServiceKey) error { return second(workloads.Get(ctx, k)) },
		"workload many": func(k biz.ServiceKey) error { return second(workloads.BatchGet(ctx, k.Namespace, []string{k.Service})) },
	}
	for what, bad := range names {
		for name, call := range everywhere {
			requireField(t, call(biz.LinkKey{Namespace: bad, UID: "alice", Service: "room"}), "namespace", name, what)
			requireField(t, call(biz.LinkKey{Namespace: "game", UID: "alice", Service: bad}), "service", name, what)
		}
		for name, call := range onServices {
			requireField(t, call(biz.ServiceKey{Namespace: bad, Service: "room"}), "namespace", name, what)
			requireField(t, call(biz.ServiceKey{Namespace: "game", Service: bad}), "service", name, what)
		}
		requireField(t, second(links.List(ctx, bad, "alice")), "namespace", "List", what)
	}
	for what, bad := range uids {
		for name, call := range everywhere {
			requireField(t, call(biz.LinkKey{Namespace: "game", UID: bad, Service: "room"}), "uid", name, what)
		}
		requireField(t, second(links.List(ctx, "game", bad)), "uid", "List", what)
	}
}

func second[T any](_ T, err error) error { return err }

func third[T, U any](_ T, _ U, err error) error { return err }

// requireField requires an InvalidArgumentError for the field. A batch names its field in the plural, with an index.
func requireField(t *testing.T, err error, field string, what ...any) {
	t.Helper()
	var invalid *biz.InvalidArgumentError
	require.ErrorAs(t, err, &invalid, what...)
	got := strings.TrimSuffix(invalid.Field, "s[0]")
	require.Equal(t, field, got, what...)
	require.NotEmpty(t, invalid.Detail)
}
