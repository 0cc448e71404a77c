package data

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"podlink/internal/biz"
	"podlink/internal/rdb"
)

// PodLimits bounds the pods that the store keeps per service.
type PodLimits struct {
	MaxPods     int           // pods that are not dead; with dead ones, there may be 16 times as many
	ForgetAfter time.Duration // age of a dead pod's report at which it is forgotten
}

// Primaries returns the ids of the Redis primaries that podlink sees, separated by commas; "" if it has seen none yet. An
// unknown one means that the store may have lost data.
type Primaries func() string

type podRepo struct {
	store
	limits    PodLimits
	primaries Primaries
}

// NewPodRepo returns the repo of the pods' reports in the store.
func NewPodRepo(runner *rdb.Runner, keys Keyspace, limits PodLimits, primaries Primaries) biz.PodRepo {
	return podRepo{store{runner, keys}, limits, primaries}
}

// Set implements biz.PodRepo.
func (r podRepo) Set(ctx context.Context, key biz.ServiceKey, report biz.Report) (biz.ReportResult, error) {
	reply, err := r.run(ctx, scriptSetState, r.keys.service(key),
		int32(report.Pod), report.Load, int32(report.Routing), report.Capacity, int32(report.TTL),
		optional(report.Instance, noInstance), report.Sequence, int64(report.Generation), int64(report.Supersedes),
		optional(labelsOf(report.Labels), noText), optional(escape(report.Address), noText), escape(report.State),
		rand.Text(), r.primaries(), r.limits.MaxPods, r.limits.ForgetAfter.Milliseconds())
	if err != nil {
		return biz.ReportResult{}, err
	}
	var p parser
	switch reply.Status() {
	case "STORED":
		f, err := reply.Fields(1, 8)
		if err != nil {
			return biz.ReportResult{}, err
		}
		result := biz.ReportResult{Applied: true, Pod: p.podAt(f[0], f[1], f[2], f[3]), StoreID: f[4]}
		if f[6] != "" {
			previous := p.podAt(f[0], f[5], f[6], f[7])
			result.Previous = &previous
		}
		if p.err != nil {
			return biz.ReportResult{}, p.err
		}
		return result, unconfirmed(reply, nil)
	case "LATE":
		f, err := reply.Fields(1, 6)
		if err != nil {
			return biz.ReportResult{}, err
		}
		result := biz.ReportResult{StoreID: f[4]}
		if f[2] != "" {
			result.Pod = p.podAt(f[0], f[1], f[2], f[3])
		} else { // The pod was removed; what it reported then is not stored.
			result.Pod = biz.Pod{Report: report}
			result.Pod.Generation, result.Pod.Supersedes = p.generation(f[5]), 0
		}
		return result, p.err
	case "SUPERSEDED":
		f, err := reply.Fields(1, 2)
		if err != nil {
			return biz.ReportResult{}, err
		}
		superseded := &biz.SupersededError{Generation: p.generation(f[0]), Final: f[1] == "1"}
		if p.err != nil {
			return biz.ReportResult{}, p.err
		}
		return biz.ReportResult{}, fmt.Errorf("%s: %w", reply.Script, superseded)
	case "LIMITED":
		f, err := reply.Fields(1, 1)
		if err != nil {
			return biz.ReportResult{}, err
		}
		return biz.ReportResult{}, fmt.Errorf("%s: %w", reply.Script, &biz.LimitError{Limit: f[0]})
	default:
		return biz.ReportResult{}, reply.Malformed()
	}
}

// found returns the pod of a reply "<status> <now> <meta> <report> <burden>"; biz.ErrPodNotFound if the status is ABSENT.
func found(reply rdb.Reply) (biz.Pod, error) {
	if reply.Status() == "ABSENT" {
		return biz.Pod{}, biz.ErrPodNotFound
	}
	f, err := reply.Fields(1, 4)
	if err != nil {
		return biz.Pod{}, err
	}
	var p parser
	pod := p.podAt(f[0], f[1], f[2], f[3])
	return pod, p.err
}

// pageSize is the number of pods per call of List: it bounds the time for which a call blocks Redis.
const pageSize = 128

// List implements biz.PodRepo. Pods that report meanwhile are in the list once, before or after that report.
func (r podRepo) List(ctx context.Context, key biz.ServiceKey) ([]biz.Pod, error) {
	pods := []biz.Pod{}
	for from := int64(0); from >= 0; {
		reply, err := r.run(ctx, scriptGetService, r.keys.service(key), from, pageSize)
		if err != nil {
			return nil, err
		}
		f, err := reply.Fields(1, len(reply.Values)-1)
		if err != nil || len(f) < 3 || len(f)%2 == 0 {
			return nil, reply.Malformed()
		}
		var p parser
		next := p.number(f[2], -1, 1<<31)
		for i := 3; i < len(f); i += 2 {
			pods = append(pods, p.podAt(f[0], f[1], f[i], f[i+1]))
		}
		if p.err != nil {
			return nil, p.err
		}
		if next >= 0 && next <= from {
			return nil, reply.Malformed()
		}
		from = next
	}
	slices.SortFunc(pods, func(a, b biz.Pod) int { return int(a.Pod) - int(b.Pod) })
	return pods, nil
}

// View implements biz.PodRepo. The reports that are not buried, the meta member and the entries have adjacent scores, so one
// read gives all of a service with few pods. The reports of others are read in pages, so that no read blocks Redis for long; then
// an entry may be of a later report than the one that was read.
func (r podRepo) View(ctx context.Context, key biz.ServiceKey) (biz.PodsView, error) {
	const all = 2*scoreRange - 1
	values, call, err := r.members(ctx, key, lowestReport, all, viewPage)
	if err != nil {
		return biz.PodsView{}, err
	}
	var p parser
	paged := len(values) == viewPage*2
	for page := values; paged && len(page) == viewPage*2; {
		call.Decoded(nil)
		next := p.score(page[len(page)-1]) + 1
		if next >= metaScore || p.err != nil {
			break
		}
		if page, call, err = r.members(ctx, key, next, metaScore-1, viewPage); err != nil {
			return biz.PodsView{}, err
		}
		values = append(values, page...)
	}
	if paged {
		for len(values) > 0 && p.err == nil && p.score(values[len(values)-1]) >= metaScore {
			values = values[:len(values)-2]
		}
		rest, last, err := r.members(ctx, key, metaScore, all, -1)
		if err != nil {
			return biz.PodsView{}, err
		}
		values, call = append(values, rest...), last
	}
	view, err := parseView(values, paged)
	if p.err != nil {
		err = p.err
	}
	call.Decoded(err)
	return view, err
}

// viewPage is the number of members that a view reads at once: all of a service with up to a hundred pods.
const viewPage = 256

// members reads up to most members by their scores, each followed by its score; all with -1. The caller must end the call.
func (r podRepo) members(ctx context.Context, key biz.ServiceKey, low, high int64, most int) ([]any, rdb.Call, error) {
	value, call, err := r.runner.Read(ctx, keyService,
		"ZRANGEBYSCORE", r.keys.service(key), low, high, "WITHSCORES", "LIMIT", 0, most)
	if err != nil {
		return nil, rdb.Call{}, domainError(err)
	}
	values, _ := value.([]any)
	if len(values) > 0 {
		if _, paired := values[0].([]any); paired { // As with RESP3.
			values = slices.Concat(pairs(values)...)
		}
	}
	return values, call, nil
}

// Get implements biz.PodRepo.
func (r podRepo) Get(ctx context.Context, key biz.ServiceKey, id biz.PodID) (biz.Pod, error) {
	reply, err := r.run(ctx, scriptGetServicePod, r.keys.service(key), int32(id))
	if err != nil {
		return biz.Pod{}, err
	}
	return found(reply)
}

// Cordon implements biz.PodRepo.
func (r podRepo) Cordon(
	ctx context.Context, key biz.ServiceKey, id biz.PodID, cordon biz.Routing, ttl biz.TTL,
) (biz.Pod, error) {
	reply, err := r.run(ctx, scriptCordonPod, r.keys.service(key), int32(id), int32(cordon), int32(ttl))
	if err != nil {
		return biz.Pod{}, err
	}
	pod, err := found(reply)
	if err != nil {
		return biz.Pod{}, err
	}
	return pod, unconfirmed(reply, nil)
}

// Remove implements biz.PodRepo.
func (r podRepo) Remove(ctx context.Context, key biz.ServiceKey, id biz.PodID) (*biz.Pod, error) {
	reply, err := r.run(ctx, scriptRemoveState, r.keys.service(key), int32(id))
	if err != nil {
		return nil, err
	}
	pod, err := found(reply)
	switch {
	case errors.Is(err, biz.ErrPodNotFound):
		return nil, nil //nolint:nilnil // There was none.
	case err != nil:
		return nil, err
	}
	return &pod, unconfirmed(reply, nil)
}
