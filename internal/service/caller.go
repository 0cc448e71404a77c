package service

import (
	"context"

	"podlink/internal/auth"
	"podlink/internal/biz"
)

// own returns the pod whose links alone the caller may change; nil: it may change those of any pod.
func own(ctx context.Context) *biz.PodID {
	if call := auth.From(ctx); call != nil {
		return cast[biz.PodID](call.Grant.Own)
	}
	return nil
}

// sees returns which services the caller may see; nil: all.
func sees(ctx context.Context) func(biz.ServiceKey) bool {
	call := auth.From(ctx)
	if call == nil {
		return nil
	}
	return func(key biz.ServiceKey) bool { return call.Grant.Sees(key.Namespace, key.Service) }
}

// visible returns the links that the caller may see.
func visible(ctx context.Context, links []biz.Link) []biz.Link {
	call := auth.From(ctx)
	if call == nil {
		return links
	}
	seen := links[:0]
	for _, link := range links {
		if call.Grant.Sees(link.Key.Namespace, link.Key.Service) {
			seen = append(seen, link)
		}
	}
	return seen
}
