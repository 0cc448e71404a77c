package service_test

import (
	"context"
	"fmt"
	"testing"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/biz"
	"podlink/internal/service"
	"podlink/internal/telemetry"
)

// linkStub is a LinkRepo whose Get always returns a link to pod 7.
type linkStub struct{ biz.LinkRepo }

func (linkStub) Get(_ context.Context, key biz.LinkKey) (biz.Link, error) {
	return biz.Link{Key: key, Pod: 7, TTL: biz.Forever, Epoch: 1_763_871_882_483_671}, nil
}

func BenchmarkGetLinkedPod(b *testing.B) {
	b.ReportAllocs()
	domain := telemetry.NewDomain()
	views := biz.NewPodViews(nil, domain)
	links := service.NewLinkService(biz.NewLinkUsecase(linkStub{}, views, biz.Limits{MaxBatch: 1000}, domain), service.NopProblems{})
	request := &v1.GetLinkedPodRequest{Namespace: "game", Uid: "user-000042", Service: "room"}
	for b.Loop() {
		if _, err := links.GetLinkedPod(b.Context(), request); err != nil {
			b.Fatal(err)
		}
	}
}

// podStub is a PodRepo with a live pod 7.
type podStub struct{ biz.PodRepo }

func (podStub) View(context.Context, biz.ServiceKey) (biz.PodsView, error) {
	pod := biz.Pod{Report: biz.Report{Pod: 7, State: "up", TTL: biz.Forever, Capacity: biz.NoCapacity}}
	return biz.PodsView{Pods: []biz.Pod{pod}}, nil
}

// BenchmarkComputeLinkedPod computes an existing link.
func BenchmarkComputeLinkedPod(b *testing.B) {
	b.ReportAllocs()
	domain := telemetry.NewDomain()
	views := biz.NewPodViews(podStub{}, domain)
	links := service.NewLinkService(biz.NewLinkUsecase(linkStub{}, views, biz.Limits{MaxBatch: 1000}, domain), service.NopProblems{})
	request := &v1.ComputeLinkedPodRequest{Namespace: "game", Uid: "user-000042", Service: "room"}
	for b.Loop() {
		if _, err := links.ComputeLinkedPod(b.Context(), request); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPublicError(b *testing.B) {
	for name, err := range map[string]error{
		"invalid":  &biz.InvalidArgumentError{Field: "uid", Detail: "must be valid UTF-8"},
		"mismatch": &biz.EpochMismatchError{Current: biz.Link{Pod: 7, TTL: biz.Forever, Epoch: 1}},
		"store":    fmt.Errorf("statefulSetLink: %w: connection refused", biz.ErrStoreUnavailable),
		"public":   service.PublicError(biz.ErrNoAvailablePod),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = service.PublicError(err)
			}
		})
	}
}
