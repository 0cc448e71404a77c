package server

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/go-kratos/kratos/v2/log"

	"podlink/internal/conf"
	"podlink/internal/telemetry"
)

// readyTimeout bounds the check behind /readyz.
const readyTimeout = time.Second

// Checker tells whether the store can be used; its error is for operators.
type Checker interface {
	Check(ctx context.Context) error
}

// AdminServer is the listener for the platform and for operators: /healthz, /readyz, /metrics, /loglevel, and
// /debug/pprof/ where it is asked for. It is a Kratos transport.Server.
type AdminServer struct {
	server *http.Server
	addr   string
	drain  *Drain
	store  Checker
	level  *telemetry.LogLevel
	log    *log.Helper
}

// NewAdminServer returns the admin listener.
func NewAdminServer(
	c *conf.Server, store Checker, drain *Drain, metrics *Metrics, level *telemetry.LogLevel, logger log.Logger,
) *AdminServer {
	s := &AdminServer{addr: c.GetAdmin().GetAddr(), drain: drain, store: store, level: level, log: log.NewHelper(logger)}
	routes := http.NewServeMux()
	routes.HandleFunc("GET /healthz", s.health)
	routes.HandleFunc("GET /readyz", s.ready)
	routes.Handle("GET /metrics", metrics.handler())
	routes.HandleFunc("GET /loglevel", s.showLevel)
	routes.HandleFunc("PUT /loglevel", s.setLevel)
	if c.GetAdmin().GetPprof() {
		s.log.Warn("server.admin.pprof is on: whoever reaches the admin listener can read profiles, and with them parts of " +
			"podlink's memory; each costs time while it is taken, and podlink keeps count of locks and waits")
		profile(routes)
	}
	s.server = &http.Server{Handler: routes} //nolint:gosec // bound sets every limit.
	bound(s.server, logger)
	return s
}

// Start serves until Stop.
func (s *AdminServer) Start(ctx context.Context) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", s.addr)
	if err != nil {
		return err
	}
	s.log.Infof("[admin] server listening on: %s", listener.Addr())
	if err := s.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Stop lets the requests in progress end, and cuts off those that are not done in time.
func (s *AdminServer) Stop(ctx context.Context) error {
	if s.server.Shutdown(ctx) != nil {
		return s.server.Close()
	}
	return nil
}

// probe is the body of /healthz and /readyz.
type probe struct {
	Status string `json:"status"`
	Reason string `json:"reason,omitempty"`
}

func (p probe) write(w http.ResponseWriter, code int) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(p) // The prober is gone when this fails.
}

// health says that the process runs; whether its store does is no reason to restart it.
func (s *AdminServer) health(w http.ResponseWriter, _ *http.Request) {
	probe{Status: "ok"}.write(w, http.StatusOK)
}

// ready says whether requests should be sent here.
func (s *AdminServer) ready(w http.ResponseWriter, r *http.Request) {
	reason := s.reasonNotReady(r.Context())
	if reason != "" {
		probe{Status: "not ready", Reason: reason}.write(w, http.StatusServiceUnavailable)
		return
	}
	probe{Status: "ready"}.write(w, http.StatusOK)
}

func (s *AdminServer) reasonNotReady(ctx context.Context) string {
	if s.drain.Draining() {
		return "podlink is stopping"
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if err := s.store.Check(ctx); err != nil {
		return err.Error()
	}
	return ""
}
