package biz

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// NamespaceServices are the services of a namespace.
type NamespaceServices struct {
	Namespace string
	Services  []string // sorted
}

// Namespaces returns a page of the namespaces with their known services, sorted, and the token of the next page. A known service may
// have neither links nor pods any more. Services for which sees is false are left out; nil: none.
func (u *FleetUsecase) Namespaces(
	ctx context.Context, sees func(ServiceKey) bool, page Page,
) ([]NamespaceServices, string, error) {
	after, err := page.validateNamed()
	if err != nil {
		return nil, "", err
	}
	known, err := u.known(ctx, "", sees)
	if err != nil {
		return nil, "", err
	}
	var all []NamespaceServices
	for _, key := range known {
		if last := len(all) - 1; last >= 0 && all[last].Namespace == key.Namespace {
			all[last].Services = append(all[last].Services, key.Service)
			continue
		}
		all = append(all, NamespaceServices{Namespace: key.Namespace, Services: []string{key.Service}})
	}
	namespaces, next := pageOf(all, func(n NamespaceServices) string { return n.Namespace }, after, page.size())
	return namespaces, next, nil
}

// ServiceSummary is what podlink knows about a service.
type ServiceSummary struct {
	Service string
	// How many pods are live, in doubt and dead, and how many of them have a cordon.
	Live, InDoubt, Dead, Cordoned int
	Load                          int64  // the sum of the live pods
	Capacity                      *int64 // the sum of the live pods; nil: one of them limits its links itself
	Links                         int64  // about how many, as in LinkCounts
}

// Services returns a page of the services of the namespace that have pods or links, sorted, and the token of the next page. A page
// may have none, and not be the last. Services for which sees is false are left out; nil: none.
func (u *FleetUsecase) Services(
	ctx context.Context, namespace string, sees func(ServiceKey) bool, page Page,
) ([]ServiceSummary, string, error) {
	after, err := page.validateNamed()
	if err := firstError(validateName("namespace", namespace), err); err != nil {
		return nil, "", err
	}
	known, err := u.known(ctx, namespace, sees)
	if err != nil {
		return nil, "", err
	}
	known, next := pageOf(known, func(key ServiceKey) string { return key.Service }, after, page.size())
	summaries := make([]ServiceSummary, len(known))
	err = eachConcurrently(ctx, len(known), func(ctx context.Context, i int) (err error) {
		summaries[i], err = u.summary(ctx, known[i])
		return err
	})
	if err != nil {
		return nil, "", err
	}
	return slices.DeleteFunc(summaries, ServiceSummary.empty), next, nil
}

// known returns the known services of the namespace, of all if it is empty, sorted by namespace and service. What the caller must not
// see is left out before there are pages: a token would name it.
func (u *FleetUsecase) known(ctx context.Context, namespace string, sees func(ServiceKey) bool) ([]ServiceKey, error) {
	if !u.enabled {
		return nil, ErrIndexDisabled
	}
	known, err := u.index.Services(ctx, namespace)
	if err != nil {
		return nil, err
	}
	if sees != nil {
		known = slices.DeleteFunc(known, func(key ServiceKey) bool { return !sees(key) })
	}
	slices.SortFunc(known, func(a, b ServiceKey) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Service, b.Service))
	})
	return known, nil
}

// summary reads the pods of a service and the sizes of its indexes.
func (u *FleetUsecase) summary(ctx context.Context, key ServiceKey) (ServiceSummary, error) {
	pods, err := u.pods.List(ctx, key)
	if err != nil {
		return ServiceSummary{}, fmt.Errorf("the pods of %s/%s: %w", key.Namespace, key.Service, err)
	}
	indexed, err := u.index.IndexedPods(ctx, key)
	if err != nil {
		return ServiceSummary{}, fmt.Errorf("the index of %s/%s: %w", key.Namespace, key.Service, err)
	}
	summary := ServiceSummary{Service: key.Service, Capacity: new(int64)}
	for _, pod := range pods {
		summary.count(pod)
	}
	for _, pod := range indexed {
		summary.Links += pod.Entries
	}
	return summary, nil
}

// count adds a pod.
func (s *ServiceSummary) count(pod Pod) {
	if pod.Cordon != Ready {
		s.Cordoned++
	}
	switch pod.Liveness {
	case Dead:
		s.Dead++
	case InDoubt:
		s.InDoubt++
	case Live:
		s.Live++
		s.Load += int64(pod.Load)
		switch {
		case pod.Capacity == NoCapacity:
			s.Capacity = nil
		case s.Capacity != nil:
			*s.Capacity += int64(pod.Capacity)
		}
	}
}

// empty reports whether the service has neither pods nor links.
func (s ServiceSummary) empty() bool { return s.Live+s.InDoubt+s.Dead == 0 && s.Links == 0 }

// maxConcurrentReads is how many services a list reads at a time.
const maxConcurrentReads = 16

// eachConcurrently calls do for 0 … n-1, some at a time, and returns the first error, which ends the context of the others.
func eachConcurrently(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var group sync.WaitGroup
	for range min(n, maxConcurrentReads) {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := do(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	group.Wait()
	return context.Cause(ctx)
}
