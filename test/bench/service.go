//go:build bench

package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	podlinktest "podlink/test/kit/podlink"
)

const (
	namespace = "bench"
	service   = "game"
	// connections is the number of connections per transport. Each has one call in flight.
	connections = 64
	// users and pods are the numbers of users and pods with links.
	users, pods = 10_000, 10
)

// side is one of the compared servers, with its clients.
type side struct {
	name    string
	process *podlinktest.Process
	links   []v1.LinkServiceClient // one per connection
	http    *http.Client
	calls   atomic.Int64 // so far, in all loads
}

func newSide(t *testing.T, name string, process *podlinktest.Process) *side {
	t.Helper()
	process.WaitReady(t)
	transport := &http.Transport{MaxConnsPerHost: connections, MaxIdleConnsPerHost: connections}
	t.Cleanup(transport.CloseIdleConnections)
	s := &side{name: name, process: process, http: &http.Client{Transport: transport}}
	for range connections {
		s.links = append(s.links, v1.NewLinkServiceClient(process.Conn(t)))
	}
	return s
}

// operation is a measured method over both transports. n selects the user.
type operation struct {
	name string
	grpc func(ctx context.Context, links v1.LinkServiceClient, n int) (*v1.Link, error)
	http func(n int) (method, path, body string)
}

var (
	get = operation{
		name: "GetLinkedPod",
		grpc: func(ctx context.Context, links v1.LinkServiceClient, n int) (*v1.Link, error) {
			reply, err := links.GetLinkedPod(ctx, &v1.GetLinkedPodRequest{Namespace: namespace, Uid: uid(n), Service: service})
			return reply.GetLink(), err
		},
		http: func(n int) (method, path, body string) { return http.MethodGet, linkPath(n), "" },
	}
	set = operation{
		name: "SetLinkedPod",
		grpc: func(ctx context.Context, links v1.LinkServiceClient, n int) (*v1.Link, error) {
			reply, err := links.SetLinkedPod(ctx, &v1.SetLinkedPodRequest{
				Namespace: namespace, Uid: uid(n), Service: service, PodId: proto.Int32(nextPod(n)),
			})
			return reply.GetLink(), err
		},
		http: func(n int) (method, path, body string) {
			return http.MethodPut, linkPath(n), fmt.Sprintf(`{"podId":%d}`, nextPod(n))
		},
	}
	compute = operation{
		name: "ComputeLinkedPod, standing",
		grpc: func(ctx context.Context, links v1.LinkServiceClient, n int) (*v1.Link, error) {
			reply, err := links.ComputeLinkedPod(ctx,
				&v1.ComputeLinkedPodRequest{Namespace: namespace, Uid: uid(n), Service: service})
			return reply.GetLink(), err
		},
		http: func(n int) (method, path, body string) { return http.MethodPost, linkPath(n) + ":compute", "{}" },
	}
)

// uids are the uids of the users with links.
var uids = func() []string {
	all := make([]string, users)
	for n := range all {
		all[n] = user(n)
	}
	return all
}()

func uid(n int) string { return uids[n%users] }

// nextPod returns the pod for the n-th call: a user's next call gets another pod.
func nextPod(n int) int32 { return int32(n / users % pods) }

func linkPath(n int) string {
	return "/v1/namespaces/" + namespace + "/links/" + uid(n) + "/services/" + service
}

// overGRPC and overHTTP call an operation over a transport. A call fails unless it returns an existing link.
func (s *side) overGRPC(op operation) call {
	return func(ctx context.Context, caller int) error {
		link, err := op.grpc(ctx, s.links[caller], int(s.calls.Add(1)))
		if err != nil {
			return err
		}
		return s.standing(link.GetPodId(), link.GetEpoch() > 0)
	}
}

func (s *side) overHTTP(op operation) call {
	return func(ctx context.Context, _ int) error {
		method, path, body := op.http(int(s.calls.Add(1)))
		request, err := http.NewRequestWithContext(ctx, method, "http://"+s.process.HTTP+path, strings.NewReader(body))
		if err != nil {
			return err
		}
		if body != "" {
			request.Header.Set("Content-Type", "application/json")
		}
		response, err := s.http.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			return err
		}
		var reply struct {
			Link struct {
				PodID int32
				Epoch string
			}
		}
		if err := json.Unmarshal(text, &reply); err != nil {
			return fmt.Errorf("%s: %w: %s", response.Status, err, text)
		}
		return s.standing(reply.Link.PodID, reply.Link.Epoch > "0")
	}
}

func (s *side) standing(pod int32, exists bool) error {
	if !exists || pod < 0 || pod >= pods {
		return fmt.Errorf("%s returned a link to pod %d", s.name, pod)
	}
	return nil
}

// batch looks up size users in one call over gRPC. The size must divide the number of users.
func (s *side) batch(size int) call {
	return func(ctx context.Context, caller int) error {
		first := int(s.calls.Add(1)) * size % users
		reply, err := s.links[caller].BatchGetLinkedPod(ctx, &v1.BatchGetLinkedPodRequest{
			Namespace: namespace, Service: service, Uids: uids[first : first+size],
		})
		if err != nil {
			return err
		}
		return s.standing(reply.GetPods()[0].GetPodId(), len(reply.GetUnlinkedUids()) == 0)
	}
}

// transport is a way to call a side.
type transport struct {
	name, id string
	call     func(*side, operation) call
}

var transports = []transport{{"gRPC", "grpc", (*side).overGRPC}, {"HTTP", "http", (*side).overHTTP}}
