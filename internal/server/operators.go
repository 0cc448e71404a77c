package server

import (
	"net/http"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/audit"
	"podlink/internal/auth"
	"podlink/internal/conf"
	"podlink/internal/service"
)

// operators wraps a route of the admin listener that is for operators alone; operation is its name in the audit log. With auth.mode
// off they are whoever is on this machine, if the listener is on loopback; else they are callers with the role admin, over TLS.
func (s *AdminServer) operators(operation string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var call *auth.Call
		err := s.origin.checkStrictly(r)
		if err == nil {
			call, err = s.operator(r)
		}
		if call != nil {
			r = r.WithContext(call) //nolint:contextcheck // It is the request's, with the caller.
		}
		if err == nil {
			next.ServeHTTP(w, r)
			return
		}
		public := service.PublicError(err)
		s.audit.Refused(r.Context(), audit.Record{
			Operation: operation, Outcome: public.Reason, Detail: causeText(public), Peer: r.RemoteAddr,
		})
		if r.ContentLength != 0 && r.ProtoMajor == 1 {
			w.Header().Set("Connection", "close") // Its body is not read.
		}
		encodeError(w, r, public)
	})
}

// operator returns who has sent a request, nil with auth.mode off, and why it is refused.
func (s *AdminServer) operator(r *http.Request) (*auth.Call, error) {
	if s.access == nil {
		if !conf.Loopback(s.addr) {
			return nil, v1.ErrorPermissionDenied("with auth.mode off, this is only for an admin listener on loopback")
		}
		return nil, nil //nolint:nilnil // Nobody has to say who they are.
	}
	if r.TLS == nil {
		return nil, v1.ErrorPermissionDenied("this needs TLS: server.admin.tls")
	}
	c, err := s.access.identifyHTTP(r.Context(), r)
	switch {
	case err != nil:
		return &c.Call, err
	case !s.access.policy.Admin(c.Identity):
		s.access.metrics.Refused(RefusedByPolicy)
		return &c.Call, v1.ErrorPermissionDenied("this needs the role admin")
	}
	return &c.Call, nil
}

// operatorsAre says who may use what is for operators.
func (s *AdminServer) operatorsAre() string {
	switch {
	case s.access != nil:
		return "callers with the role admin"
	case conf.Loopback(s.addr):
		return "everyone on this machine"
	default:
		return "no one" // Validate refuses this.
	}
}
