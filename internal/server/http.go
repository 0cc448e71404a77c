package server

import (
	"encoding/json"
	stdlog "log"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/go-kratos/kratos/v2/log"
	khttp "github.com/go-kratos/kratos/v2/transport/http"
	"github.com/gorilla/mux"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/conf"
	"podlink/internal/service"
)

// The timeouts of a connection. Slower peers are disconnected.
const (
	readTimeout  = 5 * time.Second
	writeTimeout = 5 * time.Second
	idleTimeout  = 2 * time.Minute // of gRPC and the admin listener
)

// maxStreams bounds the requests at once on a connection with HTTP/2, which needs TLS.
const maxStreams = 250

// NewHTTPServer returns the HTTP listener of the API.
func NewHTTPServer(
	c *conf.Server, api API, chain *Chain, drain *Drain, logger log.Logger, secured ListenerTLS,
) *khttp.Server {
	allowed, reject := mux.NewRouter(), rejectVia(chain)
	origin := newOwnOrigin("server.http.hosts", c.GetHttp().GetAddr(), c.GetHttp().GetHosts(), chain.doors)
	srv := khttp.NewServer(
		khttp.Address(c.GetHttp().GetAddr()),
		khttp.TLSConfig(secured.HTTP),
		khttp.Timeout(c.GetHttp().GetTimeout().AsDuration()),
		khttp.Middleware(chain.Unary),
		khttp.Filter(guard(drain, reject), origin.filter(reject), chain.access.filter, paths(reject)),
		khttp.StrictSlash(false),
		khttp.RequestDecoder(deferError(decodeBody)),
		khttp.RequestQueryDecoder(deferError(decodeQuery)),
		khttp.RequestVarsDecoder(deferError(decodePath)),
		khttp.ResponseEncoder(newReplyEncoder().encode),
		khttp.ErrorEncoder(encodeError),
		// Without these two, Kratos serves http.DefaultServeMux here, past all middleware (CVE-2026-6993).
		khttp.NotFoundHandler(notFound(reject)),
		khttp.MethodNotAllowedHandler(methodNotAllowed(allowed, reject)),
	)
	setLimits(srv.Server, c.GetHttp().GetTimeout().AsDuration(), logger)
	srv.IdleTimeout = c.GetHttp().GetIdleTimeout().AsDuration()
	srv.ConnContext = withPeerAddr
	for _, svc := range api {
		svc.overGRPC(eventRoutes{srv, chain, drain}) // First: the path of GetJob, …/jobs/{job}, also matches that of WatchJob.
		svc.overHTTP(srv)
	}
	// The walk fails only if the function does.
	_ = srv.WalkRoute(func(route khttp.RouteInfo) error {
		allowed.Path(route.Path).Methods(route.Method)
		return nil
	})
	return srv
}

// setLimits bounds what a connection can cost, and sends net/http's own log to ours. A request is served within timeout.
func setLimits(srv *http.Server, timeout time.Duration, logger log.Logger) {
	srv.ReadHeaderTimeout = readTimeout
	srv.ReadTimeout = readTimeout
	srv.WriteTimeout = readTimeout + timeout + writeTimeout // net/http starts it before it reads the body.
	srv.IdleTimeout = idleTimeout
	srv.MaxHeaderBytes = maxHeaderBytes
	srv.DisableGeneralOptionsHandler = true // It answers OPTIONS * to everyone.
	srv.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: maxStreams}
	srv.ErrorLog = stdlog.New(log.NewWriter(logger, log.WithWriterLevel(log.LevelDebug)), "", 0)
}

// guard wraps the router: it bounds the body, prepares the decoding, and recovers panics outside the middleware chain.
func guard(drain *Drain, reject rejectFunc) khttp.FilterFunc {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() {
				if cause := recover(); cause != nil {
					reject(w, r, panicError(cause))
				}
			}()
			if drain.Draining() {
				w.Header().Set("Connection", "close") // The caller's next request goes to another podlink.
			}
			ctx, _ := withDecoding(r.Context())
			r = r.WithContext(ctx)
			if r.ContentLength != 0 {
				r.Body = http.MaxBytesReader(w, r.Body, maxBodyBytes)
			}
			next.ServeHTTP(w, r)
		})
	}
}

// paths normalizes the path of requests. It comes last, so that those that are refused before do not pay for it.
func paths(reject rejectFunc) khttp.FilterFunc {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			clean, ok := cleanPath(r.URL)
			if !ok {
				notFound(reject).ServeHTTP(w, r)
				return
			}
			if clean != r.URL.Path || r.URL.RawPath != "" {
				routed := *r.URL
				routed.Path, routed.RawPath = clean, ""
				r.URL = &routed
			}
			next.ServeHTTP(w, r)
		})
	}
}

// cleanPath returns the path with every segment percent-encoded in the same way. The router would decode it before matching;
// encoded, "a%2Fb" matches as one segment, and decodePath decodes it. Paths with empty or dot segments are rejected: the
// router would redirect them, and a redirect loses the body.
func cleanPath(u *url.URL) (string, bool) {
	escaped := u.EscapedPath()
	if !path.IsAbs(escaped) || path.Clean(escaped) != escaped {
		return "", false
	}
	if !strings.Contains(escaped, "%") {
		return escaped, true
	}
	segments := strings.Split(escaped, "/")
	for i, segment := range segments {
		text, err := url.PathUnescape(segment)
		if err != nil {
			return "", false
		}
		segments[i] = url.PathEscape(text)
		if text == "." || text == ".." {
			segments[i] = strings.ReplaceAll(text, ".", "%2E")
		}
	}
	return strings.Join(segments, "/"), true
}

func notFound(reject rejectFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reject(w, r, decodingFrom(r.Context()).unrouted(v1.ErrorNotFound("no such path; openapi.yaml lists all paths")))
	})
}

// methodNotAllowed answers with the methods that routes has for the path.
func methodNotAllowed(routes *mux.Router, reject rejectFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var methods []string
		for _, method := range []string{http.MethodDelete, http.MethodGet, http.MethodPost, http.MethodPut} {
			request := *r
			request.Method = method
			if routes.Match(&request, &mux.RouteMatch{}) {
				methods = append(methods, method)
			}
		}
		list := strings.Join(methods, ", ")
		err := decodingFrom(r.Context()).unrouted(v1.ErrorMethodNotAllowed("this path allows: %s", list))
		if v1.IsMethodNotAllowed(err) {
			w.Header().Set("Allow", list)
		}
		reject(w, r, err)
	})
}

// errorBody is the JSON body of an error.
type errorBody struct {
	Code     int32             `json:"code"`
	Reason   string            `json:"reason"`
	Message  string            `json:"message"`
	Metadata map[string]string `json:"metadata"`
}

func errorBodyOf(public *kerrors.Error) errorBody {
	body := errorBody{public.Code, public.Reason, public.Message, public.Metadata}
	if body.Metadata == nil {
		body.Metadata = map[string]string{}
	}
	return body
}

func encodeError(w http.ResponseWriter, _ *http.Request, err error) {
	public := service.PublicError(err)
	body := errorBodyOf(public)
	w.Header().Set("Content-Type", "application/json")
	if public.Code == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	setRetryAfter(w.Header(), body.Metadata)
	w.WriteHeader(int(public.Code))
	_ = json.NewEncoder(w).Encode(body) // On failure the connection is gone.
}
