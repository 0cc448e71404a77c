package info

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestField(t *testing.T) {
	const text = "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\n\r\n# Replication\r\nrole:master\r\nslave0:ip=::1,port=1"
	for name, want := range map[string]string{
		"redis_version": "7.0.15", "run_id": "abc", "role": "master", "slave0": "ip=::1,port=1", "id": "", "absent": "",
	} {
		require.Equal(t, want, Field(text, name), name)
	}
	require.Empty(t, Field("", "role"))
}
