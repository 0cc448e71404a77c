package biz

import "context"

// Page asks for a part of a list.
type Page struct {
	Size  int32 // at most 1000; 0: 100
	Token string
}

// NamespaceServices is a namespace with its services, sorted.
type NamespaceServices struct {
	Namespace string
	Services  []string
}

// ServiceSummary is what is known about a service.
type ServiceSummary struct {
	Service                       string
	Live, InDoubt, Dead, Cordoned int
	Load                          int64  // of the live pods
	Capacity                      *int64 // of the live pods; nil: one of them has none
	Links                         int64
}

// PodLinks is a page of the links to a pod.
type PodLinks struct {
	Links    []Link
	Next     string
	Complete bool
}

// LinkCounts are the numbers of links of a service's pods.
type LinkCounts struct {
	Counts                []IndexedPod
	Complete, Approximate bool
}

// FleetUsecase answers questions about all links of a service.
type FleetUsecase struct{}

// FleetOptions configures a FleetUsecase.
type FleetOptions struct {
	Index bool // there is an index
}

// NewFleetUsecase returns the use case on the repos.
func NewFleetUsecase(_ IndexRepo, _ FeedRepo, _ LinkRepo, _ *PodViews, _ func() bool, _ FleetOptions) *FleetUsecase {
	return new(FleetUsecase)
}

// Namespaces returns a page of the namespaces with services that the caller sees, and the token of the next one.
func (u *FleetUsecase) Namespaces(context.Context, func(ServiceKey) bool, Page) ([]NamespaceServices, string, error) {
	return nil, "", ErrIndexDisabled
}

// Services returns a page of the services of a namespace that the caller sees, and the token of the next one.
func (u *FleetUsecase) Services(context.Context, string, func(ServiceKey) bool, Page) ([]ServiceSummary, string, error) {
	return nil, "", ErrIndexDisabled
}

// PodLinks returns a page of the links to a pod.
func (u *FleetUsecase) PodLinks(context.Context, ServiceKey, *PodID, Page) (PodLinks, error) {
	return PodLinks{}, ErrIndexDisabled
}

// CountPodLinks returns how many links each pod has.
func (u *FleetUsecase) CountPodLinks(context.Context, ServiceKey) (LinkCounts, error) {
	return LinkCounts{}, ErrIndexDisabled
}
