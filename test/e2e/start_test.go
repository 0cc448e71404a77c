package e2e

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	redistest "podlink/test/kit/redis"
)

// TestRefusedStarts: podlink exits at once where it must not run.
func TestRefusedStarts(t *testing.T) {
	redis := redistest.Start(t)
	require.NoError(t, redis.Client(t).Set(t.Context(), "podlink:layout", "another", 0).Err())
	for name, row := range map[string]struct {
		env  []string
		code int
		want string
	}{
		"a store with an unknown layout": {onRedis(redis), 1, `its key podlink:layout says \"another\", and this podlink knows \"2\"`},
		"an unusable CA file": {
			append(onRedis(redis), "PODLINK_DATA_REDIS_TLS_ENABLED=true", "PODLINK_DATA_REDIS_TLS_CA_FILE=absent.pem"),
			2, "configuration: data.redis.tls.ca_file: open absent.pem",
		},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(binary)
			cmd.Env = append(append(os.Environ(), row.env...),
				"PODLINK_SERVER_HTTP_ADDR=127.0.0.1:0", "PODLINK_SERVER_GRPC_ADDR=127.0.0.1:0", "PODLINK_SERVER_ADMIN_ADDR=127.0.0.1:0")
			out, err := cmd.CombinedOutput()
			require.Error(t, err)
			require.Equal(t, row.code, cmd.ProcessState.ExitCode(), string(out))
			require.Contains(t, string(out), row.want)
		})
	}
	require.EqualValues(t, 1, redis.Client(t).DBSize(t.Context()).Val(), "nothing was written")
}
