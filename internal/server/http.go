package server

import (
	"encoding/json"
	stdlog "log"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/go-kratos/kratos/v2/log"
	khttp "github.com/go-kratos/kratos/v2/transport/http"
	"github.com/gorilla/mux"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/conf"
	"podlink/internal/service"
)

// The limits of a connection: a peer that sends or takes its bytes slower than this is cut off.
const (
	readTimeout  = 5 * time.Second
	writeTimeout = 10 * time.Second
	idleTimeout  = 2 * time.Minute
)

// NewHTTPServer returns the HTTP listener of the API.
func NewHTTPServer(
	c *conf.Server, api API, chain *Chain, drain *Drain, logger log.Logger,
) *khttp.Server {
	allowed, refuse := mux.NewRouter(), refuseThrough(chain)
	srv := khttp.NewServer(
		khttp.Address(c.GetHttp().GetAddr()),
		khttp.Timeout(c.GetHttp().GetTimeout().AsDuration()),
		khttp.Middleware(chain.Unary),
		khttp.Filter(guard(drain, refuse)),
		khttp.StrictSlash(false),
		khttp.RequestDecoder(decoder(decodeBody)),
		khttp.RequestQueryDecoder(decoder(decodeQuery)),
		khttp.RequestVarsDecoder(decoder(decodePath)),
		khttp.ResponseEncoder(encodeReply),
		khttp.ErrorEncoder(encodeError),
		// Without these two, Kratos serves http.DefaultServeMux here, past all middleware (CVE-2026-6993).
		khttp.NotFoundHandler(notFound(refuse)),
		khttp.MethodNotAllowedHandler(methodNotAllowed(allowed, refuse)),
	)
	bound(srv.Server, logger)
	for _, one := range api {
		one.overHTTP(srv)
	}
	// Walking can't fail: the function never does.
	_ = srv.WalkRoute(func(route khttp.RouteInfo) error {
		allowed.Path(route.Path).Methods(route.Method)
		return nil
	})
	return srv
}

// bound limits what a connection may cost.
func bound(srv *http.Server, logger log.Logger) {
	srv.ReadHeaderTimeout = readTimeout
	srv.ReadTimeout = readTimeout
	srv.WriteTimeout = writeTimeout
	srv.IdleTimeout = idleTimeout
	srv.MaxHeaderBytes = maxHeaderBytes
	srv.ErrorLog = stdlog.New(log.NewWriter(logger, log.WithWriterLevel(log.LevelDebug)), "", 0)
}

// guard stands around the router: it bounds the body, prepares the path and the decoding, and survives what happens
// outside the middleware chain.
func guard(drain *Drain, refuse refuser) khttp.FilterFunc {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() {
				if cause := recover(); cause != nil {
					refuse(w, r, panicError(cause))
				}
			}()
			if drain.Draining() {
				w.Header().Set("Connection", "close") // The caller's next request goes to another podlink.
			}
			clean, ok := cleanPath(r.URL)
			if !ok {
				notFound(refuse).ServeHTTP(w, r)
				return
			}
			ctx, _ := withDecoding(r.Context())
			r = r.WithContext(ctx)
			if r.ContentLength != 0 {
				r.Body = http.MaxBytesReader(w, r.Body, maxBodyBytes)
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

// cleanPath returns the path with each segment percent-encoded in one way, so that the router, which would decode it
// first, matches "a%2Fb" as one segment; decodePath decodes what was matched. It refuses empty and dot segments: the
// router would answer them with a redirect, on which a body is lost.
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

func notFound(refuse refuser) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		refuse(w, r, v1.ErrorNotFound("there is no such path; openapi.yaml lists them"))
	})
}

// methodNotAllowed names the methods that the path has; routes knows them.
func methodNotAllowed(routes *mux.Router, refuse refuser) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var methods []string
		for _, method := range []string{http.MethodDelete, http.MethodGet, http.MethodPost, http.MethodPut} {
			probe := *r
			probe.Method = method
			if routes.Match(&probe, &mux.RouteMatch{}) {
				methods = append(methods, method)
			}
		}
		list := strings.Join(methods, ", ")
		w.Header().Set("Allow", list)
		refuse(w, r, v1.ErrorMethodNotAllowed("this path has: %s", list))
	})
}

// encodeReply writes every reply as JSON, whatever the caller would accept, with the fields that have no value too.
func encodeReply(w http.ResponseWriter, _ *http.Request, reply any) error {
	text, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(reply.(proto.Message))
	if err != nil {
		return service.Internal(err)
	}
	w.Header().Set("Content-Type", "application/json")
	_, err = w.Write(text)
	return err
}

// errorBody is every error's JSON.
type errorBody struct {
	Code     int32             `json:"code"`
	Reason   string            `json:"reason"`
	Message  string            `json:"message"`
	Metadata map[string]string `json:"metadata"`
}

func encodeError(w http.ResponseWriter, _ *http.Request, err error) {
	public := service.PublicError(err)
	body := errorBody{public.Code, public.Reason, public.Message, public.Metadata}
	if body.Metadata == nil {
		body.Metadata = map[string]string{}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(public.Code))
	_ = json.NewEncoder(w).Encode(body) // The caller is gone when this fails.
}
