package house

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// layers has, for each package that ends up in a program, the packages of podlink that it may import. Imports go downwards:
//
//	cmd -> app -> server -> service -> biz <- data -> rdb
//
// What a package does not import directly it does not reach: the table has no way upwards. A path ending in /... is that of all
// packages in a folder.
var layers = map[string][]string{
	"cmd/podlink": {
		"internal/app", "internal/audit", "internal/conf", "internal/telemetry", "internal/telemetry/lines", "internal/version",
	},
	"internal/app": {
		"internal/audit", "internal/auth", "internal/certs", "internal/biz", "internal/conf", "internal/data", "internal/jobs", "internal/rdb",
		"internal/rdb/embedded", "internal/registration",
		"internal/server", "internal/service", "internal/telemetry", "internal/version",
	},
	"internal/server": {
		"api/podlink/v1", "internal/audit", "internal/auth", "internal/certs", "internal/biz", "internal/conf",
		"internal/protofield", "internal/service", "internal/telemetry",
		"internal/telemetry/histogram", "internal/telemetry/lines", "internal/version",
	},
	"internal/service":      {"api/podlink/v1", "internal/auth", "internal/biz"},
	"internal/registration": {"internal/certs", "internal/conf"},
	"internal/telemetry": {
		"internal/biz", "internal/certs", "internal/conf", "internal/telemetry/histogram", "internal/telemetry/lines", "internal/version",
	},
	"internal/data": {"internal/biz", "internal/rdb"},

	"internal/auth":  {"internal/file"},
	"internal/audit": {"internal/auth", "internal/telemetry/lines"},
	"internal/certs": {"internal/file"},
	"internal/file":  {},

	"internal/biz":                 {},
	"internal/biz/biztest":         {"internal/biz"},
	"internal/jobs":                {"internal/biz"},
	"internal/rdb":                 {"internal/rdb/info", "internal/telemetry/histogram"},
	"internal/rdb/info":            {},
	"internal/rdb/embedded":        {"internal/rdb"},
	"internal/telemetry/histogram": {},
	"internal/telemetry/lines":     {},
	"internal/conf":                {"internal/certs", "internal/file", "internal/protofield"},
	"internal/protofield":          {},
	"internal/version":             {},

	"api/podlink/v1": {},
	"client":         {"api/podlink/v1", "internal/certs"},
	"examples/...":   {"api/podlink/v1", "client", "examples/..."},
}

// unlisted returns the imports that layers does not allow, and the packages that it does not know, given the imports of each
// package.
func unlisted(imports map[string][]string) []string {
	in := func(name string, list []string) bool {
		return slices.ContainsFunc(list, func(path string) bool {
			folder, isFolder := strings.CutSuffix(path, "...")
			return name == path || isFolder && strings.HasPrefix(name, folder)
		})
	}
	var found []string
	for name, imported := range imports {
		allowed, known := layers[name]
		for path := range layers {
			if !known && in(name, []string{path}) {
				allowed, known = layers[path], true
			}
		}
		if !known {
			found = append(found, name+" has no row in layers: which floor is it on?")
			continue
		}
		for _, other := range imported {
			if !in(other, allowed) {
				found = append(found, fmt.Sprintf("%s must not import %s", name, other))
			}
		}
	}
	slices.Sort(found)
	return found
}

// TestLayers: no package imports upwards, directly or through others.
func TestLayers(t *testing.T) {
	const module = "podlink/"
	list := exec.CommandContext(t.Context(), "go", "list", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`,
		module+"api/...", module+"client/...", module+"cmd/...", module+"examples/...", module+"internal/...")
	out, err := list.Output()
	require.NoError(t, err)
	imports := make(map[string][]string)
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		name := strings.TrimPrefix(words[0], module)
		imports[name] = nil
		for _, path := range words[1:] {
			if other, ok := strings.CutPrefix(path, module); ok {
				imports[name] = append(imports[name], other)
			}
		}
	}
	require.Contains(t, imports["internal/data"], "internal/rdb")
	require.Empty(t, unlisted(imports))
	for name := range layers {
		if !strings.HasSuffix(name, "...") {
			require.Contains(t, imports, name, "no such package")
		}
	}
}

// TestLayersFindsImportsUpwards in lists made for it.
func TestLayersFindsImportsUpwards(t *testing.T) {
	for name, bad := range map[string][]string{
		"internal/rdb":          {"internal/service", "internal/biz", "internal/telemetry", "internal/conf"},
		"internal/telemetry":    {"internal/data", "internal/rdb", "internal/server"},
		"internal/biz":          {"internal/telemetry", "internal/biz/biztest"},
		"internal/data":         {"internal/service", "internal/telemetry/histogram", "internal/rdb/embedded"},
		"internal/service":      {"internal/data", "internal/conf"},
		"internal/server":       {"internal/app", "internal/rdb"},
		"internal/registration": {"internal/server"},
		"client":                {"internal/biz", "test/kit/proc"},
		"examples/chat":         {"internal/conf", "examples"},
	} {
		for _, other := range bad {
			require.Equal(t, []string{name + " must not import " + other}, unlisted(map[string][]string{name: {other}}))
		}
	}
	require.Len(t, unlisted(map[string][]string{"internal/common": nil}), 1, "a package without a row")
	require.Empty(t, unlisted(map[string][]string{"examples/chat": {"examples/chat/internal/pod", "client"}}))
}
