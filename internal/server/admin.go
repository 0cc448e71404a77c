package server

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"

	"github.com/go-kratos/kratos/v2/log"

	"podlink/internal/conf"
	"podlink/internal/telemetry"
)

// AdminServer is the listener for the platform and operators: /healthz, /readyz, /metrics, /loglevel and, if enabled,
// /debug/pprof/. It is a Kratos transport.Server.
type AdminServer struct {
	server *http.Server
	addr   string
	probe  *readiness
	level  *telemetry.LogLevel
	log    *log.Helper
}

// NewAdminServer returns the admin listener.
func NewAdminServer(
	c *conf.Server, store Checker, drain *Drain, metrics *Metrics, level *telemetry.LogLevel, logger log.Logger,
	secured ListenerTLS,
) *AdminServer {
	s := &AdminServer{
		addr: c.GetAdmin().GetAddr(), probe: &readiness{store: store, drain: drain}, level: level, log: log.NewHelper(logger),
	}
	routes := http.NewServeMux()
	routes.HandleFunc("GET /healthz", s.health)
	routes.HandleFunc("GET /readyz", s.ready)
	routes.Handle("GET /metrics", metrics.handler())
	routes.HandleFunc("GET /loglevel", s.getLevel)
	routes.HandleFunc("PUT /loglevel", s.setLevel)
	if c.GetAdmin().GetPprof() {
		s.log.Warn("server.admin.pprof is on: anyone who can reach the admin listener can read profiles, which expose parts of " +
			"podlink's memory; taking one costs CPU time, and locks and waits are sampled all the time")
		addProfiles(routes)
	}
	s.server = &http.Server{Handler: routes, TLSConfig: secured.Admin} //nolint:gosec // setLimits sets its timeouts.
	setLimits(s.server, readyTimeout, logger)
	return s
}

// Start implements transport.Server. It serves until Stop.
func (s *AdminServer) Start(ctx context.Context) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", s.addr)
	if err != nil {
		return err
	}
	s.log.Infof("[admin] server listening on: %s", listener.Addr())
	if err := s.serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (s *AdminServer) serve(listener net.Listener) error {
	if s.server.TLSConfig == nil {
		return s.server.Serve(listener)
	}
	return s.server.ServeTLS(listener, "", "") // Its configuration has the files.
}

// Stop implements transport.Server. It waits for requests in flight until ctx ends, then closes their connections.
func (s *AdminServer) Stop(ctx context.Context) error {
	if s.server.Shutdown(ctx) != nil {
		return s.server.Close()
	}
	return nil
}

// probeReply is the body of /healthz and /readyz.
type probeReply struct {
	Status string `json:"status"`
	Reason string `json:"reason,omitempty"`
}

func (p probeReply) write(w http.ResponseWriter, code int) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(p) // On failure the connection is gone.
}

// health handles /healthz. It does not check the store: restarting podlink would not repair it.
func (s *AdminServer) health(w http.ResponseWriter, _ *http.Request) {
	probeReply{Status: "ok"}.write(w, http.StatusOK)
}

// ready handles /readyz: whether to send requests to this process.
func (s *AdminServer) ready(w http.ResponseWriter, r *http.Request) {
	reason := s.probe.reason(r.Context())
	if reason != "" {
		probeReply{Status: "not ready", Reason: reason}.write(w, http.StatusServiceUnavailable)
		return
	}
	probeReply{Status: "ready"}.write(w, http.StatusOK)
}
