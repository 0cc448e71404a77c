package service_test

import (
	"context"
	"fmt"
	"testing"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/biz"
	"podlink/internal/service"
)

// memory is a store that answers every read with one link.
type memory struct{ biz.LinkRepo }

func (memory) Get(_ context.Context, key biz.LinkKey) (biz.Link, error) {
	return biz.Link{Key: key, Pod: 7, TTL: biz.Forever, Epoch: 1_763_871_882_483_671}, nil
}

func BenchmarkGetLinkedPod(b *testing.B) {
	b.ReportAllocs()
	views := biz.NewPodViews(nil)
	links := service.NewLinkService(biz.NewLinkUsecase(memory{}, views, biz.Limits{MaxBatch: 1000}, biz.NewMetrics(views)))
	request := &v1.GetLinkedPodRequest{Namespace: "game", Uid: "user-000042", Service: "room"}
	for b.Loop() {
		if _, err := links.GetLinkedPod(b.Context(), request); err != nil {
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
