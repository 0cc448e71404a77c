package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/biz"
	"podlink/internal/service"
)

// countedIndex is an IndexRepo whose walk has so many parts of one link each; 0: it has no end.
type countedIndex struct {
	biz.IndexRepo // Exports only scans.

	parts int
	uid   string // what every uid begins with
	fail  error
}

// ScanLinks implements biz.IndexRepo.
func (x *countedIndex) ScanLinks(_ context.Context, namespace, token string, _ int) ([]biz.Link, string, error) {
	at, _ := strconv.Atoi(token)
	key := biz.LinkKey{Namespace: namespace, UID: x.uid + strconv.Itoa(at), Service: "svc"}
	at++
	next := strconv.Itoa(at)
	if at == x.parts {
		next = ""
	}
	return []biz.Link{{Key: key, Pod: 2, TTL: biz.Forever, Epoch: 5}}, next, x.fail
}

// serveExports serves exports of the index, a part in a millisecond.
func serveExports(t *testing.T, access *Access, index *countedIndex) *watchedServer {
	t.Helper()
	p := newParts(t)
	p.config.Stop.Drain.Reset()
	p.drain = NewDrain(p.config)
	p.fleet = service.NewFleetService(nil, nil, biz.NewExports(index, 1_000_000), nil)
	w := &watchedServer{observedServer: serveGuarded(t, access, p)}
	plain := httptest.NewUnstartedServer(w.http)
	plain.Config.ReadTimeout, plain.Config.WriteTimeout = 300*time.Millisecond, 300*time.Millisecond // Of requests.
	t.Cleanup(plain.Close)
	plain.Start()
	w.url = plain.URL
	return w
}

// exportOver opens an export of ns and svc by each transport, and returns what reads its next message, or how it has ended.
var exportOver = map[string]func(t *testing.T, w *watchedServer, resume string) func() (*v1.ExportLinksReply, error){
	"grpc": func(t *testing.T, w *watchedServer, resume string) func() (*v1.ExportLinksReply, error) {
		t.Helper()
		request := &v1.ExportLinksRequest{Namespace: "ns", Service: "svc", ResumeToken: resume}
		stream, err := v1.NewFleetServiceClient(w.conn).ExportLinks(as(t, "chat"), request)
		require.NoError(t, err)
		return stream.Recv
	},
	"http": func(t *testing.T, w *watchedServer, resume string) func() (*v1.ExportLinksReply, error) {
		t.Helper()
		path := w.url + "/v1/namespaces/ns/links:export?service=svc&resumeToken=" + resume
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody)
		require.NoError(t, err)
		request.Header.Set("Authorization", "Bearer chat")
		request.Header.Set(lastEventID, "not for lines")
		reply, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		t.Cleanup(func() { _ = reply.Body.Close() })
		require.Equal(t, http.StatusOK, reply.StatusCode)
		require.Equal(t, "application/x-ndjson", reply.Header.Get("Content-Type"))
		require.Equal(t, "no-store", reply.Header.Get("Cache-Control"))
		return linesOf(reply.Body)
	},
}

// linesOf returns what reads the next line of an export.
func linesOf(body io.Reader) func() (*v1.ExportLinksReply, error) {
	lines := bufio.NewReader(body)
	return func() (*v1.ExportLinksReply, error) {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return nil, err
		}
		var last struct{ Failure *errorBody }
		if err := json.Unmarshal(line, &last); err != nil {
			return nil, err
		}
		if last.Failure != nil {
			return nil, errors.New(last.Failure.Reason)
		}
		m := new(v1.ExportLinksReply)
		return m, protojson.Unmarshal(line, m)
	}
}

// TestExportLinks: every transport sends all messages, for longer than a request may take, and goes on after a token.
func TestExportLinks(t *testing.T) {
	const parts = 600
	for over, open := range exportOver {
		t.Run(over, func(t *testing.T) {
			w := serveExports(t, nil, &countedIndex{parts: parts})
			next, token := open(t, w, ""), ""
			for i := range parts {
				m, err := next()
				require.NoError(t, err)
				require.Equal(t, strconv.Itoa(i), m.GetLinks()[0].GetUid())
				require.Equal(t, i == parts-1, m.GetDone())
				if i == parts-2 {
					token = m.GetToken()
				}
			}
			_, err := next()
			require.ErrorIs(t, err, io.EOF)
			m, err := open(t, w, token)()
			require.NoError(t, err)
			text, err := appendJSON(nil, m)
			require.NoError(t, err)
			require.JSONEq(t, `{"links":[{"namespace":"ns","uid":"599","service":"svc","podId":2,"persistent":true,"ttlSeconds":-1,"epoch":"5",
				"claim":"0"}],"restart":"RESTART_UNSPECIFIED","token":"","done":true}`, string(text))
			require.Eventually(t, func() bool { return len(w.spans.Ended()) == 2 }, 10*time.Second, time.Millisecond)
		})
	}
}

// TestExportIsEnded by podlink: when it drains, and when the policy has changed. Over HTTP the last line says why.
func TestExportIsEnded(t *testing.T) {
	for name, row := range map[string]struct {
		end    func(w *watchedServer, door *changingDoor)
		code   codes.Code
		reason string
	}{
		"drain":  {func(w *watchedServer, _ *changingDoor) { _ = w.drain.Run(context.Background()) }, codes.Canceled, "CANCELED"},
		"policy": {func(_ *watchedServer, door *changingDoor) { door.denied.Store(true) }, codes.PermissionDenied, "PERMISSION_DENIED"},
	} {
		for over, open := range exportOver {
			t.Run(name+" over "+over, func(t *testing.T) {
				door := new(changingDoor)
				w := serveExports(t, NewAccess(door, door, 1e6, nil), new(countedIndex))
				next := open(t, w, "")
				_, err := next()
				require.NoError(t, err)
				row.end(w, door)
				for err == nil {
					_, err = next()
				}
				if over == "grpc" {
					require.Equal(t, row.code, status.Code(err), err)
				} else {
					require.EqualError(t, err, row.reason)
				}
			})
		}
	}
}

// TestExportRefusals: before the first message an error is an ordinary reply.
func TestExportRefusals(t *testing.T) {
	for _, row := range []struct {
		name, query, reason string
		fail                error
		code                int
	}{
		{"a bad service", "service=a:b", "INVALID_ARGUMENT", nil, 400},
		{"a bad token", "resumeToken=%3F", "INVALID_ARGUMENT", nil, 400},
		{"an unknown parameter", "pageSize=1", "INVALID_ARGUMENT", nil, 400},
		{"no store", "", "STORE_UNAVAILABLE", biz.ErrStoreUnavailable, 503},
	} {
		w := serveExports(t, admitting(guests{}), &countedIndex{fail: row.fail})
		code, _, body := ask(t, w.url, http.MethodGet, "/v1/namespaces/ns/links:export?"+row.query, "Bearer chat")
		require.Equal(t, row.code, code, row.name)
		require.Contains(t, body, row.reason, row.name)
	}
}

// TestExportIsTakenInTime: a caller that does not read the lines is cut off, and the stream ends.
func TestExportIsTakenInTime(t *testing.T) {
	w := serveExports(t, nil, &countedIndex{uid: strings.Repeat("u", 1<<16)})
	_, err := exportOver["http"](t, w, "")()
	require.NoError(t, err)
	require.Eventually(t, func() bool { return len(w.spans.Ended()) == 1 }, 6*writeTimeout, 20*time.Millisecond)
}
