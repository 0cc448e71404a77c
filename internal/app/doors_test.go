package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"podlink/internal/audit"
	"podlink/internal/conf"
	"podlink/internal/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestWarningEachHour: a podlink that is open to the network says so at the start and every hour; others never do.
func TestWarningEachHour(t *testing.T) {
	for name, row := range map[string]struct {
		addr string
		want int
	}{"open": {"0.0.0.0:8000", 4}, "on loopback": {"127.0.0.1:8000", 0}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				config, lines := conf.Default(), new(bytes.Buffer)
				config.Server.Http.Addr = row.addr
				b := newBackground(config, doors{}, nil, server.NewDoorMetrics(), log.NewStdLogger(lines))
				ended := make(chan error, 1)
				go func() { ended <- b.Start(t.Context()) }()
				time.Sleep(3*time.Hour + time.Minute)
				require.NoError(t, b.Stop(t.Context()))
				require.NoError(t, <-ended)
				require.Equal(t, row.want, strings.Count(lines.String(), "server.http.addr 0.0.0.0:8000"), lines.String())
			})
		})
	}
}

// TestBackground: it ends with its context, with Stop, or with the first failure, and waits for all that it runs.
func TestBackground(t *testing.T) {
	failure := errors.New("broken")
	waits := func(ctx context.Context) error {
		<-ctx.Done()
		return nil
	}
	for name, row := range map[string]struct {
		run  []func(context.Context) error
		end  func(b *background, cancel context.CancelFunc)
		want error
	}{
		"nothing": {nil, func(*background, context.CancelFunc) {}, nil},
		"a stop": {
			[]func(context.Context) error{waits, waits}, func(b *background, _ context.CancelFunc) { _ = b.Stop(context.Background()) }, nil,
		},
		"its time": {[]func(context.Context) error{waits, waits}, func(_ *background, cancel context.CancelFunc) { cancel() }, nil},
		"a failure": {
			[]func(context.Context) error{waits, func(context.Context) error { return failure }}, func(*background, context.CancelFunc) {}, failure,
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			b := &background{run: row.run, stopped: make(chan struct{})}
			ended := make(chan error, 1)
			go func() { ended <- b.Start(ctx) }()
			row.end(b, cancel)
			require.ErrorIs(t, <-ended, row.want)
			require.NoError(t, b.Stop(ctx), "twice")
		})
	}
}

// TestReloads: a file that was read again has a line in the log and in the audit log, which says whether it is in force.
func TestReloads(t *testing.T) {
	lines, records := new(bytes.Buffer), filepath.Join(t.TempDir(), "audit.log")
	audited, err := audit.New(audit.Options{File: records})
	require.NoError(t, err)
	reloaded := reloads(log.NewHelper(log.NewStdLogger(lines)), audited)
	reloaded("auth.policy_file", nil)
	reloaded("auth.tokens_file", errors.New("auth.tokens_file: broken"))
	require.NoError(t, audited.Close(t.Context()))
	require.Contains(t, lines.String(), "auth.policy_file: the new content is in force")
	require.Contains(t, lines.String(), "the one before stays in force: auth.tokens_file: broken")
	text, err := os.ReadFile(records)
	require.NoError(t, err)
	var outcomes []string
	for line := range strings.Lines(string(text)) {
		var record struct{ Operation, Outcome, Detail string }
		require.NoError(t, json.Unmarshal([]byte(line), &record))
		require.Equal(t, "reload", record.Operation)
		outcomes = append(outcomes, record.Detail+" "+record.Outcome)
	}
	require.Equal(t, []string{"auth.policy_file applied", "auth.tokens_file refused"}, outcomes)
}
