package kube

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	etcdtest "podlink/test/kit/etcd"
	"podlink/test/kit/proc"
)

// real is a kube-apiserver with an etcd and without controllers: prepare creates what those would.
type real struct {
	path    string
	dir     string
	etcd    *etcdtest.Server
	process *proc.Process // nil before the first start
}

func newReal(t *testing.T, path string) *real {
	t.Helper()
	return &real{path: path, dir: t.TempDir(), etcd: etcdtest.Start(t)}
}

func (p *real) start(s *Server) {
	s.t.Helper()
	first := p.process == nil
	if first {
		p.launch(s)
	} else {
		require.NoError(s.t, p.process.Restart())
	}
	require.Eventually(s.t, s.ready, startTimeout, 50*time.Millisecond, "no answer:\n%s", p.process.Log)
	if first {
		p.prepare(s)
	}
}

func (p *real) launch(s *Server) {
	s.t.Helper()
	tokens := filepath.Join(p.dir, "tokens.csv")
	require.NoError(s.t, os.WriteFile(tokens, []byte(
		adminToken+",admin,1,system:masters\n"+
			Token+",system:serviceaccount:"+namespace+":podlink,2\n"), 0o600))
	_, port, err := net.SplitHostPort(s.addr)
	require.NoError(s.t, err)
	p.process = proc.Start(s.t, proc.Command{Program: p.path, Args: []string{
		"--etcd-servers=http://" + p.etcd.Addr, "--bind-address=127.0.0.1", "--secure-port=" + port,
		"--tls-cert-file=" + s.tls.Path("server.crt"), "--tls-private-key-file=" + s.tls.Path("server.key"), "--cert-dir=" + p.dir,
		"--token-auth-file=" + tokens, "--authorization-mode=RBAC", "--anonymous-auth=false",
		"--service-account-issuer=https://localhost", "--service-account-key-file=" + s.tls.Path("server.key"),
		"--service-account-signing-key-file=" + s.tls.Path("server.key"), "--service-cluster-ip-range=10.0.0.0/24",
		"--disable-admission-plugins=ServiceAccount", "--endpoint-reconciler-type=none",
	}})
}

func (s *Server) ready() bool {
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+s.addr+"/readyz", http.NoBody)
	if err != nil {
		return false
	}
	request.Header.Set("Authorization", "Bearer "+adminToken)
	response, err := s.http.Do(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// prepare creates the namespace, and grants podlink the rights that docs/operations.md lists.
func (p *real) prepare(s *Server) {
	s.t.Helper()
	const rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/" + namespace
	s.call(http.MethodPost, "/api/v1/namespaces", object{"metadata": object{"name": namespace}}, nil)
	s.call(http.MethodPost, rbac+"/roles", object{
		"metadata": object{"name": "podlink-registers"},
		"rules":    []object{{"apiGroups": []string{""}, "resources": []string{"pods"}, "verbs": []string{"get", "patch"}}},
	}, nil)
	s.call(http.MethodPost, rbac+"/rolebindings", object{
		"metadata": object{"name": "podlink-registers"},
		"roleRef":  object{"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "podlink-registers"},
		"subjects": []object{{"kind": "ServiceAccount", "name": "podlink", "namespace": namespace}},
	}, nil)
}

func (p *real) kill() {
	if p.process != nil {
		p.process.Kill()
	}
}
