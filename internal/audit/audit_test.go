package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"podlink/internal/auth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 10 * time.Second

// sheet is an output that can be read while it is written.
type sheet struct {
	mu     sync.Mutex
	text   bytes.Buffer
	broken bool
}

func (s *sheet) Write(lines []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken {
		return 0, errors.New("no space left on device")
	}
	return s.text.Write(lines)
}

func (s *sheet) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// records returns the lines, each as its keys and values.
func (s *sheet) records(t *testing.T) (all []map[string]any) {
	t.Helper()
	for line := range strings.Lines(s.String()) {
		var record map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &record), line)
		all = append(all, record)
	}
	return all
}

// open returns a log and where it is written.
func open(t *testing.T, o Options) (*Log, *sheet) {
	t.Helper()
	out := new(sheet)
	o.Out = out
	l, err := New(o)
	require.NoError(t, err)
	return l, out
}

// callOf returns the context of a call of an operator, with a trace.
func callOf(ctx context.Context, name string, right auth.Right) context.Context {
	ctx = trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{0xab, 1}, SpanID: trace.SpanID{1},
	}))
	return &auth.Call{
		Context: ctx, Identity: auth.Identity{Name: name, Pod: "chat-2"}, Peer: netip.MustParseAddrPort("192.0.2.7:4711"),
		Grant: auth.Grant{Right: right, Rule: "rules[2]"},
	}
}

var full = Record{
	Operation: "/podlink.v1.LinkService/SetLinkedPod", Namespace: "game", Service: "room", UID: "anna", Pod: PodOf(0),
	PreviousPod: PodOf(3), Epoch: 1_763_871_882_483_671, Outcome: "moved", Reason: "node broken", Detail: "by hand",
}

// TestLine: the keys and their order, which programs rely on.
func TestLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, out := open(t, Options{PlainUIDs: true})
		l.Changed(callOf(t.Context(), "token:ops", auth.Force), full)
		l.Changed(t.Context(), Record{Right: auth.Operate, Peer: "127.0.0.1:1"})
		l.Happened(t.Context(), Record{Operation: "reload", Outcome: "refused", Detail: "auth.policy_file"})
		require.NoError(t, l.Close(t.Context()))
		require.Equal(t, `{"time":"2000-01-01T00:00:00.000000Z","msg":"audit","event":"change","trace_id":"ab010000000000000000000000000000",`+
			`"identity":"token:ops","identity_pod":"chat-2","peer":"192.0.2.7:4711","operation":"/podlink.v1.LinkService/SetLinkedPod",`+
			`"right":"force","rule":"rules[2]","namespace":"game","service":"room","pod":0,"uid":"anna","previous_pod":3,`+
			`"epoch":1763871882483671,"outcome":"moved","reason":"node broken","detail":"by hand"}`+"\n"+
			`{"time":"2000-01-01T00:00:00.000000Z","msg":"audit","event":"change","peer":"127.0.0.1:1","right":"operate"}`+"\n"+
			`{"time":"2000-01-01T00:00:00.000000Z","msg":"audit","event":"event","operation":"reload","outcome":"refused",`+
			`"detail":"auth.policy_file"}`+"\n", out.String())
	})
}

// TestKeysAreDocumented: docs/security.md has each key of a line.
func TestKeysAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/security.md")
	require.NoError(t, err)
	_, section, found := strings.Cut(string(page), "\n## The audit log\n")
	require.True(t, found)
	section, _, _ = strings.Cut(section, "\n## ")
	var documented, written []string
	for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]*) \\|").FindAllStringSubmatch(section, -1) {
		for _, key := range strings.Split(row[1], ", ") {
			documented = append(documented, strings.Trim(key, "`"))
		}
	}
	l, out := open(t, Options{})
	l.Refused(callOf(t.Context(), "token:ops", auth.Force), full)
	require.NoError(t, l.Close(t.Context()))
	for key := range out.records(t)[0] {
		written = append(written, key)
	}
	require.ElementsMatch(t, written, documented)
}

// TestWhichChangesAreRecorded: by default those of operators.
func TestWhichChangesAreRecorded(t *testing.T) {
	for right := auth.None; right <= auth.Force; right++ {
		for _, all := range []bool{false, true} {
			l, out := open(t, Options{AllMutations: all})
			l.Changed(callOf(t.Context(), "token:ops", right), full)
			require.NoError(t, l.Close(t.Context()))
			want := all || right == auth.Operate || right == auth.Force
			require.Equal(t, want, out.String() != "", right)
			require.Equal(t, want, l.Wants(right))
		}
	}
}

// TestUIDs: a hash needs the key, is the same for all podlinks that have it, and is what docs/security.md says.
func TestUIDs(t *testing.T) {
	const key, uid = "a key of 16 bytes or more", "anna@example.org"
	uidOf := func(o Options) string {
		l, out := open(t, o)
		r := full
		r.UID = uid
		for range 2 { // The second takes the first one's hash again.
			l.Changed(callOf(t.Context(), "token:ops", auth.Force), r)
		}
		require.NoError(t, l.Close(t.Context()))
		records := out.records(t)
		require.Equal(t, records[0]["uid"], records[1]["uid"])
		require.Equal(t, o.PlainUIDs, strings.Contains(out.String(), uid))
		require.NotContains(t, out.String(), key)
		return records[0]["uid"].(string)
	}
	hashed := uidOf(Options{UIDKey: key})
	require.Regexp(t, `^[0-9a-f]{32}$`, hashed)
	require.Equal(t, hashed, uidOf(Options{UIDKey: key}))
	require.NotEqual(t, hashed, uidOf(Options{UIDKey: key + "."}))
	require.NotEqual(t, uidOf(Options{}), uidOf(Options{}), "a drawn key differs from process to process")
	require.Equal(t, uid, uidOf(Options{UIDKey: key, PlainUIDs: true}))
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		return
	}
	command := exec.CommandContext(t.Context(), openssl, "dgst", "-sha256", "-hmac", key)
	command.Stdin = strings.NewReader(uid)
	sum, err := command.Output()
	require.NoError(t, err)
	require.Contains(t, string(sum), "= "+hashed)
}

// TestNoCallerForgesALine: what callers choose stays within its value, and can't command a terminal.
func TestNoCallerForgesALine(t *testing.T) {
	for name, row := range map[string]struct{ text, want string }{
		"line feed":            {"a\n{\"event\":\"change\"}", `a\u000a{\"event\":\"change\"}`},
		"quote and backslash":  {`a"b\`, `a\"b\\`},
		"escape sequence":      {"\x1b[2Ja", `\u001b[2Ja`},
		"C1 control character": {"a\u009b31mb", `a\u009b31mb`},
		"delete":               {"a\x7f", `a\u007f`},
		"other direction":      {"a\u202eb", `a\u202eb`},
		"line separator":       {"a\u2028b", `a\u2028b`},
		"tag character":        {"a\U000E0041b", `a\udb40\udc41b`},
		"not UTF-8":            {"a\xffb", `a` + "\uFFFD" + `b`},
		"other alphabets":      {"Zoë 猫 🐈", "Zoë 猫 🐈"},
		"too long":             {strings.Repeat("x", maxText+1), strings.Repeat("x", maxText) + "…"},
		"cut in a character":   {strings.Repeat("x", maxText-1) + "é", strings.Repeat("x", maxText-1) + "…"},
	} {
		t.Run(name, func(t *testing.T) {
			l, out := open(t, Options{PlainUIDs: true})
			r := full
			r.UID, r.Reason, r.Namespace = row.text, row.text, row.text
			l.Changed(callOf(t.Context(), row.text, auth.Force), r)
			l.Refused(callOf(t.Context(), row.text, auth.None), r)
			require.NoError(t, l.Close(t.Context()))
			require.Equal(t, 2, strings.Count(out.String(), "\n"))
			for _, key := range []string{"uid", "reason", "namespace", "identity"} {
				require.Equal(t, 2, strings.Count(out.String(), `"`+key+`":"`+row.want+`"`), out.String())
			}
			for _, record := range out.records(t) {
				require.Equal(t, "moved", record["outcome"])
			}
		})
	}
}

// TestRefusals: the first of a caller at once, then one line a second with their number.
func TestRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, out := open(t, Options{PlainUIDs: true})
		refuse := func(ctx context.Context, outcome, peer string) {
			l.Refused(ctx, Record{Outcome: outcome, Peer: peer, UID: "anna"})
		}
		for range 100 {
			refuse(callOf(t.Context(), "token:a", auth.None), "PERMISSION_DENIED", "")
			refuse(callOf(t.Context(), "token:a", auth.None), "RATE_LIMITED", "")
			refuse(callOf(t.Context(), "token:b", auth.None), "PERMISSION_DENIED", "")
		}
		for port := range 100 { // The ports of a peer are one peer.
			refuse(t.Context(), "UNAUTHENTICATED", fmt.Sprintf("192.0.2.1:%d", port))
		}
		synctest.Wait()
		require.Len(t, out.records(t), 4, "the first of each")
		time.Sleep(time.Second)
		synctest.Wait()
		require.Len(t, out.records(t), 8)
		counts := make(map[string]float64)
		for _, record := range out.records(t) {
			who, _ := record["identity"].(string)
			counts[who+" "+record["outcome"].(string)] += record["count"].(float64)
			require.Equal(t, "refusal", record["event"])
		}
		require.Equal(t, map[string]float64{
			"token:a PERMISSION_DENIED": 100, "token:a RATE_LIMITED": 100, "token:b PERMISSION_DENIED": 100, " UNAUTHENTICATED": 100,
		}, counts)
		refuse(callOf(t.Context(), "token:a", auth.None), "PERMISSION_DENIED", "")
		require.NoError(t, l.Close(t.Context()), "with what is pending")
		require.Len(t, out.records(t), 9)
	})
}

// TestRefusalsOfTooManyCallers: a flood from many addresses is bounded in memory and in lines, and each refusal is counted.
func TestRefusalsOfTooManyCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, out := open(t, Options{})
		const flood = 10_000
		for i := range flood {
			l.Refused(t.Context(), Record{
				Outcome: "UNAUTHENTICATED", Peer: fmt.Sprintf("[2001:db8:0:%x::1]:443", i), Namespace: strings.Repeat("n", 1<<10),
			})
		}
		require.NoError(t, l.Close(t.Context()))
		records := out.records(t)
		require.Len(t, records, maxRefused+2)
		counted := 0.0
		for _, record := range records {
			counted += record["count"].(float64)
		}
		require.EqualValues(t, flood, counted)
		last := records[len(records)-1]
		require.Equal(t, "of other callers: too many are refused", last["detail"])
		require.NotContains(t, last, "peer")
		require.NotContains(t, last, "namespace")
	})
}

// TestStrangersHideNoCaller: however many strangers are refused, also from one host with many addresses, the refusals of a caller that is
// known get their line.
func TestStrangersHideNoCaller(t *testing.T) {
	l, out := open(t, Options{})
	for i := range 3 * maxRefused {
		l.Refused(t.Context(), Record{Outcome: "UNAUTHENTICATED", Peer: fmt.Sprintf("192.0.%d.%d:443", i/256, i%256)})
		l.Refused(t.Context(), Record{Outcome: "UNAUTHENTICATED", Peer: fmt.Sprintf("[2001:db8::%x]:443", i)})
	}
	l.Refused(callOf(t.Context(), "token:a", auth.None), Record{Outcome: "PERMISSION_DENIED", Namespace: "secret"})
	require.NoError(t, l.Close(t.Context()))
	known, host := 0, 0
	for _, record := range out.records(t) {
		if record["identity"] == "token:a" && record["namespace"] == "secret" {
			known++
		}
		if peer, _ := record["peer"].(string); strings.HasPrefix(peer, "[2001:db8::") {
			host++
		}
	}
	require.Equal(t, 1, known)
	require.LessOrEqual(t, host, 2, "an IPv6 network is one host: its first line, and the others'")
}

// TestLogThatIsNotWritten: no call waits, what does not fit is counted, and the log says how much.
func TestLogThatIsNotWritten(t *testing.T) {
	l, out := open(t, Options{PlainUIDs: true})
	out.mu.Lock()
	const count = 20_000
	ctx := callOf(t.Context(), "token:ops", auth.Force)
	for range count {
		l.Changed(ctx, full)
	}
	dropped := testutil.ToFloat64(l.dropped)
	require.Greater(t, dropped, 1000.0)
	require.InDelta(t, count, testutil.ToFloat64(l.counts[changed]), 0)
	out.mu.Unlock()
	require.NoError(t, l.Close(t.Context()))
	written, said := 0, 0.0
	for _, record := range out.records(t) {
		if record["operation"] != "audit" {
			written++
			continue
		}
		require.Equal(t, "dropped", record["outcome"])
		said += record["count"].(float64)
	}
	require.InDelta(t, dropped, said, 0)
	require.InDelta(t, count-dropped, written, 0)
}

// TestLogThatFails: a full disk loses lines, never a call.
func TestLogThatFails(t *testing.T) {
	l, out := open(t, Options{})
	out.mu.Lock()
	out.broken = true
	out.mu.Unlock()
	l.Changed(callOf(t.Context(), "token:ops", auth.Force), full)
	require.Eventually(t, func() bool { return testutil.ToFloat64(l.dropped) == 1 }, patience, time.Millisecond)
	require.NoError(t, l.Close(t.Context()))
}

// TestCloseIsBounded by its context.
func TestCloseIsBounded(t *testing.T) {
	l, out := open(t, Options{})
	out.mu.Lock()
	l.Changed(callOf(t.Context(), "token:ops", auth.Force), full)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	require.ErrorIs(t, l.Close(ctx), context.DeadlineExceeded)
	out.mu.Unlock()
	require.NoError(t, l.queue.Close(t.Context()))
	l.Changed(callOf(t.Context(), "token:ops", auth.Force), full)
	require.InDelta(t, 1, testutil.ToFloat64(l.dropped), 0, "a record after Close")
}

// TestFile: its owner alone can read it, and it can be rotated.
func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l, err := New(Options{File: path})
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
	ctx := callOf(t.Context(), "token:ops", auth.Force)
	lines := func(path string) int {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		return bytes.Count(text, []byte("\n"))
	}
	l.Changed(ctx, full)
	require.Eventually(t, func() bool { return lines(path) == 1 }, patience, time.Millisecond)
	require.NoError(t, os.Rename(path, path+".1"))
	l.Changed(ctx, full)
	require.Eventually(t, func() bool { return lines(path+".1") == 2 }, patience, time.Millisecond, "until it is opened again")
	require.NoError(t, l.Reopen())
	l.Changed(ctx, full)
	require.Eventually(t, func() bool { return lines(path) == 1 }, patience, time.Millisecond)

	require.NoError(t, os.Remove(path))
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	require.ErrorContains(t, l.Reopen(), "audit.file: ")
	l.Changed(ctx, full)
	require.NoError(t, l.Close(t.Context()))
	_, err = New(Options{File: path})
	require.ErrorContains(t, err, "audit.file: ")
}

// TestNoLog: without an audit log nothing happens.
func TestNoLog(t *testing.T) {
	var l *Log
	ctx := callOf(t.Context(), "token:ops", auth.Force)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		l.Changed(ctx, full)
		l.Refused(ctx, full)
		l.Happened(ctx, full)
	}))
	require.False(t, l.Wants(auth.Force))
	require.NoError(t, l.Reopen())
	require.NoError(t, l.Close(t.Context()))
	require.Zero(t, testutil.CollectAndCount(l))
}

// TestManyCallers: each record is written once, whole.
func TestManyCallers(t *testing.T) {
	l, out := open(t, Options{AllMutations: true})
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			ctx := callOf(t.Context(), "token:ops", auth.Bind)
			for range 500 {
				l.Changed(ctx, full)
			}
		})
	}
	callers.Wait()
	require.NoError(t, l.Close(t.Context()))
	require.Len(t, out.records(t), 8*500)
}

// BenchmarkChanged measures a record of a change, with a hashed uid.
func BenchmarkChanged(b *testing.B) {
	l, err := New(Options{Out: nowhere{}})
	require.NoError(b, err)
	ctx := callOf(b.Context(), "spiffe://example.org/operator", auth.Force)
	b.ReportAllocs()
	for b.Loop() {
		l.Changed(ctx, full)
	}
	require.NoError(b, l.Close(b.Context()))
}

type nowhere struct{}

func (nowhere) Write(lines []byte) (int, error) { return len(lines), nil }
