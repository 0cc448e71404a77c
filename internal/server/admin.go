package server

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/go-kratos/kratos/v2/log"

	"podlink/internal/audit"
	"podlink/internal/conf"
	"podlink/internal/telemetry"
)

// AdminServer is the listener for the platform and operators: /healthz, /readyz, /metrics, /loglevel and, if enabled,
// /debug/pprof/. It is a Kratos transport.Server.
type AdminServer struct {
	server      *http.Server
	connections *Connections
	addr        string
	origin      *ownOrigin
	access      *Access // nil: operators are those on this machine
	probe       *readiness
	level       *telemetry.LogLevel
	audit       *audit.Log // nil: none
	log         *log.Helper
}

// adminTimeout is how long answering a request of the admin listener may take, without the duration of a profile.
const adminTimeout = time.Second

// How many requests the open routes serve at once: probes, and scrapes of the metrics, which are far larger. Of each, first all
// and then those of a peer's address.
const (
	maxProbes, maxProbesPerPeer   = 256, 64
	maxScrapes, maxScrapesPerPeer = 64, 8
)

// AdminOptions is what an AdminServer is made of.
type AdminOptions struct {
	Server      *conf.Server
	Connections *Connections
	Access      *Access // nil: auth.mode is off
	Store       Checker
	Drain       *Drain
	Metrics     *Metrics
	Level       *telemetry.LogLevel
	Audit       *audit.Log // nil: none
	Logger      log.Logger
	TLS         ListenerTLS
}

// NewAdminServer returns the admin listener.
func NewAdminServer(o AdminOptions) *AdminServer {
	c := o.Server.GetAdmin()
	s := &AdminServer{
		connections: o.Connections, addr: c.GetAddr(), access: o.Access,
		origin: newOwnOrigin("server.admin.hosts", c.GetAddr(), c.GetHosts(), o.Connections.doors),
		probe:  &readiness{store: o.Store, drain: o.Drain, access: o.Access}, level: o.Level, audit: o.Audit, log: log.NewHelper(o.Logger),
	}
	routes := http.NewServeMux()
	routes.Handle("GET /healthz", newBounded(maxProbes, maxProbesPerPeer, http.HandlerFunc(s.health)))
	routes.Handle("GET /readyz", newBounded(maxProbes, maxProbesPerPeer, http.HandlerFunc(s.ready)))
	routes.Handle("GET /metrics", newBounded(maxScrapes, maxScrapesPerPeer, newSharedScrapes(o.Metrics.handler())))
	routes.Handle("GET /loglevel", s.operators("loglevel", http.HandlerFunc(s.getLevel)))
	routes.Handle("PUT /loglevel", s.operators("loglevel", http.HandlerFunc(s.setLevel)))
	if c.GetPprof() {
		s.log.Warnf("server.admin.pprof is on: %s can read profiles, which expose parts of podlink's memory; taking one costs CPU "+
			"time, and locks and waits are sampled all the time", s.operatorsAre())
		routes.Handle("/debug/pprof/", s.operators("pprof", goProfiles()))
	}
	s.server = &http.Server{Handler: routes, TLSConfig: o.TLS.Admin} //nolint:gosec // setLimits sets its timeouts.
	setLimits(s.server, adminTimeout, o.Logger)
	return s
}

// Start implements transport.Server. It serves until Stop.
func (s *AdminServer) Start(ctx context.Context) error {
	listener, err := s.connections.Listen(ctx, "admin", s.addr)
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
