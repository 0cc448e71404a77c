package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestImage: podlink with the image's environment does not start before one of the variables that the Dockerfile names says who may
// call it, and then it does.
func TestImage(t *testing.T) {
	dockerfile, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	require.NoError(t, err)
	image := regexp.MustCompile(`PODLINK_SERVER_\w+_ADDR=0\.0\.0\.0:\d+`).FindAllString(string(dockerfile), -1)
	require.Len(t, image, 3)
	open := regexp.MustCompile(`PODLINK_AUTH_ALLOW_INSECURE=true`).FindString(string(dockerfile))
	embedded := regexp.MustCompile(`PODLINK_DATA_REDIS_ALLOW_EMBEDDED=true`).FindString(string(dockerfile))
	for name, row := range map[string]struct {
		env  []string
		code int
		says string
	}{
		"as it is":           {nil, 2, "auth.mode must be required"},
		"with Redis":         {[]string{"PODLINK_DATA_REDIS_MODE=standalone"}, 2, "or set auth.allow_insecure to true"},
		"open, with Redis":   {[]string{"PODLINK_DATA_REDIS_MODE=standalone", open}, 0, "allow_insecure: true"},
		"open, to try it":    {[]string{open, embedded}, 0, "allow_insecure: true"},
		"open, and embedded": {[]string{open}, 2, "data.redis.allow_embedded"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out := command(t, "-check", append(slices.Clone(image), row.env...)...)
			require.Equal(t, row.code, code, out)
			require.Contains(t, out, row.says)
		})
	}
}
