package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
)

const (
	namespace, service = "bench", "game"
	// users is the number of users with a link, and pods of pods that report.
	users, pods = 2000, 10
	// crowd is the number of concurrent callers, and of connections per transport.
	crowd = 64
	// callTimeout bounds a slice's calls. It is long: a busy machine is slow, not wrong.
	callTimeout = 10 * time.Second
)

// operation is a measured method. n is the number of the call, from which the user is derived.
type operation struct {
	name string
	grpc func(ctx context.Context, links v1.LinkServiceClient, n int) (linked bool, err error)
	http func(n int) (method, path, body string)
}

// operations are the measured methods of the request path.
var operations = []operation{
	{"Get", func(ctx context.Context, links v1.LinkServiceClient, n int) (bool, error) {
		reply, err := links.GetLinkedPod(ctx, &v1.GetLinkedPodRequest{Namespace: namespace, Uid: standing(n), Service: service})
		return reply.GetLink().GetEpoch() > 0, err
	}, func(n int) (method, path, body string) { return http.MethodGet, linkPath(standing(n)), "" }},
	{"Set", setLink, func(n int) (method, path, body string) {
		return http.MethodPut, linkPath(standing(n)), fmt.Sprintf(`{"podId":%d}`, movedTo(n))
	}},
	{"SetIfAbsent, new", func(ctx context.Context, links v1.LinkServiceClient, n int) (bool, error) {
		reply, err := links.SetLinkedPodIfAbsent(ctx, &v1.SetLinkedPodIfAbsentRequest{
			Namespace: namespace, Uid: fresh(n), Service: service, PodId: proto.Int32(movedTo(n)),
		})
		return reply.GetLink().GetEpoch() > 0, err
	}, func(n int) (method, path, body string) {
		return http.MethodPost, linkPath(fresh(n)) + ":setIfAbsent", fmt.Sprintf(`{"podId":%d}`, movedTo(n))
	}},
	{"Compute, standing", func(ctx context.Context, links v1.LinkServiceClient, n int) (bool, error) {
		return computeLink(ctx, links, standing(n))
	}, func(n int) (method, path, body string) {
		return http.MethodPost, linkPath(standing(n)) + ":compute", "{}"
	}},
	{"Compute, new", func(ctx context.Context, links v1.LinkServiceClient, n int) (bool, error) {
		return computeLink(ctx, links, fresh(n))
	}, func(n int) (method, path, body string) { return http.MethodPost, linkPath(fresh(n)) + ":compute", "{}" }},
	{"BatchGet of 100", func(ctx context.Context, links v1.LinkServiceClient, n int) (bool, error) {
		reply, err := links.BatchGetLinkedPod(ctx, &v1.BatchGetLinkedPodRequest{Namespace: namespace, Service: service, Uids: batch(n)})
		return len(reply.GetPods()) > 0 && len(reply.GetUnlinkedUids()) == 0, err
	}, func(n int) (method, path, body string) {
		return http.MethodPost, "/v1/namespaces/" + namespace + "/services/" + service + "/links:batchGet",
			`{"uids":["` + strings.Join(batch(n), `","`) + `"]}`
	}},
}

func setLink(ctx context.Context, links v1.LinkServiceClient, n int) (bool, error) {
	reply, err := links.SetLinkedPod(ctx, &v1.SetLinkedPodRequest{
		Namespace: namespace, Uid: standing(n), Service: service, PodId: proto.Int32(movedTo(n)),
	})
	return reply.GetLink().GetEpoch() > 0, err
}

func computeLink(ctx context.Context, links v1.LinkServiceClient, uid string) (bool, error) {
	reply, err := links.ComputeLinkedPod(ctx, &v1.ComputeLinkedPodRequest{Namespace: namespace, Uid: uid, Service: service})
	return reply.GetLink().GetEpoch() > 0, err
}

// standing returns a user with a link.
func standing(n int) string { return "user-" + strconv.Itoa(100_000_000 + n%users)[1:] }

// fresh returns a user without a link, as long as those of standing.
func fresh(n int) string { return "newu-" + strconv.Itoa(100_000_000 + n)[1:] }

// movedTo returns the pod of a Set: another one each time a user's turn comes round.
func movedTo(n int) int32 { return int32(n / users % pods) }

func batch(n int) []string {
	uids := make([]string, 100)
	for i := range uids {
		uids[i] = standing(n*len(uids) + i)
	}
	return uids
}

func linkPath(uid string) string {
	return "/v1/namespaces/" + namespace + "/links/" + uid + "/services/" + service
}

// server is a running podlink with connections to it.
type server struct {
	process *process
	address string // of the HTTP listener
	conns   []*grpc.ClientConn
	links   []v1.LinkServiceClient // one per connection
	http    *http.Client
	token   string       // of the calls; empty: none
	calls   atomic.Int64 // made so far
}

// startServer starts a podlink, and creates its users' links and its pods' reports.
func startServer(ctx context.Context, r revision, redis, prefix string) (*server, error) {
	p, grpcAddr, httpAddr, err := startPodlink(ctx, r, redis, prefix)
	if err != nil {
		return nil, err
	}
	s := &server{process: p, address: httpAddr, token: r.token, http: &http.Client{
		Timeout:   callTimeout,
		Transport: &http.Transport{MaxConnsPerHost: crowd, MaxIdleConnsPerHost: crowd},
	}}
	dialing := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry()}
	if r.token != "" {
		dialing = append(dialing, grpc.WithPerRPCCredentials(bearer{"authorization": "Bearer " + r.token}))
	}
	for range crowd {
		conn, err := grpc.NewClient(grpcAddr, dialing...)
		if err != nil {
			s.stop()
			return nil, err
		}
		s.conns, s.links = append(s.conns, conn), append(s.links, v1.NewLinkServiceClient(conn))
	}
	if err := s.populate(ctx); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

func (s *server) populate(ctx context.Context) error {
	states := v1.NewStateServiceClient(s.conns[0])
	for pod := range int32(pods) {
		if _, err := states.SetServiceState(ctx, &v1.SetServiceStateRequest{
			Namespace: namespace, Service: service, PodId: proto.Int32(pod), State: "up", TtlSeconds: proto.Int32(-1),
		}); err != nil {
			return err
		}
	}
	var next atomic.Int64
	_, err := callers(ctx, crowd, func(ctx context.Context, caller int) (bool, error) {
		n := int(next.Add(1))
		if n > users {
			return false, nil
		}
		_, err := setLink(ctx, s.links[caller], n)
		return true, err
	})
	return err
}

// run implements subject.
func (s *server) run(ctx context.Context, m measure, slice time.Duration) (work, error) {
	var op operation
	for _, candidate := range operations {
		if candidate.name == m.operation {
			op = candidate
		}
	}
	before, err := cpuTime(s.process.cmd.Process.Pid)
	if err != nil {
		return work{}, err
	}
	begin := time.Now()
	calls, err := callers(ctx, m.callers, func(ctx context.Context, caller int) (bool, error) {
		if time.Since(begin) > slice {
			return false, nil
		}
		n := int(s.calls.Add(1))
		var linked bool
		var err error
		if m.path == overGRPC {
			linked, err = op.grpc(ctx, s.links[caller], n)
		} else {
			linked, err = s.callHTTP(ctx, op, n)
		}
		if err == nil && !linked {
			err = errors.New("the reply has no link")
		}
		return true, err
	})
	took := time.Since(begin)
	if err != nil {
		return work{}, err
	}
	after, err := cpuTime(s.process.cmd.Process.Pid)
	return work{calls: calls, took: took, cpu: after - before}, err
}

func (s *server) callHTTP(ctx context.Context, op operation, n int) (linked bool, err error) {
	method, path, body := op.http(n)
	request, err := http.NewRequestWithContext(ctx, method, "http://"+s.address+path, strings.NewReader(body))
	if err != nil {
		return false, err
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	if s.token != "" {
		request.Header.Set("Authorization", "Bearer "+s.token)
	}
	response, err := s.http.Do(request)
	if err != nil {
		return false, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return false, err
	}
	var reply struct {
		Link struct{ Epoch string }
		Pods []json.RawMessage
	}
	if err := json.Unmarshal(text, &reply); err != nil {
		return false, fmt.Errorf("%s: %w: %s", response.Status, err, text)
	}
	return reply.Link.Epoch > "0" || len(reply.Pods) > 0, nil
}

func (s *server) stop() {
	for _, conn := range s.conns {
		_ = conn.Close()
	}
	s.http.CloseIdleConnections()
	s.process.stop()
}

// callers calls call from count goroutines, each until it returns false, and returns the number of calls. The first error ends
// all of them.
func callers(ctx context.Context, count int, call func(ctx context.Context, caller int) (more bool, err error)) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var running sync.WaitGroup
	var made atomic.Int64
	errs := make([]error, count)
	for caller := range count {
		running.Go(func() {
			calls := 0
			for more := true; more; {
				if more, errs[caller] = call(ctx, caller); errs[caller] != nil {
					cancel()
					return
				}
				if more {
					calls++
				}
			}
			made.Add(int64(calls))
		})
	}
	running.Wait()
	return int(made.Load()), errors.Join(errs...)
}
