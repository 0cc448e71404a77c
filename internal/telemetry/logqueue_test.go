package telemetry

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"podlink/internal/conf"
)

// breaking fails at its first line.
type breaking struct {
	bytes.Buffer
	failed bool
}

func (b *breaking) Write(lines []byte) (int, error) {
	if !b.failed {
		b.failed = true
		return 0, errors.New("broken pipe")
	}
	return b.Buffer.Write(lines)
}

// TestLogQueueSaysWhatWasDropped in the configured format.
func TestLogQueueSaysWhatWasDropped(t *testing.T) {
	defer goleak.VerifyNone(t)
	for format, want := range map[string][]string{
		"json":    {`"level":"WARN","msg":"log lines were dropped: `, `"count":1}`},
		"console": {"level=WARN msg=\"log lines were dropped", "count=1"},
	} {
		t.Run(format, func(t *testing.T) {
			out := new(breaking)
			q := NewLogQueue(&conf.Log{Format: format}, out)
			fmt.Fprintln(q, "lost")
			require.Eventually(t, func() bool { return testutil.ToFloat64(q) == 1 }, 10*time.Second, time.Millisecond)
			fmt.Fprintln(q, "first")
			require.NoError(t, q.Close())
			for _, part := range want {
				require.Contains(t, out.String(), part)
			}
		})
	}
}

// TestCloseOfALogThatIsNotRead ends.
func TestCloseOfALogThatIsNotRead(t *testing.T) {
	defer goleak.VerifyNone(t)
	reader, writer := io.Pipe()
	q := NewLogQueue(&conf.Log{Format: "json"}, writer)
	fmt.Fprintln(q, "line")
	require.ErrorContains(t, q.Close(), "the log: ")
	require.NoError(t, reader.Close())
}
