//go:build bench

package main

import (
	"context"
	"sync"

	"github.com/redis/go-redis/v9"

	v1 "podlink/api/podlink/v1"
)

// links implements the measured part of the API. All links are persistent, and every link that is read exists.
type links struct {
	v1.UnimplementedLinkServiceServer

	pods store
}

// store stores the links' pods.
type store interface {
	get(ctx context.Context, user, service string) (int, error)
	set(ctx context.Context, user, service string, pod int32) error
}

// request has the fields common to all requests.
type request interface {
	GetNamespace() string
	GetUid() string
	GetService() string
}

func user(r request) string { return r.GetNamespace() + ":" + r.GetUid() }

// link returns a link of the same size as podlink's.
func link(r request, pod int32) *v1.Link {
	return &v1.Link{
		Namespace: r.GetNamespace(), Uid: r.GetUid(), Service: r.GetService(), PodId: pod,
		Persistent: true, TtlSeconds: -1, Epoch: 1_795_407_520_551_085,
	}
}

// GetLinkedPod implements the API.
func (l *links) GetLinkedPod(ctx context.Context, r *v1.GetLinkedPodRequest) (*v1.GetLinkedPodReply, error) {
	pod, err := l.pods.get(ctx, user(r), r.GetService())
	return &v1.GetLinkedPodReply{Link: link(r, int32(pod))}, err
}

// ComputeLinkedPod implements the API.
func (l *links) ComputeLinkedPod(ctx context.Context, r *v1.ComputeLinkedPodRequest) (*v1.ComputeLinkedPodReply, error) {
	pod, err := l.pods.get(ctx, user(r), r.GetService())
	return &v1.ComputeLinkedPodReply{
		Outcome: v1.ComputeLinkedPodReply_EXISTING, Link: link(r, int32(pod)), PreviousPodId: int32(pod),
	}, err
}

// SetLinkedPod implements the API, without the previous pod, which one command can't return.
func (l *links) SetLinkedPod(ctx context.Context, r *v1.SetLinkedPodRequest) (*v1.SetLinkedPodReply, error) {
	err := l.pods.set(ctx, user(r), r.GetService(), r.GetPodId())
	return &v1.SetLinkedPodReply{Link: link(r, r.GetPodId()), PreviousPodId: -1}, err
}

// memory is a store in a map.
type memory struct {
	mu   sync.RWMutex
	pods map[string]int32
}

func (m *memory) get(_ context.Context, user, service string) (int, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return int(m.pods[user+":"+service]), nil
}

func (m *memory) set(_ context.Context, user, service string, pod int32) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pods[user+":"+service] = pod
	return nil
}

// plain is a store in Redis, with one plain command per call.
type plain struct{ client *redis.Client }

func (p plain) get(ctx context.Context, user, service string) (int, error) {
	return p.client.HGet(ctx, "baseline:"+user, service).Int()
}

func (p plain) set(ctx context.Context, user, service string, pod int32) error {
	return p.client.HSet(ctx, "baseline:"+user, service, pod).Err()
}
