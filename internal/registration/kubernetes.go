package registration

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"

	"github.com/go-kratos/kratos/v2/registry"
)

// serviceAccountDir is where Kubernetes gives each pod what it needs to ask the API server.
const serviceAccountDir = "/var/run/secrets/kubernetes.io/serviceaccount"

// Where Kratos' discovery in Kubernetes looks: labels and annotations of a pod.
const (
	labelID             = "kratos-service-id"
	labelName           = "kratos-service-app"
	labelVersion        = "kratos-service-version"
	annotationMetadata  = "kratos-service-metadata"
	annotationProtocols = "kratos-service-protocols" // by container port
)

// answerLimit bounds how much of an answer is read, in bytes.
const answerLimit = 1 << 20

// kubernetesBackend registers podlink by labelling its own pod, as Kratos' registry for Kubernetes does. That one needs
// client-go with every kind of object there is: it would add 25 MB to the binary and 15 MB to the memory, for these two
// requests.
type kubernetesBackend struct {
	http *http.Client
	pod  string // URL of the pod
	dir  fs.FS  // with the token, which Kubernetes replaces every hour
}

// newKubernetes returns a backend for the pod that this process is in. Its environment tells where the API server is, and by the
// downward API which pod it is; without that, the host has the name of the pod.
func newKubernetes(dir fs.FS, env func(name string) string) (*kubernetesBackend, error) {
	host, port := env("KUBERNETES_SERVICE_HOST"), env("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return nil, errors.New("registry.type: kubernetes works in a pod only: there is no KUBERNETES_SERVICE_HOST and _PORT")
	}
	authority, err := fs.ReadFile(dir, "ca.crt")
	if err != nil {
		return nil, fmt.Errorf("registry.type: kubernetes needs a service account: %w", err)
	}
	secured := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	if !secured.RootCAs.AppendCertsFromPEM(authority) {
		return nil, errors.New("registry.type: kubernetes needs a service account: ca.crt has no certificate in PEM")
	}
	namespace, pod := env("POD_NAMESPACE"), env("POD_NAME")
	if namespace == "" {
		text, err := fs.ReadFile(dir, "namespace")
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

// podMarks are the parts of a pod that are about registration; nil: it is not there, or shall not be.
type podMarks struct {
	Metadata struct {
		Labels      map[string]*string `json:"labels"`
		Annotations map[string]*string `json:"annotations"`
	} `json:"metadata"`
}

// marksOf returns the marks of a pod in which the instance is registered.
func marksOf(instance *registry.ServiceInstance) (*podMarks, error) {
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
	marks := new(podMarks)
	marks.Metadata.Labels = map[string]*string{
		labelID: text(instance.ID), labelName: text(instance.Name), labelVersion: text(labelValue(instance.Version)),
	}
	marks.Metadata.Annotations = map[string]*string{
		annotationMetadata: text(string(metadataText)), annotationProtocols: text(string(protocolsText)),
	}
	return marks, nil
}

var noLabelCharacters = regexp.MustCompile(`[^A-Za-z0-9._-]`)

// labelValue is the text as Kubernetes takes it for a label: a version may have a +.
func labelValue(text string) string {
	text = noLabelCharacters.ReplaceAllString(text, "_")
	return strings.Trim(text[:min(len(text), 63)], "._-")
}

func (b *kubernetesBackend) find(ctx context.Context, instance *registry.ServiceInstance) error {
	want, err := marksOf(instance)
	if err != nil {
		return err
	}
	found := new(podMarks)
	if err := b.ask(ctx, http.MethodGet, nil, found); err != nil {
		return err
	}
	if !holds(found.Metadata.Labels, want.Metadata.Labels) || !holds(found.Metadata.Annotations, want.Metadata.Annotations) {
		return errGone
	}
	return nil
}

// holds says whether all of want is in found.
func holds(found, want map[string]*string) bool {
	for name, value := range want {
		if got := found[name]; got == nil || *got != *value {
			return false
		}
	}
	return true
}

func (b *kubernetesBackend) renew(ctx context.Context, instance *registry.ServiceInstance) error {
	marks, err := marksOf(instance)
	if err != nil {
		return err
	}
	return b.ask(ctx, http.MethodPatch, marks, nil)
}

func (b *kubernetesBackend) leave(ctx context.Context, instance *registry.ServiceInstance) error {
	marks, err := marksOf(instance)
	if err != nil {
		return err
	}
	for _, set := range []map[string]*string{marks.Metadata.Labels, marks.Metadata.Annotations} {
		for name := range set {
			set[name] = nil
		}
	}
	return b.ask(ctx, http.MethodPatch, marks, nil)
}

// ask sends a request for the pod, with a merge patch if there is one, and reads the answer into found, unless that is nil.
func (b *kubernetesBackend) ask(ctx context.Context, method string, patch, found *podMarks) error {
	token, err := fs.ReadFile(b.dir, "token")
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
	request.Header.Set("Accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1") // Without the rest of the pod.
	request.Header.Set("Content-Type", "application/merge-patch+json")
	response, err := b.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, answerLimit))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		var status struct {
			Message string `json:"message"`
		}
		_ = json.Unmarshal(answer, &status) // A proxy may say it otherwise; then the code has to do.
		return fmt.Errorf("kubernetes answers %s: %s", response.Status, status.Message)
	}
	if found == nil {
		return nil
	}
	return json.Unmarshal(answer, found)
}

func (b *kubernetesBackend) close() { b.http.CloseIdleConnections() }
