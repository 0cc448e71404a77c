package data

import (
	"context"
	"math"
	"sort"

	"podlink/internal/biz"
	"podlink/internal/rdb"
)

type podRepo struct{ store }

// NewPodRepo returns the repo of the pods' reports in the store.
func NewPodRepo(runner *rdb.Runner, keys Keyspace) biz.PodRepo {
	return podRepo{store{runner, keys}}
}

func (r podRepo) Set(ctx context.Context, key biz.ServiceKey, report biz.Report) (biz.ReportResult, error) {
	reply, err := r.run(ctx, scriptSetState, r.keys.pods(key),
		int32(report.Pod), report.State, report.Load, int32(report.Routing), int32(report.TTL))
	if err != nil {
		return biz.ReportResult{}, err
	}
	pod, err := podOf(reply, 1)
	if err != nil {
		return biz.ReportResult{}, err
	}
	if pod == nil {
		return biz.ReportResult{}, reply.Malformed()
	}
	previous, err := podOf(reply, 2)
	if err != nil {
		return biz.ReportResult{}, err
	}
	return biz.ReportResult{Applied: true, Pod: *pod, Previous: previous}, unconfirmed(reply, nil)
}

// podOf parses reply.Values[i], which is "{<pod> <state> <load> <routing> <live> <heartbeat> <ttl>}"; nil for "{}".
func podOf(reply rdb.Reply, i int) (*biz.Pod, error) {
	fields, err := reply.Nested(i, 7)
	if err != nil || fields == nil {
		return nil, err
	}
	var p parser
	pod := &biz.Pod{
		Report: biz.Report{
			Pod:     p.pod(fields[0]),
			State:   p.text(fields[1]),
			Load:    int32(p.number(fields[2], 0, math.MaxInt32)),
			Routing: biz.Routing(p.number(fields[3], int64(biz.Ready), int64(biz.Shutdown))),
			TTL:     p.ttl(fields[6]),
		},
		HeartbeatMs: p.number(fields[5], 0, math.MaxInt64),
	}
	if fields[4] == "1" {
		pod.Liveness = biz.Live
	}
	pod.Capacity = biz.NoCapacity
	return pod, p.err
}

// View implements biz.PodRepo.
func (r podRepo) View(ctx context.Context, key biz.ServiceKey) (biz.PodsView, error) {
	pods, err := r.List(ctx, key)
	for i := range pods {
		if pods[i].Liveness == biz.Dead {
			pods[i].HeardMs = -1 << 50
		}
	}
	return biz.PodsView{Pods: pods}, err
}

// Cordon implements biz.PodRepo.
func (r podRepo) Cordon(ctx context.Context, key biz.ServiceKey, id biz.PodID, _ biz.Routing, _ biz.TTL) (biz.Pod, error) {
	return r.Get(ctx, key, id)
}

func (r podRepo) List(ctx context.Context, key biz.ServiceKey) ([]biz.Pod, error) {
	reply, err := r.run(ctx, scriptGetService, r.keys.pods(key))
	if err != nil {
		return nil, err
	}
	pods := make([]biz.Pod, 0, len(reply.Values)-1)
	for i := 1; i < len(reply.Values); i++ {
		pod, err := podOf(reply, i)
		if err != nil {
			return nil, err
		}
		pods = append(pods, *pod)
	}
	sort.Slice(pods, func(i, j int) bool { return pods[i].Pod < pods[j].Pod })
	return pods, nil
}

func (r podRepo) Get(ctx context.Context, key biz.ServiceKey, id biz.PodID) (biz.Pod, error) {
	reply, err := r.run(ctx, scriptGetServicePod, r.keys.pods(key), int32(id))
	if err != nil {
		return biz.Pod{}, err
	}
	pod, err := podOf(reply, 1)
	switch {
	case err != nil:
		return biz.Pod{}, err
	case pod == nil:
		return biz.Pod{}, biz.ErrPodNotFound
	}
	return *pod, nil
}

func (r podRepo) Remove(ctx context.Context, key biz.ServiceKey, id biz.PodID) (*biz.Pod, error) {
	reply, err := r.run(ctx, scriptRemoveState, r.keys.pods(key), int32(id))
	if err != nil {
		return nil, err
	}
	pod, err := podOf(reply, 1)
	if pod == nil || err != nil {
		return nil, err
	}
	return pod, unconfirmed(reply, nil)
}

func (r podRepo) Reserve(ctx context.Context, key biz.ServiceKey, request biz.ReserveRequest) (biz.Reservation, error) {
	reply, err := r.run(ctx, scriptReservePod, r.keys.pods(key), int32(request.Linked))
	if err != nil {
		return biz.Reservation{}, err
	}
	switch reply.Status() {
	case "USABLE":
		return biz.Reservation{Outcome: biz.LinkedPodUsable}, nil
	case "UNKNOWN":
		return biz.Reservation{Outcome: biz.NeverReported}, nil
	case "NONE":
		return biz.Reservation{Outcome: biz.NoPodAvailable}, nil
	case "RESERVED":
		fields, err := reply.Fields(1, 2)
		if err != nil {
			return biz.Reservation{}, err
		}
		var p parser
		reservation := biz.Reservation{
			Outcome: biz.Reserved, Pod: p.pod(fields[0]), HeartbeatMs: p.number(fields[1], 0, math.MaxInt64),
		}
		return reservation, p.err
	default:
		return biz.Reservation{}, reply.Malformed()
	}
}

func (r podRepo) Release(ctx context.Context, key biz.ServiceKey, reservation biz.Reservation) error {
	_, err := r.run(ctx, scriptReleasePod, r.keys.pods(key), int32(reservation.Pod), reservation.HeartbeatMs)
	return err
}
