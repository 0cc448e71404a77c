package data

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"podlink/internal/biz"
	"podlink/internal/rdb"
)

// maxReserveCalls is the maximum number of calls of one Reserve. Each but the last moves up to 64 entries of silent pods out of
// the way, once for all callers.
const maxReserveCalls = 128

// Reserve implements biz.PodRepo.
func (r podRepo) Reserve(ctx context.Context, key biz.ServiceKey, request biz.ReserveRequest) (biz.Reservation, error) {
	args := reserveArgs(request)
	for range maxReserveCalls {
		reply, err := r.run(ctx, scriptReservePod, r.keys.service(key), args...)
		if err != nil {
			return biz.Reservation{}, err
		}
		if status := reply.Status(); status != "AGAIN" {
			if len(reply.Values) == 1 {
				return reservationOf(reply, status, "", "")
			}
			f, err := reply.Fields(1, 2)
			if err != nil {
				return biz.Reservation{}, err
			}
			return reservationOf(reply, status, f[0], f[1])
		}
	}
	return biz.Reservation{}, errSilentPods
}

var errSilentPods = fmt.Errorf("%w: too many silent pods", biz.ErrStoreUnavailable)

// maxChoices is the maximum number of links for which one run of a script reserves pods: it bounds the time for which it blocks
// Redis.
const maxChoices = 128

// BatchReserve implements biz.PodRepo.
func (r podRepo) BatchReserve(ctx context.Context, key biz.ServiceKey, requests []biz.ReserveRequest) []biz.ReserveResult {
	results := make([]biz.ReserveResult, 0, len(requests))
	for calls := 0; len(results) < len(requests); calls++ {
		rest := requests[len(results):]
		chosen, err := r.reserveSome(ctx, key, rest[:min(len(rest), maxChoices)])
		if err == nil && len(chosen) == 0 && calls >= maxReserveCalls {
			err = errSilentPods
		}
		for _, reservation := range chosen {
			results = append(results, biz.ReserveResult{Reservation: reservation})
		}
		for err != nil && len(results) < len(requests) {
			results = append(results, biz.ReserveResult{Err: err})
		}
	}
	return results
}

// reserveSome reserves for the first of the requests, and usually for all.
func (r podRepo) reserveSome(
	ctx context.Context, key biz.ServiceKey, requests []biz.ReserveRequest,
) ([]biz.Reservation, error) {
	args := []any{strings.Join(labelPairs(requests[0].Selector), " ")}
	for _, request := range requests {
		args = append(args, choiceText(request))
	}
	reply, err := r.run(ctx, scriptReservePods, r.keys.service(key), args...)
	if err != nil {
		return nil, err
	}
	if reply.Status() == "UNKNOWN" {
		none := biz.Reservation{Outcome: biz.NeverReported}
		return slices.Repeat([]biz.Reservation{none}, len(requests)), nil
	}
	texts, err := reply.Fields(1, len(reply.Values)-1)
	if err != nil || len(texts) > len(requests) {
		return nil, reply.Malformed()
	}
	reservations := make([]biz.Reservation, len(texts))
	for i, text := range texts {
		status, rest, _ := strings.Cut(text, " ")
		pod, at, _ := strings.Cut(rest, " ")
		if reservations[i], err = reservationOf(reply, status, pod, at); err != nil {
			return nil, err
		}
	}
	return reservations, nil
}

// choiceText returns the arguments of a request, without the selector, as one of the script for many.
func choiceText(request biz.ReserveRequest) string {
	request.Selector = nil
	var text strings.Builder
	for i, arg := range reserveArgs(request) {
		if i > 0 {
			text.WriteByte(' ')
		}
		fmt.Fprint(&text, arg)
	}
	return strings.TrimRight(text.String(), " ")
}

// reserveArgs returns the arguments of the script. Most requests are for a new link and want nothing special, which the script
// recognizes by their absence.
func reserveArgs(request biz.ReserveRequest) []any {
	args := []any{int32(request.Linked)}
	if !request.Leave && !request.DoubtOver && len(request.Avoid) == 0 && len(request.Selector) == 0 && request.Known == nil {
		return args
	}
	known, avoid := biz.NoPod, request.Avoid
	if request.Known != nil {
		known = request.Known.Pod
	}
	if request.Leave {
		avoid = append(slices.Clone(avoid), request.Linked)
	}
	var avoided strings.Builder
	for _, pod := range avoid {
		avoided.WriteString("," + strconv.Itoa(int(pod)))
	}
	if len(avoid) > 0 {
		avoided.WriteString(",")
	}
	return append(args, asFlag(request.Leave), asFlag(request.DoubtOver), int32(known), avoided.String(),
		strings.Join(labelPairs(request.Selector), " "))
}

func asFlag(set bool) int {
	if set {
		return 1
	}
	return 0
}

// reservationOf returns the reservation of a result: its status, and the pod and the time of its report, if there are any.
func reservationOf(reply rdb.Reply, status, pod, at string) (biz.Reservation, error) {
	switch status {
	case "USABLE":
		return biz.Reservation{Outcome: biz.LinkedPodUsable}, nil
	case "UNKNOWN":
		return biz.Reservation{Outcome: biz.NeverReported}, nil
	case "NONE":
		return biz.Reservation{Outcome: biz.NoPodAvailable}, nil
	}
	outcome, known := map[string]biz.ReserveOutcome{"RESERVED": biz.Reserved, "RESTORED": biz.Restored}[status]
	if !known || pod == "" {
		return biz.Reservation{}, reply.Malformed()
	}
	var p parser
	reserved := biz.Reservation{Outcome: outcome, Pod: p.pod(pod), HeartbeatMs: p.number(at, 0, maxTime)}
	return reserved, p.err
}

// Release implements biz.PodRepo.
func (r podRepo) Release(ctx context.Context, key biz.ServiceKey, reservation biz.Reservation) error {
	_, err := r.run(ctx, scriptReleasePod, r.keys.service(key), int32(reservation.Pod), reservation.HeartbeatMs)
	return err
}

// BatchRelease implements biz.PodRepo.
func (r podRepo) BatchRelease(ctx context.Context, key biz.ServiceKey, reservations []biz.Reservation) error {
	for some := range slices.Chunk(reservations, maxChoices) {
		var args []any
		for _, reservation := range some {
			args = append(args, int32(reservation.Pod), reservation.HeartbeatMs)
		}
		if _, err := r.run(ctx, scriptReleasePod, r.keys.service(key), args...); err != nil {
			return err
		}
	}
	return nil
}
