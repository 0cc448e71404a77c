package kube

import (
	"encoding/json"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"
)

// standIn keeps pods by name.
type standIn struct {
	serving *http.Server // nil while it is down
	mu      sync.Mutex
	pods    map[string]any
}

func newStandIn() *standIn { return &standIn{pods: make(map[string]any)} }

func (p *standIn) start(s *Server) {
	s.t.Helper()
	listener, err := net.Listen("tcp", strings.Replace(s.addr, "localhost", "127.0.0.1", 1))
	require.NoError(s.t, err)
	p.serving = &http.Server{Handler: p.handler(), ReadHeaderTimeout: time.Minute}
	serving := p.serving
	go func() { _ = serving.ServeTLS(listener, s.tls.Path("server.crt"), s.tls.Path("server.key")) }() // Until kill.
}

func (p *standIn) kill() {
	if p.serving != nil {
		_ = p.serving.Close() // The listener was the test's.
		p.serving = nil
	}
}

func (p *standIn) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+podsPath, func(w http.ResponseWriter, r *http.Request) {
		p.store(w, pod, p.read(r), http.StatusCreated)
	})
	mux.HandleFunc("GET "+podsPath, func(w http.ResponseWriter, r *http.Request) {
		name, value, _ := strings.Cut(r.FormValue("labelSelector"), "=")
		items := []any{}
		for _, known := range p.pods {
			if metadata(known, "labels")[name] == value {
				items = append(items, known)
			}
		}
		answer(w, http.StatusOK, object{"items": items})
	})
	mux.HandleFunc("GET "+podsPath+"/{name}", func(w http.ResponseWriter, r *http.Request) {
		p.known(w, r, func(known any) { answer(w, http.StatusOK, known) })
	})
	mux.HandleFunc("DELETE "+podsPath+"/{name}", func(w http.ResponseWriter, r *http.Request) {
		p.known(w, r, func(known any) {
			delete(p.pods, r.PathValue("name"))
			answer(w, http.StatusOK, known)
		})
	})
	patch := func(w http.ResponseWriter, r *http.Request) {
		p.known(w, r, func(known any) { p.store(w, r.PathValue("name"), merged(known, p.read(r)), http.StatusOK) })
	}
	mux.HandleFunc("PATCH "+podsPath+"/{name}", patch)
	mux.HandleFunc("PATCH "+podsPath+"/{name}/status", patch)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		switch strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ") {
		case adminToken, Token:
			mux.ServeHTTP(w, r)
		default:
			refuse(w, http.StatusUnauthorized, "Unauthorized")
		}
	})
}

func (p *standIn) read(r *http.Request) any {
	var body any
	_ = json.NewDecoder(r.Body).Decode(&body) // What is no object has no pod in it.
	return body
}

func (p *standIn) known(w http.ResponseWriter, r *http.Request, f func(known any)) {
	known, ok := p.pods[r.PathValue("name")]
	if !ok {
		refuse(w, http.StatusNotFound, `pods "`+r.PathValue("name")+`" not found`)
		return
	}
	f(known)
}

// labelPattern is what Kubernetes takes as a label's value.
var labelPattern = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$`)

func (p *standIn) store(w http.ResponseWriter, name string, changed any, code int) {
	for label, value := range metadata(changed, "labels") {
		if text, ok := value.(string); !ok || !labelPattern.MatchString(text) {
			refuse(w, http.StatusUnprocessableEntity, "metadata.labels: Invalid value of "+label)
			return
		}
	}
	p.pods[name] = changed
	answer(w, code, changed)
}

func metadata(known any, part string) object {
	whole, _ := known.(object)
	all, _ := whole["metadata"].(object)
	wanted, _ := all[part].(object)
	return wanted
}

func refuse(w http.ResponseWriter, code int, message string) {
	answer(w, code, object{"kind": "Status", "status": "Failure", "message": message, "code": code})
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // Who asked may have gone.
}
