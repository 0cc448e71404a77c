// Package kube runs a Kubernetes API server with one pod, for tests that label the pod. It is a stand-in, because Debian has
// no package of a real one: it implements what the API's documentation says about reading and patching pods, labels and
// tokens. With the environment variable KUBE_APISERVER, the path of a kube-apiserver, it is a real one, with an etcd, in which
// podlink has the documented rights only.
package kube

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/go-kratos/kratos/v2/registry"
	"github.com/stretchr/testify/require"

	"podlink/test/kit/proc"
	tlstest "podlink/test/kit/tls"
)

const (
	namespace = "podlinks"
	pod       = "podlink-0"
	// Token authenticates podlink's service account.
	Token      = "token-of-podlink"
	adminToken = "token-of-an-administrator"
	// startTimeout bounds how long a real API server may take to answer.
	startTimeout = time.Minute
)

// Server is an API server with a pod, podlink-0, that runs at 127.0.0.1 and has the container ports 8000 and 9000. It stops
// with the test that started it.
type Server struct {
	t    *testing.T
	addr string // localhost:port
	tls  *tlstest.Authority
	http *http.Client
	program
}

// program is the stand-in or a real API server.
type program interface {
	start(s *Server)
	kill()
}

// Start starts an API server and creates the pod.
func Start(t *testing.T) *Server {
	t.Helper()
	s := &Server{t: t, tls: tlstest.New(t, t.TempDir(), "ca"), program: newStandIn()}
	if path := os.Getenv("KUBE_APISERVER"); path != "" {
		s.program = newReal(t, path)
	}
	s.tls.Sign(t, "server", "localhost", time.Time{})
	s.addr = "localhost:" + strconv.Itoa(proc.FreePorts(t, 1)[0])
	s.http = &http.Client{Timeout: startTimeout, Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: s.tls.Pool()},
		DisableKeepAlives: true, // Tests kill the server.
	}}
	t.Cleanup(func() { s.kill() })
	s.start(s)
	s.createPod()
	return s
}

// Kill stops the API server and closes its connections.
func (s *Server) Kill() { s.kill() }

// Restart kills the API server and starts it again on the same port with the same data.
func (s *Server) Restart() {
	s.t.Helper()
	s.kill()
	s.start(s)
}

// RestartEmpty is Restart, followed by a replacement of the pod by a new one of the same name.
func (s *Server) RestartEmpty() {
	s.t.Helper()
	s.Restart()
	s.call(http.MethodDelete, podPath+"?gracePeriodSeconds=0", nil, nil)
	s.createPod()
}

const (
	podsPath = "/api/v1/namespaces/" + namespace + "/pods"
	podPath  = podsPath + "/" + pod
)

type object = map[string]any

func (s *Server) createPod() {
	s.t.Helper()
	ports := []object{{"containerPort": 8000}, {"containerPort": 9000}}
	s.call(http.MethodPost, podsPath, object{
		"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": pod},
		"spec": object{"containers": []object{{"name": pod, "image": pod, "ports": ports}}},
	}, nil)
	s.call(http.MethodPatch, podPath+"/status", object{"status": object{
		"phase": "Running", "podIP": "127.0.0.1", "podIPs": []object{{"ip": "127.0.0.1"}},
	}}, nil)
}

// Mount returns a directory like the one that Kubernetes mounts for a service account, with the token.
func (s *Server) Mount(t *testing.T, token string) string {
	t.Helper()
	dir := t.TempDir()
	authority, err := os.ReadFile(s.tls.Path("ca.crt"))
	require.NoError(t, err)
	for name, text := range map[string]string{"token": token + "\n", "ca.crt": string(authority), "namespace": namespace} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return dir
}

// Env returns an environment variable as Kubernetes sets it in the pod.
func (s *Server) Env(name string) string {
	host, port, err := net.SplitHostPort(s.addr)
	require.NoError(s.t, err)
	return map[string]string{"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port, "POD_NAME": pod}[name]
}

// RemoveMarks removes every label and annotation of the pod.
func (s *Server) RemoveMarks() {
	s.t.Helper()
	var found struct {
		Metadata struct{ Labels, Annotations map[string]any }
	}
	s.call(http.MethodGet, podPath, nil, &found)
	for _, set := range []map[string]any{found.Metadata.Labels, found.Metadata.Annotations} {
		for name := range set {
			set[name] = nil
		}
	}
	s.call(http.MethodPatch, podPath, object{"metadata": object{
		"labels": found.Metadata.Labels, "annotations": found.Metadata.Annotations,
	}}, nil)
}

// Find returns the instances of the service, read from pods like Kratos' discovery does.
func (s *Server) Find(service string) []*registry.ServiceInstance {
	s.t.Helper()
	var found struct {
		Items []struct {
			Metadata struct{ Labels, Annotations map[string]string }
			Spec     struct {
				Containers []struct {
					Ports []struct{ ContainerPort int }
				}
			}
			Status struct{ Phase, PodIP string }
		}
	}
	s.call(http.MethodGet, podsPath+"?labelSelector="+url.QueryEscape("kratos-service-app="+service), nil, &found)
	var instances []*registry.ServiceInstance
	for _, item := range found.Items {
		if item.Status.Phase != "Running" {
			continue
		}
		labels, annotations := item.Metadata.Labels, item.Metadata.Annotations
		instance := &registry.ServiceInstance{
			ID: labels["kratos-service-id"], Name: labels["kratos-service-app"], Version: labels["kratos-service-version"],
		}
		require.NoError(s.t, json.Unmarshal([]byte(annotations["kratos-service-metadata"]), &instance.Metadata))
		var protocols map[string]string
		require.NoError(s.t, json.Unmarshal([]byte(annotations["kratos-service-protocols"]), &protocols))
		for _, container := range item.Spec.Containers {
			for _, port := range container.Ports {
				number := strconv.Itoa(port.ContainerPort)
				instance.Endpoints = append(instance.Endpoints, protocols[number]+"://"+net.JoinHostPort(item.Status.PodIP, number))
			}
		}
		instances = append(instances, instance)
	}
	return instances
}

// call calls the API as an administrator. Body and answer may be nil.
func (s *Server) call(method, path string, body, answer any) {
	s.t.Helper()
	text, err := json.Marshal(body)
	require.NoError(s.t, err)
	request, err := http.NewRequestWithContext(s.t.Context(), method, "https://"+s.addr+path, bytes.NewReader(text))
	require.NoError(s.t, err)
	request.Header.Set("Authorization", "Bearer "+adminToken)
	request.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		request.Header.Set("Content-Type", "application/merge-patch+json")
	}
	response, err := s.http.Do(request)
	require.NoError(s.t, err)
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	require.NoError(s.t, err)
	require.True(s.t, slices.Contains([]int{http.StatusOK, http.StatusCreated}, response.StatusCode), "%s %s: %s", method, path, got)
	if answer != nil {
		require.NoError(s.t, json.Unmarshal(got, answer))
	}
}

// merged returns a document with a JSON merge patch applied.
func merged(document, patch any) any {
	changes, ok := patch.(object)
	if !ok {
		return patch
	}
	before, _ := document.(object)
	after := maps.Clone(before)
	if after == nil {
		after = object{}
	}
	for name, change := range changes {
		if change == nil {
			delete(after, name)
		} else {
			after[name] = merged(after[name], change)
		}
	}
	return after
}
