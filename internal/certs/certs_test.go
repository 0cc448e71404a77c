package certs

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	tlstest "podlink/test/kit/tls"
)

// recorder is a Logger, and records which changes were reported.
type recorder struct {
	mu       sync.Mutex
	lines    []string
	reloaded []string
	history  []string // lines before the last call of reports
}

func (r *recorder) add(list *[]string, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*list = append(*list, text)
}

func (r *recorder) Infof(format string, args ...any) {
	r.add(&r.lines, "info: "+fmt.Sprintf(format, args...))
}
func (r *recorder) Warnf(format string, args ...any) {
	r.add(&r.lines, "warn: "+fmt.Sprintf(format, args...))
}

func (r *recorder) reload(key string, err error) {
	r.add(&r.reloaded, fmt.Sprintf("%s %t", key, err == nil))
}

// reports returns what was reported since the last call, and checks that the log has a line for each.
func (r *recorder) reports(t *testing.T) []string {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	require.Len(t, r.lines, len(r.reloaded), "%q", r.lines)
	for i, report := range r.reloaded {
		key, good, _ := strings.Cut(report, " ")
		level := map[string]string{"true": "info: ", "false": "warn: "}[good]
		require.True(t, strings.HasPrefix(r.lines[i], level+key+": "), r.lines[i])
	}
	reports := r.reloaded
	r.history = append(r.history, r.lines...)
	r.lines, r.reloaded = nil, nil
	return reports
}

// watched is a Reloader of a client's files in a folder, which the test reloads itself.
type watched struct {
	*recorder
	t         *testing.T
	reloader  *Reloader
	client    *Client
	ca        *tlstest.Authority
	ca2       *tlstest.Authority
	caFile    string
	cert, key string
}

func newWatched(t *testing.T) *watched {
	t.Helper()
	dir := t.TempDir()
	w := &watched{
		recorder: new(recorder), t: t, ca: tlstest.New(t, t.TempDir(), "ca"), ca2: tlstest.New(t, t.TempDir(), "ca"),
		caFile: filepath.Join(dir, "ca.pem"), cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem"),
	}
	for i, authority := range []*tlstest.Authority{w.ca, w.ca2} {
		authority.Sign(t, "leaf", fmt.Sprintf("leaf-%d", i+1), time.Time{})
		authority.Sign(t, "other", fmt.Sprintf("other-%d", i+1), time.Time{})
	}
	w.pair(w.ca, "leaf")
	tlstest.Copy(t, w.caFile, w.ca.Path("ca.crt"))
	w.reloader = New(Options{Log: w.recorder, Reloaded: w.reload})
	var err error
	w.client, err = w.reloader.Client(ClientOptions{
		CA: File{"x.ca_file", w.caFile}, Cert: File{"x.cert_file", w.cert}, Key: File{"x.key_file", w.key},
	})
	require.NoError(t, err)
	return w
}

// pair replaces the certificate and its key.
func (w *watched) pair(a *tlstest.Authority, name string) {
	tlstest.Copy(w.t, w.cert, a.Path(name+".crt"))
	tlstest.Copy(w.t, w.key, a.Path(name+".key"))
}

// read reads the files so often, and returns what was reported.
func (w *watched) read(times int) []string {
	w.t.Helper()
	for range times {
		for _, source := range w.reloader.Sources() {
			w.reloader.reload(source, time.Now())
		}
	}
	return w.reports(w.t)
}

// name is the name in the certificate in use.
func (w *watched) name() string { return w.client.Config().Certificates[0].Leaf.DNSNames[0] }

func (w *watched) source(key string) *Source {
	for _, source := range w.reloader.Sources() {
		if source.Key() == key {
			return source
		}
	}
	require.Fail(w.t, key)
	return nil
}

// TestReload: what new files contain is in use after the next read, and the pair goes as a whole.
func TestReload(t *testing.T) {
	w := newWatched(t)
	require.Empty(t, w.read(2), "nothing has changed")
	before := w.client.Config()
	w.pair(w.ca2, "leaf")
	require.Equal(t, "leaf-1", w.name(), "not read yet")
	require.Equal(t, []string{"x.cert_file true"}, w.read(3))
	require.Equal(t, "leaf-2", w.name())
	require.Equal(t, "leaf-1", before.Certificates[0].Leaf.DNSNames[0], "a connection keeps its files")
	require.True(t, before.RootCAs.Equal(w.client.Config().RootCAs))

	tlstest.Copy(t, w.caFile, w.ca.Path("ca.crt"), w.ca2.Path("ca.crt"))
	require.Equal(t, []string{"x.ca_file true"}, w.read(3))
	both := w.ca.Pool()
	both.AppendCertsFromPEM(content(t, w.ca2.Path("ca.crt")))
	require.True(t, both.Equal(w.client.Config().RootCAs))
	require.NotContains(t, fmt.Sprint(w.history), "leaf-", "no content of a certificate is logged")
}

// TestPairReplacedInTwoSteps: a read between them reports nothing, and the next one takes both files.
func TestPairReplacedInTwoSteps(t *testing.T) {
	for name, first := range map[string]string{"the certificate first": "cert", "the key first": "key"} {
		t.Run(name, func(t *testing.T) {
			w := newWatched(t)
			if first == "cert" {
				tlstest.Copy(t, w.cert, w.ca.Path("other.crt"))
			} else {
				tlstest.Copy(t, w.key, w.ca.Path("other.key"))
			}
			require.Empty(t, w.read(1))
			require.Equal(t, "leaf-1", w.name())
			w.pair(w.ca, "other")
			require.Equal(t, []string{"x.cert_file true"}, w.read(2))
			require.Equal(t, "other-1", w.name())
			require.Zero(t, w.source("x.cert_file").Failures())
		})
	}
}

// TestBrokenFiles: the former files stay in use, the log has one line per change, and good files end it.
func TestBrokenFiles(t *testing.T) {
	for name, row := range map[string]struct {
		key   string // of the source that fails
		spoil func(w *watched)
	}{
		"not PEM":                 {"x.cert_file", func(w *watched) { write(w.t, w.cert, "secret-4711") }},
		"an empty certificate":    {"x.cert_file", func(w *watched) { write(w.t, w.cert, "") }},
		"an empty key":            {"x.cert_file", func(w *watched) { write(w.t, w.key, "") }},
		"key of another":          {"x.cert_file", func(w *watched) { tlstest.Copy(w.t, w.key, w.ca.Path("other.key")) }},
		"switched":                {"x.cert_file", func(w *watched) { tlstest.Copy(w.t, w.cert, w.key) }},
		"a certificate that ends": {"x.cert_file", func(w *watched) { cutOff(w.t, w.cert, w.ca.Path("ca.crt")) }},
		"no certificate":          {"x.cert_file", func(w *watched) { require.NoError(w.t, os.Remove(w.cert)) }},
		"no key":                  {"x.cert_file", func(w *watched) { require.NoError(w.t, os.Remove(w.key)) }},
		"a folder":                {"x.cert_file", func(w *watched) { replaceBy(w.t, w.cert, func() error { return os.Mkdir(w.cert, 0o700) }) }},
		"a pipe without a writer": {"x.cert_file", func(w *watched) {
			replaceBy(w.t, w.key, func() error { return syscall.Mkfifo(w.key, 0o600) })
		}},
		"too large":                {"x.cert_file", func(w *watched) { write(w.t, w.cert, strings.Repeat("\n", maxBytes+1)) }},
		"expired":                  {"x.cert_file", func(w *watched) { w.lifetime(-2*time.Hour, -time.Minute) }},
		"not valid yet":            {"x.cert_file", func(w *watched) { w.lifetime(time.Minute, 2*time.Hour) }},
		"CA that is none":          {"x.ca_file", func(w *watched) { write(w.t, w.caFile, "secret-4711") }},
		"CA whose file is missing": {"x.ca_file", func(w *watched) { require.NoError(w.t, os.Remove(w.caFile)) }},
		"CAs that end": {"x.ca_file", func(w *watched) {
			tlstest.Copy(w.t, w.caFile, w.ca.Path("ca.crt"))
			cutOff(w.t, w.caFile, w.ca2.Path("ca.crt"))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWatched(t)
			row.spoil(w)
			require.Empty(t, w.read(1), "the first read of it may be one between two steps")
			require.Equal(t, []string{row.key + " false"}, w.read(5))
			require.NotContains(t, fmt.Sprint(w.history), "4711", "no content is logged")
			require.Equal(t, "leaf-1", w.name())
			require.True(t, w.ca.Pool().Equal(w.client.Config().RootCAs))
			for _, source := range w.reloader.Sources() {
				require.Equal(t, source.Key() == row.key, source.Failing(), source.Key())
				require.Equal(t, source.Key() == row.key, source.Failures() == 1, source.Key())
			}
			// Another broken content is another change.
			replaceBy(t, w.key, func() error { return os.WriteFile(w.key, content(t, w.ca.Path("leaf.key")), 0o600) })
			broken := map[string]string{"x.cert_file": w.cert, "x.ca_file": w.caFile}[row.key]
			replaceBy(t, broken, func() error { return os.WriteFile(broken, []byte("others"), 0o600) })
			require.Equal(t, []string{row.key + " false"}, w.read(5))
			require.EqualValues(t, 2, w.source(row.key).Failures())

			w.pair(w.ca2, "leaf")
			tlstest.Copy(t, w.caFile, w.ca2.Path("ca.crt"))
			require.Equal(t, []string{"x.ca_file true", "x.cert_file true"}, w.read(5))
			require.Equal(t, "leaf-2", w.name())
			require.False(t, w.source(row.key).Failing())
			require.EqualValues(t, 2, w.source(row.key).Failures())
		})
	}
}

// TestRestoredFiles: the files in use, back in their place, end the failure.
func TestRestoredFiles(t *testing.T) {
	w := newWatched(t)
	write(t, w.cert, "broken")
	require.Equal(t, []string{"x.cert_file false"}, w.read(2))
	w.pair(w.ca, "leaf")
	require.Equal(t, []string{"x.cert_file true"}, w.read(2))
	require.False(t, w.source("x.cert_file").Failing())
	write(t, w.cert, "broken")
	require.Equal(t, []string{"x.cert_file false"}, w.read(2), "the same content is a change again")
}

// TestExpiry is that of the leaf, and of the last CA of a bundle: the one that a rotation leaves behind is no alarm.
func TestExpiry(t *testing.T) {
	w := newWatched(t)
	soon := time.Now().Add(10 * time.Minute).Truncate(time.Second)
	w.ca.Sign(t, "soon", "soon", soon)
	w.pair(w.ca, "soon")
	tlstest.Copy(t, w.caFile, w.ca.Path("soon.crt"), w.ca2.Path("ca.crt"))
	w.read(2)
	require.True(t, soon.Equal(w.source("x.cert_file").NotAfter()))
	require.WithinDuration(t, time.Now().Add(time.Hour), w.source("x.ca_file").NotAfter(), time.Minute)
}

// TestExpiredAtTheStart: podlink starts with it and says so, for its clock may be wrong.
func TestExpiredAtTheStart(t *testing.T) {
	w := newWatched(t)
	w.lifetime(-2*time.Hour, -time.Minute)
	log := new(recorder)
	_, err := New(Options{Log: log}).Client(ClientOptions{Cert: File{"x.cert_file", w.cert}, Key: File{"x.key_file", w.key}})
	require.NoError(t, err)
	require.Len(t, log.lines, 1)
	require.Contains(t, log.lines[0], "warn: x.cert_file: the certificate expired at ")
}

// TestUnusableAtTheStart: the error names the key, and no content.
func TestUnusableAtTheStart(t *testing.T) {
	w := newWatched(t)
	pipe := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	text := filepath.Join(t.TempDir(), "text")
	write(t, text, "secret-4711")
	for name, row := range map[string]struct{ ca, cert, key, want string }{
		"CA, no certificate":   {text, w.cert, w.key, "x.ca_file: no PEM certificate in the file"},
		"CA, a pipe":           {pipe, w.cert, w.key, "x.ca_file: " + pipe + " is not a regular file"},
		"CA, missing":          {"absent", w.cert, w.key, "x.ca_file: open absent"},
		"certificate, a pipe":  {w.caFile, pipe, w.key, "x.cert_file: " + pipe + " is not a regular file"},
		"key, missing":         {w.caFile, w.cert, "absent", "x.key_file: open absent"},
		"key, none":            {w.caFile, w.cert, text, "x.cert_file, x.key_file: "},
		"key of another":       {w.caFile, w.cert, w.ca.Path("other.key"), "x.cert_file, x.key_file: "},
		"certificate, no text": {w.caFile, text, w.key, "x.cert_file, x.key_file: "},
	} {
		t.Run(name, func(t *testing.T) {
			files := New(Options{Log: new(recorder)})
			ca, cert, key := File{"x.ca_file", row.ca}, File{"x.cert_file", row.cert}, File{"x.key_file", row.key}
			_, err := files.Client(ClientOptions{CA: ca, Cert: cert, Key: key})
			require.ErrorContains(t, err, row.want)
			require.NotContains(t, err.Error(), "4711")
			_, err = files.Server(ServerOptions{ClientCA: ca, Cert: cert, Key: key})
			require.ErrorContains(t, err, row.want)
		})
	}
}

// TestRun reads in each interval, with one goroutine that ends with its context.
func TestRun(t *testing.T) {
	w := newWatched(t)
	w.reloader.options.Interval = time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.reloader.Run(ctx) }()
	w.pair(w.ca2, "leaf")
	require.Eventually(t, func() bool { return w.name() == "leaf-2" }, time.Minute, time.Millisecond)
	cancel()
	require.NoError(t, <-ended)
}

// lifetime puts a certificate into the files that is valid in that time from now.
func (w *watched) lifetime(from, until time.Duration) {
	w.ca.Issue(w.t, "timed", &x509.Certificate{
		DNSNames: []string{"timed"}, NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(until),
	})
	w.pair(w.ca, "timed")
}

func content(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return text
}

func write(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}

// cutOff appends the first half of another file.
func cutOff(t *testing.T, path, other string) {
	t.Helper()
	half := content(t, other)
	write(t, path, string(content(t, path))+string(half[:len(half)/2]))
}

// replaceBy removes whatever has the path, and makes something else there.
func replaceBy(t *testing.T, path string, with func() error) {
	t.Helper()
	require.NoError(t, os.RemoveAll(path))
	require.NoError(t, with())
}
