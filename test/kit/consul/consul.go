// Package consul is a stand-in for a Consul agent, for there is no package of a real one to install. It does what Consul's
// documentation of the HTTP API says about services with one TTL check: register, deregister, a check that fails when nobody
// confirms it, callers' queries for healthy instances, also those that wait for a change, and tokens. What it leaves out:
// the catalog apart from the agent, rules of an ACL (a token may do everything or nothing), and the removal of entries that
// have failed for long.
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

// waitDefault is how long a query waits that names an index and no time, as in Consul.
const waitDefault = 5 * time.Minute

// Server is an agent on the loopback. It ends with the test that started it.
type Server struct {
	Addr string // host:port

	tb      testing.TB
	serving *http.Server // nil while it is down

	mu       sync.Mutex
	token    string // that every request has to have; empty: none
	services map[string]*service
	index    uint64
	changed  chan struct{} // closed at the next change
}

type service struct {
	entry api.AgentService
	check string // its id; empty: none, and always healthy
	ttl   time.Duration
	ends  *time.Timer // when the check fails
	fails bool
}

// Start starts an agent that knows no service and asks for no token.
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
	go func() { _ = serving.Serve(listener) }() // It ends with Kill.
}

// Kill ends the agent, with all connections.
func (s *Server) Kill() {
	if s.serving == nil {
		return
	}
	require.NoError(s.tb, s.serving.Close())
	s.serving = nil
	s.change(func() {
		for _, known := range s.services {
			known.stop()
		}
	})
}

// Restart kills the agent and starts it again on the same port. It knows its services still, and their checks have failed
// until somebody confirms them, as with a Consul that has a folder for its data.
func (s *Server) Restart() {
	s.tb.Helper()
	s.Kill()
	s.change(func() {
		for _, known := range s.services {
			known.fails = known.check != ""
		}
	})
	s.start()
}

// RestartEmpty does the same without its data.
func (s *Server) RestartEmpty() {
	s.tb.Helper()
	s.Kill()
	s.change(func() { clear(s.services) })
	s.start()
}

// RequireToken makes the agent answer 403 to requests with another token, and find nothing for those without.
func (s *Server) RequireToken(token string) {
	s.change(func() { s.token = token })
}

// Remove removes a service, as an operator does with `consul services deregister -id`.
func (s *Server) Remove(id string) {
	s.tb.Helper()
	require.NoError(s.tb, s.deregister(id))
}

// change does something under the lock, and wakes those who wait for a change.
func (s *Server) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.index++
	close(s.changed)
	s.changed = make(chan struct{})
}

func (k *service) stop() {
	if k.ends != nil {
		k.ends.Stop()
	}
}

// confirm passes the check for as long as its ttl.
func (s *Server) confirm(known *service) {
	known.stop()
	known.fails = false
	var ends *time.Timer
	ends = time.AfterFunc(known.ttl, func() {
		s.change(func() { known.fails = known.fails || known.ends == ends })
	})
	known.ends = ends
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /v1/agent/service/register", s.writes(func(r *http.Request) error {
		var asked api.AgentServiceRegistration
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
			return problem{http.StatusBadRequest, "Request decode failed: " + err.Error()}
		}
		s.change(func() {
			known := s.services[asked.ID]
			if known == nil {
				known = new(service)
				s.services[asked.ID] = known
			}
			known.entry = api.AgentService{
				ID: asked.ID, Service: asked.Name, Tags: asked.Tags, Meta: asked.Meta,
				Address: asked.Address, Port: asked.Port, TaggedAddresses: asked.TaggedAddresses,
			}
		})
		return nil
	}))
	mux.HandleFunc("PUT /v1/agent/service/deregister/{id}", s.writes(func(r *http.Request) error {
		return s.deregister(r.PathValue("id"))
	}))
	mux.HandleFunc("PUT /v1/agent/check/register", s.writes(s.registerCheck))
	mux.HandleFunc("PUT /v1/agent/check/update/{id}", s.writes(func(r *http.Request) error {
		var asked struct{ Status string }
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || asked.Status != api.HealthPassing {
			return problem{http.StatusBadRequest, "Invalid check status"}
		}
		err := error(problem{http.StatusNotFound, "Unknown check ID " + strconv.Quote(r.PathValue("id")) +
			". Ensure that the check ID is passed, not the check name."})
		s.change(func() {
			for _, known := range s.services {
				if known.check == r.PathValue("id") {
					s.confirm(known)
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
	var asked api.AgentCheckRegistration
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		return problem{http.StatusBadRequest, "Request decode failed: " + err.Error()}
	}
	ttl, err := time.ParseDuration(asked.TTL)
	if err != nil || ttl <= 0 {
		return problem{http.StatusBadRequest, "Invalid check: TTL must be > 0 for TTL checks"}
	}
	s.change(func() {
		known := s.services[asked.ServiceID]
		if known == nil {
			err = problem{http.StatusNotFound, "ServiceID " + strconv.Quote(asked.ServiceID) + " does not exist"}
			return
		}
		known.check, known.ttl, known.fails = asked.ID, ttl, true
		if asked.Status == api.HealthPassing {
			s.confirm(known)
		}
	})
	return err
}

func (s *Server) deregister(id string) error {
	err := error(problem{http.StatusNotFound, "Unknown service ID " + strconv.Quote(id) +
		". Ensure that the service ID is passed, not the service name."})
	s.change(func() {
		if known := s.services[id]; known != nil {
			known.stop()
			delete(s.services, id)
			err = nil
		}
	})
	return err
}

// query answers with the instances of a service, at once or, where an index is named, when something has changed since.
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
	seen, _ := strconv.ParseUint(r.FormValue("index"), 10, 64) // 0 without one: at once.
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
	for _, known := range s.services {
		status := api.HealthPassing
		if known.fails {
			status = api.HealthCritical
		}
		shown := status == api.HealthPassing || !r.Form.Has("passing")
		if known.entry.Service == r.PathValue("name") && shown && !refused {
			entries = append(entries, &api.ServiceEntry{
				Node: &api.Node{Node: "stand-in"}, Service: &known.entry,
				Checks: api.HealthChecks{{CheckID: known.check, ServiceID: known.entry.ID, Status: status}},
			})
		}
	}
	w.Header().Set("X-Consul-Index", strconv.FormatUint(s.index, 10))
	_ = json.NewEncoder(w).Encode(entries) // Who asked may have gone.
}

func (s *Server) refuses(r *http.Request) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.token != "" && r.Header.Get("X-Consul-Token") != s.token
}

// problem is an answer other than 200.
type problem struct {
	code int
	text string
}

func (p problem) Error() string { return p.text }

func (p problem) answer(w http.ResponseWriter) { http.Error(w, p.text, p.code) }

// writes returns a handler for what needs the token.
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
