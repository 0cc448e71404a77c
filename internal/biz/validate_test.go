package biz_test

import (
	"context"
	"fmt"
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
	fleet := biz.NewFleetUsecase(nil, nil, nil, views, nil, biz.FleetOptions{Index: true})

	good := biz.LinkKey{Namespace: "game", UID: "alice", Service: "room"}
	service := biz.ServiceKey{Namespace: "game", Service: "room"}
	pod := func(n biz.PodID) *biz.PodID { return &n }
	epoch := func(n biz.Epoch) *biz.Epoch { return &n }
	ttl := func(n biz.TTL) *biz.TTL { return &n }
	ctx := context.Background()
	report := func(change func(*biz.NewReport)) error {
		r := biz.NewReport{Pod: pod(0), State: "up"}
		change(&r)
		_, err := pods.Set(ctx, service, r)
		return err
	}
	set := func(id *biz.PodID, seconds biz.TTL, expected *biz.Epoch) error {
		_, err := links.Set(ctx, good, id, seconds, biz.SetTerms{Expected: expected})
		return err
	}

	compute := func(change func(*biz.ComputeRequest)) error {
		r := forever
		change(&r)
		return second(links.Compute(ctx, good, r))
	}
	knows := func(known biz.NewKnown) error { return compute(func(r *biz.ComputeRequest) { r.Known = &known }) }
	podLinks := func(key biz.ServiceKey, id *biz.PodID, page biz.Page) error {
		return second(fleet.PodLinks(ctx, key, id, page))
	}
	namespaces := func(page biz.Page) error {
		_, _, err := fleet.Namespaces(ctx, nil, page)
		return err
	}
	services := func(namespace string, page biz.Page) error {
		_, _, err := fleet.Services(ctx, namespace, nil, page)
		return err
	}
	cordon := func(id *biz.PodID, cordon *biz.Routing, seconds *biz.TTL) error {
		return second(pods.Cordon(ctx, service, id, cordon, seconds))
	}
	routing := func(r biz.Routing) *biz.Routing { return &r }
	labels := func(n int) map[string]string {
		all := make(map[string]string)
		for i := range n {
			all[fmt.Sprintf("l%d", i)] = ""
		}
		return all
	}
	label := func(name, value string) error {
		return report(func(r *biz.NewReport) { r.Labels = map[string]string{name: value} })
	}
	address := func(text string) error { return report(func(r *biz.NewReport) { r.Address = text }) }
	numbered := func(change func(*biz.NewReport)) error {
		return report(func(r *biz.NewReport) {
			r.Instance = "a"
			change(r)
		})
	}

	for name, row := range map[string]struct {
		err   error
		field string
	}{
		"list of no pod":              {podLinks(service, nil, biz.Page{}), "pod_id"},
		"list of a negative pod":      {podLinks(service, pod(-1), biz.Page{}), "pod_id"},
		"list without a namespace":    {podLinks(biz.ServiceKey{Service: "room"}, pod(0), biz.Page{}), "namespace"},
		"list of a bad service":       {podLinks(biz.ServiceKey{Namespace: "game", Service: "a:b"}, pod(0), biz.Page{}), "service"},
		"negative page":               {podLinks(service, pod(0), biz.Page{Size: -1}), "page_size"},
		"page of 1001":                {podLinks(service, pod(0), biz.Page{Size: 1001}), "page_size"},
		"page token of nobody":        {podLinks(service, pod(0), biz.Page{Token: "x"}), "page_token"},
		"long page token":             {podLinks(service, pod(0), biz.Page{Token: strings.Repeat("1", 4097)}), "page_token"},
		"count of a bad service":      {second(fleet.CountPodLinks(ctx, biz.ServiceKey{Namespace: "game"})), "service"},
		"negative page of names":      {namespaces(biz.Page{Size: -1}), "page_size"},
		"page of 1001 names":          {namespaces(biz.Page{Size: 1001}), "page_size"},
		"page token that is no name":  {namespaces(biz.Page{Token: "YTpi"}), "page_token"},
		"page token not in base64":    {services("game", biz.Page{Token: "="}), "page_token"},
		"page of 1001 services":       {services("game", biz.Page{Size: 1001}), "page_size"},
		"services of no namespace":    {services("", biz.Page{}), "namespace"},
		"instance with a space":       {report(func(r *biz.NewReport) { r.Instance = "a b" }), "instance_id"},
		"instance not ASCII":          {report(func(r *biz.NewReport) { r.Instance = "é" }), "instance_id"},
		"instance too long":           {report(func(r *biz.NewReport) { r.Instance = strings.Repeat("i", 129) }), "instance_id"},
		"negative sequence":           {numbered(func(r *biz.NewReport) { r.Sequence = -1 }), "sequence"},
		"sequence of 2^52":            {numbered(func(r *biz.NewReport) { r.Sequence = 1 << 52 }), "sequence"},
		"negative generation":         {numbered(func(r *biz.NewReport) { r.Generation = -1 }), "generation"},
		"generation of 2^52":          {numbered(func(r *biz.NewReport) { r.Generation = 1 << 52 }), "generation"},
		"negative supersedes":         {numbered(func(r *biz.NewReport) { r.Supersedes = -1 }), "supersedes"},
		"supersedes of 2^52":          {numbered(func(r *biz.NewReport) { r.Supersedes = 1 << 52 }), "supersedes"},
		"sequence without instance":   {report(func(r *biz.NewReport) { r.Sequence = 1 }), "sequence"},
		"generation without instance": {report(func(r *biz.NewReport) { r.Generation = 1 }), "generation"},
		"supersedes without instance": {report(func(r *biz.NewReport) { r.Supersedes = 1 }), "supersedes"},
		"negative capacity":           {report(func(r *biz.NewReport) { r.Capacity = new(int32(-1)) }), "capacity"},
		"17 labels":                   {report(func(r *biz.NewReport) { r.Labels = labels(17) }), "labels"},
		"label without a name":        {label("", "x"), "labels"},
		"label with a colon":          {label("a:b", "x"), "labels"},
		"label with a long name":      {label(strings.Repeat("n", 129), "x"), "labels"},
		"label value too long":        {label("a", strings.Repeat("v", 129)), "labels"},
		"label value not UTF-8":       {label("a", "\xff"), "labels"},
		"label value with a newline":  {label("a", "b\n"), "labels"},
		"address without a port":      {address("pod-0"), "address"},
		"address without a host":      {address(":80"), "address"},
		"address, port 0":             {address("pod-0:0"), "address"},
		"address, port 65536":         {address("pod-0:65536"), "address"},
		"address, port by name":       {address("pod-0:http"), "address"},
		"address, signed port":        {address("pod-0:+80"), "address"},
		"address with a space":        {address("pod 0:80"), "address"},
		"address with a newline":      {address("pod-0:80\n"), "address"},
		"address with a scheme":       {address("http://pod-0:80"), "address"},
		"address with a zone":         {address("[fe80::1%eth0]:80"), "address"},
		"address with bare IPv6":      {address("fe80::1:80"), "address"},
		"address too long":            {address(strings.Repeat("h", 253) + ":80"), "address"},
		"cordon of no pod":            {cordon(nil, routing(biz.DenyNew), nil), "pod_id"},
		"cordon without a routing":    {cordon(pod(0), nil, nil), "cordon"},
		"cordon, unknown routing":     {cordon(pod(0), routing(3), nil), "cordon"},
		"cordon, zero ttl":            {cordon(pod(0), routing(biz.DenyNew), ttl(0)), "ttl_seconds"},
		"cordon, endless ttl":         {cordon(pod(0), routing(biz.DenyNew), ttl(-1)), "ttl_seconds"},
		"17 pods to avoid":            {compute(func(r *biz.ComputeRequest) { r.Avoid = make([]biz.PodID, 17) }), "avoid_pods"},
		"a bad pod to avoid":          {compute(func(r *biz.ComputeRequest) { r.Avoid = []biz.PodID{1, -1} }), "avoid_pods[1]"},
		"negative epoch to avoid":     {compute(func(r *biz.ComputeRequest) { r.AvoidEpoch = -1 }), "avoid_epoch"},
		"selector of 9 pairs":         {compute(func(r *biz.ComputeRequest) { r.Selector = labels(9) }), "selector"},
		"selector with a bad name":    {compute(func(r *biz.ComputeRequest) { r.Selector = map[string]string{"-": ""} }), "selector"},
		"selector with a bad value":   {compute(func(r *biz.ComputeRequest) { r.Selector = map[string]string{"a": "\x00"} }), "selector"},
		"known without a pod":         {knows(biz.NewKnown{Epoch: 1}), "known.pod_id"},
		"known, negative pod":         {knows(biz.NewKnown{Pod: pod(-1), Epoch: 1}), "known.pod_id"},
		"known without an epoch":      {knows(biz.NewKnown{Pod: pod(0)}), "known.epoch"},
		"known, negative epoch":       {knows(biz.NewKnown{Pod: pod(0), Epoch: -1}), "known.epoch"},
		"no pod":                      {set(nil, biz.Forever, nil), "pod_id"},
		"negative pod":                {set(pod(-1), biz.Forever, nil), "pod_id"},
		"zero seconds":                {set(pod(0), 0, nil), "persist_seconds"},
		"minus two seconds":           {set(pod(0), -2, nil), "persist_seconds"},
		"least seconds":               {set(pod(0), math.MinInt32, nil), "persist_seconds"},
		"negative epoch":              {set(pod(0), biz.Forever, epoch(-1)), "expected_epoch"},
		"negative claim":              {second(links.Set(ctx, good, pod(0), biz.Forever, biz.SetTerms{Claim: -1})), "claim"},
		"claim too large":             {second(links.Set(ctx, good, pod(0), biz.Forever, biz.SetTerms{Claim: 1 << 52})), "claim"},
		"above a negative epoch":      {second(links.Set(ctx, good, pod(0), biz.Forever, biz.SetTerms{Above: epoch(-1)})), "above_epoch"},
		"above an unwritable epoch":   {second(links.Set(ctx, good, pod(0), biz.Forever, biz.SetTerms{Above: epoch(1<<53 - 1)})), "above_epoch"},
		"set if absent, claim":        {second(links.SetIfAbsent(ctx, good, pod(0), biz.Forever, biz.SetTerms{Claim: -1})), "claim"},
		"set if absent, above":        {second(links.SetIfAbsent(ctx, good, pod(0), biz.Forever, biz.SetTerms{Above: epoch(-1)})), "above_epoch"},
		"no state":                    {report(func(r *biz.NewReport) { r.State = "" }), "state"},
		"state too long":              {report(func(r *biz.NewReport) { r.State = strings.Repeat("x", 1025) }), "state"},
		"state with a newline":        {report(func(r *biz.NewReport) { r.State = "a\nb" }), "state"},
		"negative load":               {report(func(r *biz.NewReport) { r.Load = -1 }), "load"},
		"unknown routing":             {report(func(r *biz.NewReport) { r.Routing = 3 }), "routing"},
		"negative routing":            {report(func(r *biz.NewReport) { r.Routing = -1 }), "routing"},
		"zero ttl":                    {report(func(r *biz.NewReport) { r.TTL = ttl(0) }), "ttl_seconds"},
		"report of no pod":            {report(func(r *biz.NewReport) { r.Pod = nil }), "pod_id"},
		"keep less than minus one":    {second(links.Remove(ctx, good, -2, biz.RemoveTerms{})), "keep_seconds"},
		"remove at a negative epoch":  {second(links.Remove(ctx, good, 0, biz.RemoveTerms{Expected: epoch(-1)})), "expected_epoch"},
		"remove with no pod":          {second(links.RemoveWithID(ctx, good, nil, 0)), "pod_id"},
		"remove with id, wrong keep":  {second(links.RemoveWithID(ctx, good, pod(0), -2)), "keep_seconds"},
		"try-set with no pod":         {second(links.TrySet(ctx, good, nil, biz.Forever, nil)), "pod_id"},
		"try-set, zero seconds":       {second(links.TrySet(ctx, good, pod(0), 0, nil)), "persist_seconds"},
		"set if absent with no pod":   {second(links.SetIfAbsent(ctx, good, nil, biz.Forever, biz.SetTerms{})), "pod_id"},
		"set if absent, zero seconds": {second(links.SetIfAbsent(ctx, good, pod(0), 0, biz.SetTerms{})), "persist_seconds"},
		"compute, zero seconds":       {second(links.Compute(ctx, good, biz.ComputeRequest{})), "persist_seconds"},
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
		"Set":    func(k biz.LinkKey) error { return second(links.Set(ctx, k, pod(0), biz.Forever, biz.SetTerms{})) },
		"TrySet": func(k biz.LinkKey) error { return second(links.TrySet(ctx, k, pod(0), biz.Forever, nil)) },
		"SetIfAbsent": func(k biz.LinkKey) error {
			return second(links.SetIfAbsent(ctx, k, pod(0), biz.Forever, biz.SetTerms{}))
		},
		"Compute":       func(k biz.LinkKey) error { return second(links.Compute(ctx, k, forever)) },
		"Get":           func(k biz.LinkKey) error { return second(links.Get(ctx, k)) },
		"GetIfPersist":  func(k biz.LinkKey) error { return second(links.GetIfPersist(ctx, k)) },
		"Remove":        func(k biz.LinkKey) error { return second(links.Remove(ctx, k, 0, biz.RemoveTerms{})) },
		"RemoveWithID":  func(k biz.LinkKey) error { return second(links.RemoveWithID(ctx, k, pod(0), 0)) },
		"link BatchGet": func(k biz.LinkKey) error { return second(links.BatchGet(ctx, k.Namespace, k.Service, []string{k.UID})) },
	}
	onServices := map[string]func(key biz.ServiceKey) error{
		"pod Set": func(k biz.ServiceKey) error {
			return second(pods.Set(ctx, k, biz.NewReport{Pod: pod(0), State: "up"}))
		},
		"pod List":      func(k biz.ServiceKey) error { return second(pods.List(ctx, k, false)) },
		"pod Get":       func(k biz.ServiceKey) error { return second(pods.Get(ctx, k, pod(0))) },
		"pod Cordon":    func(k biz.ServiceKey) error { return second(pods.Cordon(ctx, k, pod(0), routing(biz.Ready), nil)) },
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

// requireField requires an InvalidArgumentError for the field. A batch names its field in the plural, with an index.
func requireField(t *testing.T, err error, field string, what ...any) {
	t.Helper()
	var invalid *biz.InvalidArgumentError
	require.ErrorAs(t, err, &invalid, what...)
	got := strings.TrimSuffix(invalid.Field, "s[0]")
	require.Equal(t, field, got, what...)
	require.NotEmpty(t, invalid.Detail)
}

// TestUsecasesAcceptTheExtremes: the extreme values of a report reach the store.
func TestUsecasesAcceptTheExtremes(t *testing.T) {
	store := new(acceptingPods)
	pods := biz.NewPodUsecase(biz.NewPodViews(store, biz.NopObserver{}), biz.Forever)
	id, capacity := biz.PodID(math.MaxInt32), int32(0)
	labels := make(map[string]string)
	for i := range 16 {
		labels[strings.Repeat("n", 120)+fmt.Sprint(i)] = strings.Repeat("\u00e4", 64)
	}
	for _, address := range []string{
		"", "pod-0:1", "10.0.0.1:65535", "[2001:db8::1]:80", "chat-0.chat.game.svc.cluster.local:9000", strings.Repeat("h", 250) + ":800",
	} {
		const greatest = 1<<52 - 1
		_, err := pods.Set(t.Context(), biz.ServiceKey{Namespace: "game", Service: "room"}, biz.NewReport{
			Pod: &id, State: "up", Load: math.MaxInt32, Capacity: &capacity, Labels: labels, Address: address,
			Instance: strings.Repeat("a", 121) + "Z9._:-", Sequence: greatest, Generation: greatest, Supersedes: greatest,
		})
		require.NoError(t, err, address)
		require.Equal(t, biz.Report{
			Pod: id, State: "up", Load: math.MaxInt32, TTL: biz.Forever, Labels: labels, Address: address,
			Instance: strings.Repeat("a", 121) + "Z9._:-", Sequence: greatest, Generation: greatest, Supersedes: greatest,
		}, store.last)
	}
}

// acceptingPods keeps the last report.
type acceptingPods struct {
	biz.PodRepo
	last biz.Report
}

func (p *acceptingPods) Set(_ context.Context, _ biz.ServiceKey, report biz.Report) (biz.ReportResult, error) {
	p.last = report
	return biz.ReportResult{Applied: true, Pod: biz.Pod{Report: report}}, nil
}
