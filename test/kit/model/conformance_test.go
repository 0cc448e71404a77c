package model_test

import (
	"context"
	"testing"
	"time"

	"podlink/internal/biz"
	"podlink/internal/biz/biztest"
	"podlink/test/kit/model"
)

// TestConformance runs the suite of podlink's stores on the model, with two podlinks.
func TestConformance(t *testing.T) {
	store := model.NewStore()
	repos := func() func(*testing.T) biztest.Repos {
		configured := func(s biztest.PodSettings) biz.PodRepo {
			podlink := store.Podlink()
			podlink.MaxPods, podlink.ForgetAfter, podlink.Primaries = s.MaxPods, s.ForgetAfter, &s.Primaries
			return podlink.Pods()
		}
		podlink := store.Podlink()
		all := biztest.Repos{
			Links: podlink.Links(), Workloads: podlink.Workloads(), Jobs: podlink.Jobs(), Configured: configured,
			Pods: configured(biztest.PodSettings{MaxPods: 4096, ForgetAfter: 24 * time.Hour, Primaries: "one"}),
			Pass: func(_ context.Context, key biz.ServiceKey, d time.Duration) error {
				store.Pass(key, d)
				return nil
			},
		}
		return func(*testing.T) biztest.Repos { return all }
	}
	biztest.Run(t, repos(), repos())
}
