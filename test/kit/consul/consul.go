// Package consul is a stand-in for a Consul agent, because Debian has no package of a real one. It implements what the
// documentation of Consul's HTTP API says about services with one TTL check: registration and deregistration, checks that
// turn critical without updates, queries for healthy instances, blocking queries, and tokens. It leaves out the catalog, ACL
// rules (a token permits everything or nothing), and the removal of services that are critical for long.
package consul

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"

	"podlink/test/kit/proc"
)

// waitDefault is how long a blocking query waits unless it names a time, as in Consul.
const waitDefault = 5 * time.Minute

// Server is an agent on the loopback. It stops with the test that started it.
type Server struct {
	Addr string // host:port

	tb      testing.TB
	serving *http.Server // nil while it is down

	mu       sync.Mutex
	token    string // that requests need; empty: none
	services map[string]*service
	index    uint64
	changed  chan struct{} // closed at the next change
}

type service struct {
	entry    api.AgentService
	check    string // the check's id; empty: none, and always healthy
	ttl      time.Duration
	timer    *time.Timer // makes the check critical
	critical bool        // of the check
}

// Start starts an agent without services that needs no token.
func Start(tb testing.TB) *Server {
	tb.Helper()
	s := &Server{Addr: proc.FreeAddr(tb), tb: tb, services: make(map[string]*service), index: 1, changed: make(chan struct{})}
	tb.Cleanup(s.Kill)
	s.start()
	return s
}

func (s *Server) start() {
	s.tb.Helper()
	listener, err := net.Listen("tcp", s.Addr)
	require.NoError(s.tb, err)
	serving := &http.Server{Handler: s.handler(), ReadHeaderTimeout: time.Minute}
	s.serving = serving
	go func() { _ = serving.Serve(listener) }() // Returns after Kill.
}

// Kill stops the agent and closes all its connections.
func (s *Server) Kill() {
	if s.serving == nil {
		return
	}
	require.NoError(s.tb, s.serving.Close())
	s.serving = nil
	s.change(func() {
		for _, svc := range s.services {
			svc.stop()
		}
	})
}

// Restart kills the agent and starts it again on the same port. It has the same services, with critical checks until the next
// update, like a Consul with a data directory.
func (s *Server) Restart() {
	s.tb.Helper()
	s.Kill()
	s.change(func() {
		for _, svc := range s.services {
			svc.critical = svc.check != ""
		}
	})
	s.start()
}

// RestartEmpty is Restart without the services.
func (s *Server) RestartEmpty() {
	s.tb.Helper()
	s.Kill()
	s.change(func() { clear(s.services) })
	s.start()
}

// RequireToken makes the agent answer 403 to requests with another token, and return no instances to queries without one.
func (s *Server) RequireToken(token string) {
	s.change(func() { s.token = token })
}

// Remove removes a service, like `consul services deregister -id`.
func (s *Server) Remove(id string) {
	s.tb.Helper()
	require.NoError(s.tb, s.deregister(id))
}

// change calls f under the lock, and wakes blocking queries.
func (s *Server) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.index++
	close(s.changed)
	s.changed = make(chan struct{})
}

func (k *service) stop() {
	if k.timer != nil {
		k.timer.Stop()
	}
}

// pass makes the check pass until its TTL has elapsed.
func (s *Server) pass(svc *service) {
	svc.stop()
	svc.critical = false
	var timer *time.Timer
	timer = time.AfterFunc(svc.ttl, func() {
		s.change(func() { svc.critical = svc.critical || svc.timer == timer })
	})
	svc.timer = timer
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /v1/agent/service/register", s.writes(func(r *http.Request) error {
		var request api.AgentServiceRegistration
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
			return problem{http.StatusBadRequest, "Request decode failed: " + err.Error()}
		}
		s.change(func() {
			svc := s.services[request.ID]
			if svc == nil {
				svc = new(service)
				s.services[request.ID] = svc
			}
			svc.entry = api.AgentService{
				ID: request.ID, Service: request.Name, Tags: request.Tags, Meta: request.Meta,
				Address: request.Address, Port: request.Port, TaggedAddresses: request.TaggedAddresses,
			}
		})
		return nil
	}))
	mux.HandleFunc("PUT /v1/agent/service/deregister/{id}", s.writes(func(r *http.Request) error {
		return s.deregister(r.PathValue("id"))
	}))
	mux.HandleFunc("PUT /v1/agent/check/register", s.writes(s.registerCheck))
	mux.HandleFunc("PUT /v1/agent/check/update/{id}", s.writes(func(r *http.Request) error {
		var request struct{ Status string }
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil || request.Status != api.HealthPassing {
			return problem{http.StatusBadRequest, "Invalid check status"}
		}
		err := error(problem{http.StatusNotFound, "Unknown check ID " + strconv.Quote(r.PathValue("id")) +
			". Ensure that the check ID is passed, not the check name."})
		s.change(func() {
			for _, svc := range s.services {
				if svc.check == r.PathValue("id") {
					s.pass(svc)
					err = nil
				}
			}
		})
		return err
	}))
	mux.HandleFunc("GET /v1/health/service/{name}", s.query)
	return mux
}

func (s *Server) registerCheck(r *http.Request) error {
	var request api.AgentCheckRegistration
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		return problem{http.StatusBadRequest, "Request decode failed: " + err.Error()}
	}
	ttl, err := time.ParseDuration(request.TTL)
	if err != nil || ttl <= 0 {
		return problem{http.StatusBadRequest, "Invalid check: TTL must be > 0 for TTL checks"}
	}
	s.change(func() {
		svc := s.services[request.ServiceID]
		if svc == nil {
			err = problem{http.StatusNotFound, "ServiceID " + strconv.Quote(request.ServiceID) + " does not exist"}
			return
		}
		svc.check, svc.ttl, svc.critical = request.ID, ttl, true
		if request.Status == api.HealthPassing {
			s.pass(svc)
		}
	})
	return err
}

func (s *Server) deregister(id string) error {
	err := error(problem{http.StatusNotFound, "Unknown service ID " + strconv.Quote(id) +
		". Ensure that the service ID is passed, not the service name."})
	s.change(func() {
		if svc := s.services[id]; svc != nil {
			svc.stop()
			delete(s.services, id)
			err = nil
		}
	})
	return err
}

// query answers with the instances of a service: at once or, if the request has an index, once that index has changed.
func (s *Server) query(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("X-Consul-Token") != "" && s.refuses(r) {
		problem{http.StatusForbidden, "ACL not found"}.answer(w)
		return
	}
	wait := waitDefault
	if text := r.FormValue("wait"); text != "" {
		var err error
		if wait, err = time.ParseDuration(text); err != nil {
			problem{http.StatusBadRequest, "Invalid wait time"}.answer(w)
			return
		}
	}
	seen, _ := strconv.ParseUint(r.FormValue("index"), 10, 64) // 0 without one: don't block.
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for waiting := seen > 0; waiting; {
		s.mu.Lock()
		index, changed := s.index, s.changed
		s.mu.Unlock()
		if index != seen {
			break
		}
		select {
		case <-changed:
		case <-timer.C:
			waiting = false
		case <-r.Context().Done():
			return
		}
	}
	refused := s.refuses(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	entries := []*api.ServiceEntry{}
	for _, svc := range s.services {
		status := api.HealthPassing
		if svc.critical {
			status = api.HealthCritical
		}
		shown := status == api.HealthPassing || !r.Form.Has("passing")
		if svc.entry.Service == r.PathValue("name") && shown && !refused {
			entries = append(entries, &api.ServiceEntry{
				Node: &api.Node{Node: "stand-in"}, Service: &svc.entry,
				Checks: api.HealthChecks{{CheckID: svc.check, ServiceID: svc.entry.ID, Status: status}},
			})
		}
	}
	w.Header().Set("X-Consul-Index", strconv.FormatUint(s.index, 10))
	_ = json.NewEncoder(w).Encode(entries) // The client may have disconnected.
}

func (s *Server) refuses(r *http.Request) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.token != "" && r.Header.Get("X-Consul-Token") != s.token
}

// problem is a response other than 200.
type problem struct {
	code int
	text string
}

func (p problem) Error() string { return p.text }

func (p problem) answer(w http.ResponseWriter) { http.Error(w, p.text, p.code) }

// writes returns a handler of requests that need the token.
func (s *Server) writes(f func(r *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		defer func() { _, _ = io.Copy(io.Discard, r.Body) }()
		var p problem
		switch {
		case s.refuses(r) && r.Header.Get("X-Consul-Token") == "":
			problem{http.StatusForbidden, "Permission denied: anonymous token lacks permission 'service:write'"}.answer(w)
		case s.refuses(r):
			problem{http.StatusForbidden, "ACL not found"}.answer(w)
		case errors.As(f(r), &p):
			p.answer(w)
		}
	}
}
