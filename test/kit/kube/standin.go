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

// standIn is an API server in the test's process.
type standIn struct {
	serving *http.Server // nil while it is down
	mu      sync.Mutex
	pods    map[string]any // by name
}

func newStandIn() *standIn { return &standIn{pods: make(map[string]any)} }

func (p *standIn) start(s *Server) {
	s.t.Helper()
	listener, err := net.Listen("tcp", strings.Replace(s.addr, "localhost", "127.0.0.1", 1))
	require.NoError(s.t, err)
	p.serving = &http.Server{Handler: p.handler(), ReadHeaderTimeout: time.Minute}
	serving := p.serving
	go func() { _ = serving.ServeTLS(listener, s.tls.Path("server.crt"), s.tls.Path("server.key")) }() // Returns after kill.
}

func (p *standIn) kill() {
	if p.serving != nil {
		_ = p.serving.Close()
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
		for _, found := range p.pods {
			if metadata(found, "labels")[name] == value {
				items = append(items, found)
			}
		}
		answer(w, http.StatusOK, object{"items": items})
	})
	mux.HandleFunc("GET "+podsPath+"/{name}", func(w http.ResponseWriter, r *http.Request) {
		p.withPod(w, r, func(found any) { answer(w, http.StatusOK, found) })
	})
	mux.HandleFunc("DELETE "+podsPath+"/{name}", func(w http.ResponseWriter, r *http.Request) {
		p.withPod(w, r, func(found any) {
			delete(p.pods, r.PathValue("name"))
			answer(w, http.StatusOK, found)
		})
	})
	patch := func(w http.ResponseWriter, r *http.Request) {
		p.withPod(w, r, func(found any) { p.store(w, r.PathValue("name"), merged(found, p.read(r)), http.StatusOK) })
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
	_ = json.NewDecoder(r.Body).Decode(&body) // A body that is no object has no labels.
	return body
}

func (p *standIn) withPod(w http.ResponseWriter, r *http.Request, f func(found any)) {
	found, ok := p.pods[r.PathValue("name")]
	if !ok {
		refuse(w, http.StatusNotFound, `pods "`+r.PathValue("name")+`" not found`)
		return
	}
	f(found)
}

// labelPattern matches the values that Kubernetes accepts for a label.
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

func metadata(found any, part string) object {
	whole, _ := found.(object)
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
	_ = json.NewEncoder(w).Encode(body) // The client may have disconnected.
}
