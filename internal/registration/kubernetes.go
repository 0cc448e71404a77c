package registration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/go-kratos/kratos/v2/registry"

	"podlink/internal/certs"
)

// serviceAccountDir is where Kubernetes mounts the credentials for its API server into each pod.
const serviceAccountDir = "/var/run/secrets/kubernetes.io/serviceaccount"

// The labels and annotations of a pod that Kratos' Kubernetes discovery reads.
const (
	labelID             = "kratos-service-id"
	labelName           = "kratos-service-app"
	labelVersion        = "kratos-service-version"
	annotationMetadata  = "kratos-service-metadata"
	annotationProtocols = "kratos-service-protocols" // JSON object: container port -> protocol
)

// maxResponseBytes bounds a response of the API server.
const maxResponseBytes = 1 << 20

// kubernetesBackend registers podlink by labelling its own pod, as Kratos' Kubernetes registry does. It does not use that one
// because it depends on client-go, which adds 25 MB to the binary and 15 MB of memory, for two requests.
type kubernetesBackend struct {
	http *http.Client
	pod  string // URL of the pod
	dir  string // the service account's; read for each request, because Kubernetes replaces the token every hour
}

// newKubernetes returns a backend for the pod that this process runs in. The API server's address is in the environment. The
// pod's name and namespace are too if the downward API sets them; the fallbacks are the host name and the service account.
func newKubernetes(dir string, files *certs.Reloader, env func(name string) string) (*kubernetesBackend, error) {
	host, port := env("KUBERNETES_SERVICE_HOST"), env("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return nil, errors.New("registry.type: kubernetes works in a pod only: KUBERNETES_SERVICE_HOST or KUBERNETES_SERVICE_PORT is not set")
	}
	secured, err := files.Client(certs.ClientOptions{CA: certs.File{Key: "registry.type", Path: filepath.Join(dir, "ca.crt")}})
	if err != nil {
		return nil, fmt.Errorf("%w: kubernetes needs a service account", err)
	}
	namespace, pod := env("POD_NAMESPACE"), env("POD_NAME")
	if namespace == "" {
		text, err := os.ReadFile(filepath.Join(dir, "namespace")) //nolint:gosec // It is the service account's.
		if err != nil {
			return nil, fmt.Errorf("registry.type: kubernetes needs POD_NAMESPACE: %w", err)
		}
		namespace = strings.TrimSpace(string(text))
	}
	if pod == "" {
		if pod, err = os.Hostname(); err != nil {
			return nil, fmt.Errorf("registry.type: kubernetes needs POD_NAME: %w", err)
		}
	}
	return &kubernetesBackend{
		http: newHTTPClient(secured), dir: dir,
		pod: "https://" + net.JoinHostPort(host, port) +
			"/api/v1/namespaces/" + url.PathEscape(namespace) + "/pods/" + url.PathEscape(pod),
	}, nil
}

// podPatch is the registration's part of a pod object, both as read and as a merge patch. In a patch, null removes a key.
type podPatch struct {
	Metadata struct {
		Labels      map[string]*string `json:"labels"`
		Annotations map[string]*string `json:"annotations"`
	} `json:"metadata"`
}

// patchFor returns the labels and annotations that register the instance.
func patchFor(instance *registry.ServiceInstance) (*podPatch, error) {
	protocols := make(map[string]string)
	for _, endpoint := range instance.Endpoints {
		parsed, err := url.Parse(endpoint)
		if err != nil {
			return nil, err
		}
		protocols[parsed.Port()] = parsed.Scheme
	}
	protocolsText, err := json.Marshal(protocols)
	if err != nil {
		return nil, err
	}
	metadataText, err := json.Marshal(instance.Metadata)
	if err != nil {
		return nil, err
	}
	text := func(value string) *string { return &value }
	patch := new(podPatch)
	patch.Metadata.Labels = map[string]*string{
		labelID: text(instance.ID), labelName: text(instance.Name), labelVersion: text(labelValue(instance.Version)),
	}
	patch.Metadata.Annotations = map[string]*string{
		annotationMetadata: text(string(metadataText)), annotationProtocols: text(string(protocolsText)),
	}
	return patch, nil
}

var invalidInLabel = regexp.MustCompile(`[^A-Za-z0-9._-]`)

// labelValue makes a text valid as a label's value: a version may contain a plus sign.
func labelValue(text string) string {
	text = invalidInLabel.ReplaceAllString(text, "_")
	return strings.Trim(text[:min(len(text), 63)], "._-")
}

func (b *kubernetesBackend) check(ctx context.Context, instance *registry.ServiceInstance) error {
	want, err := patchFor(instance)
	if err != nil {
		return err
	}
	pod := new(podPatch)
	if err := b.do(ctx, http.MethodGet, nil, pod); err != nil {
		return err
	}
	if !containsAll(pod.Metadata.Labels, want.Metadata.Labels) || !containsAll(pod.Metadata.Annotations, want.Metadata.Annotations) {
		return errNotRegistered
	}
	return nil
}

// containsAll reports whether got has every entry of want.
func containsAll(got, want map[string]*string) bool {
	for name, value := range want {
		if found := got[name]; found == nil || *found != *value {
			return false
		}
	}
	return true
}

func (b *kubernetesBackend) register(ctx context.Context, instance *registry.ServiceInstance) error {
	patch, err := patchFor(instance)
	if err != nil {
		return err
	}
	return b.do(ctx, http.MethodPatch, patch, nil)
}

func (b *kubernetesBackend) deregister(ctx context.Context, instance *registry.ServiceInstance) error {
	patch, err := patchFor(instance)
	if err != nil {
		return err
	}
	for _, entries := range []map[string]*string{patch.Metadata.Labels, patch.Metadata.Annotations} {
		for name := range entries {
			entries[name] = nil
		}
	}
	return b.do(ctx, http.MethodPatch, patch, nil)
}

// do sends a request for the pod, with the merge patch unless it is nil, and decodes the response into pod unless that is nil.
func (b *kubernetesBackend) do(ctx context.Context, method string, patch, pod *podPatch) error {
	token, err := os.ReadFile(filepath.Join(b.dir, "token"))
	if err != nil {
		return err
	}
	var body io.Reader = http.NoBody
	if patch != nil {
		text, err := json.Marshal(patch)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, b.pod, body)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	request.Header.Set("Accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1") // Metadata only.
	request.Header.Set("Content-Type", "application/merge-patch+json")
	response, err := b.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxResponseBytes))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		var status struct {
			Message string `json:"message"`
		}
		_ = json.Unmarshal(text, &status) // A proxy's error may not be JSON; then the code must do.
		return fmt.Errorf("kubernetes API: %s: %s", response.Status, status.Message)
	}
	if pod == nil {
		return nil
	}
	return json.Unmarshal(text, pod)
}

func (b *kubernetesBackend) close() { b.http.CloseIdleConnections() }
