package model

import (
	"context"
	"slices"
	"strings"
	"time"

	"podlink/internal/biz"
)

// indexRepo implements biz.IndexRepo: an index that is never behind the links, unless it is told to lack some.
type indexRepo struct{ *Podlink }

// Index returns the repo of the index.
func (p *Podlink) Index() biz.IndexRepo { return indexRepo{p} }

// SetCompleteness sets how many gaps there were, and how many of them a census has covered.
func (s *Store) SetCompleteness(gaps, covered int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gaps, s.covered = gaps, covered
}

// Hide makes the index lack the links of users whose uid it is told of. Nil: none.
func (s *Store) Hide(hidden func(uid string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hidden = hidden
}

// all returns the live links, sorted by uid. The caller must hold mu.
func (s *Store) all(matches func(biz.Link) bool) (links []biz.Link) {
	now := s.micros()
	for owner, services := range s.links {
		if s.hidden != nil && s.hidden(owner.uid) {
			continue
		}
		for service := range services {
			link := s.find(biz.LinkKey{Namespace: owner.namespace, UID: owner.uid, Service: service}, now).link
			if link.Exists() && matches(link) {
				links = append(links, link)
			}
		}
	}
	slices.SortFunc(links, func(a, b biz.Link) int { return strings.Compare(a.Key.UID, b.Key.UID) })
	return links
}

func serviceOf(link biz.Link) biz.ServiceKey {
	return biz.ServiceKey{Namespace: link.Key.Namespace, Service: link.Key.Service}
}

// Services implements biz.IndexRepo.
func (r indexRepo) Services(ctx context.Context, namespace string) (keys []biz.ServiceKey, _ error) {
	err := r.call(ctx, false, func() {
		in := func(ns string) bool { return namespace == "" || ns == namespace }
		for _, link := range r.store.all(func(link biz.Link) bool { return in(link.Key.Namespace) }) {
			keys = append(keys, serviceOf(link))
		}
		for key := range r.store.services {
			if in(key.Namespace) {
				keys = append(keys, key)
			}
		}
	})
	slices.SortFunc(keys, func(a, b biz.ServiceKey) int {
		return strings.Compare(a.Namespace+":"+a.Service, b.Namespace+":"+b.Service)
	})
	return slices.Compact(keys), err
}

// IndexedPods implements biz.IndexRepo.
func (r indexRepo) IndexedPods(ctx context.Context, key biz.ServiceKey) (pods []biz.IndexedPod, _ error) {
	counts := make(map[biz.PodID]int64)
	err := r.call(ctx, false, func() {
		for _, link := range r.store.all(func(link biz.Link) bool { return serviceOf(link) == key }) {
			counts[link.Pod]++
		}
	})
	if err != nil {
		return nil, err
	}
	for _, pod := range sortedKeys(counts) {
		pods = append(pods, biz.IndexedPod{Pod: pod, Entries: counts[pod]})
	}
	return pods, nil
}

// Entries implements biz.IndexRepo. The token is the last uid.
func (r indexRepo) Entries(
	ctx context.Context, key biz.ServiceKey, pod biz.PodID, token string, n int,
) (entries []biz.IndexEntry, next string, _ error) {
	err := r.call(ctx, false, func() {
		links := r.store.all(func(link biz.Link) bool {
			return serviceOf(link) == key && link.Pod == pod && link.Key.UID > token
		})
		if len(links) > n {
			links, next = links[:n], links[n-1].Key.UID
		}
		for _, link := range links {
			entries = append(entries, biz.IndexEntry{UID: link.Key.UID, Epoch: link.Epoch})
		}
	})
	if err != nil {
		return nil, "", err
	}
	return entries, next, nil
}

// ScanLinks implements biz.IndexRepo. It returns all links of the namespace at once.
func (r indexRepo) ScanLinks(ctx context.Context, namespace, _ string, _ int) (links []biz.Link, _ string, _ error) {
	err := r.call(ctx, false, func() {
		links = r.store.all(func(link biz.Link) bool { return namespace == "" || link.Key.Namespace == namespace })
	})
	return links, "", err
}

// ScanKeys implements biz.KeyScanner. It returns all keys at once; links that are corrupt are foreign.
func (p *Podlink) ScanKeys(ctx context.Context, _ string, _ int) (keys []biz.StoredLinks, _ string, _ error) {
	err := p.call(ctx, false, func() {
		now := p.store.micros()
		for owner, services := range p.store.links {
			key := biz.StoredLinks{Namespace: owner.namespace, UID: owner.uid}
			for service := range services {
				if p.store.corrupt[owner] {
					key.Foreign = append(key.Foreign, service)
				} else if f := p.store.find(biz.LinkKey{Namespace: owner.namespace, UID: owner.uid, Service: service}, now); f.link.Exists() {
					key.Links = append(key.Links, f.link)
				}
			}
			keys = append(keys, key)
		}
	})
	return keys, "", err
}

// Indexed implements biz.KeyScanner.
func (p *Podlink) Indexed(ctx context.Context, _ biz.ServiceKey, _ biz.PodID, uids []string) ([]bool, error) {
	indexed := make([]bool, len(uids))
	err := p.call(ctx, false, func() {
		for i, uid := range uids {
			indexed[i] = p.store.hidden == nil || !p.store.hidden(uid)
		}
	})
	return indexed, err
}

// Completeness implements biz.IndexRepo.
func (r indexRepo) Completeness(ctx context.Context) (gaps, covered int64, _ error) {
	err := r.call(ctx, false, func() { gaps, covered = r.store.gaps, r.store.covered })
	return gaps, covered, err
}

// Cover implements biz.IndexRepo.
func (r indexRepo) Cover(ctx context.Context, gaps int64) error {
	return r.call(ctx, true, func() { r.store.covered = max(r.store.covered, min(gaps, r.store.gaps)) })
}

// Lease implements biz.IndexRepo.
func (r indexRepo) Lease(ctx context.Context, name, holder string, ttl time.Duration) (mine bool, _ error) {
	err := r.call(ctx, true, func() {
		now := time.Now()
		lease := r.store.leases[name]
		if mine = lease.holder == holder || !now.Before(lease.until); mine {
			r.store.leases[name] = nameLease{holder, now.Add(ttl)}
		}
	})
	return mine, err
}

// nameLease is a lease of a name.
type nameLease struct {
	holder string
	until  time.Time
}

// Release implements biz.IndexRepo.
func (r indexRepo) Release(ctx context.Context, name, holder string) error {
	return r.call(ctx, true, func() {
		if r.store.leases[name].holder == holder {
			delete(r.store.leases, name)
		}
	})
}
