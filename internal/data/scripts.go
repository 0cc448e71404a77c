package data

import (
	"embed"
	"path"
	"strings"

	"podlink/internal/rdb"
)

//go:embed lua
var luaFiles embed.FS

// The scripts; each works on one key.
var (
	scriptSetLink       = mustScript("statefulSetLink")
	scriptTrySetLink    = mustScript("statefulTrySetLink")
	scriptSetIfAbsent   = mustScript("statefulSetLinkIfAbsent")
	scriptComputeLink   = mustScript("statefulComputeLinkIfAbsent")
	scriptGetLink       = mustScript("statefulGetLink")
	scriptGetPersist    = mustScript("statefulGetLinkIfPersist")
	scriptRemoveLink    = mustScript("statefulRemoveLink")
	scriptRemoveWithID  = mustScript("statefulRemoveLinkWithId")
	scriptGetServices   = mustScript("statefulGetLinkService")
	scriptSetState      = mustScript("statefulSetState")
	scriptGetService    = mustScript("statefulGetService")
	scriptGetServicePod = mustScript("statefulGetServicePod")
	scriptRemoveState   = mustScript("statefulRemoveState")
	scriptReservePod    = mustScript("statefulReservePod")
	scriptReleasePod    = mustScript("statefulReleasePod")
	scriptSetWorkload   = mustScript("statefulSetWorkload")
)

// scripts lists every script.
var scripts = []*rdb.Script{
	scriptSetLink, scriptTrySetLink, scriptSetIfAbsent, scriptComputeLink, scriptGetLink, scriptGetPersist,
	scriptRemoveLink, scriptRemoveWithID, scriptGetServices, scriptSetState, scriptGetService, scriptGetServicePod,
	scriptRemoveState, scriptReservePod, scriptReleasePod, scriptSetWorkload,
}

// mustScript reads an embedded script. The files are part of the binary: a fault in one is a fault of the build, found by
// the first test.
func mustScript(name string) *rdb.Script {
	text := mustRead("lua/" + name + ".lua")
	header := parseHeader(text)
	access := rdb.Access(header["Access"][0] == "write")
	confirmed := access == rdb.Write && header["Confirm"] == nil
	return rdb.NewScript(name, strings.Split(header["KEYS[1]"][0], ":")[1], access, confirmed, withLibraries(text))
}

// withLibraries puts the libraries that a header needs before the text, and those that are to follow behind it, each with
// its own and each once.
func withLibraries(text string) string {
	return assemble(text, make(map[string]bool))
}

func assemble(text string, seen map[string]bool) string {
	header := parseHeader(text)
	var parts strings.Builder
	add := func(libraries []string) {
		for _, library := range libraries {
			if !seen[library] {
				seen[library] = true
				parts.WriteString(assemble(mustRead(path.Join("lua/lib", library+".lua")), seen))
			}
		}
	}
	add(header["Needs"])
	parts.WriteString(text)
	add(header["Then"])
	return parts.String()
}

func mustRead(file string) string {
	text, err := luaFiles.ReadFile(file)
	if err != nil {
		panic(err) //nolint:forbidigo // The binary lacks a part of itself.
	}
	return string(text)
}

// parseHeader returns what the lines "-- Label: text" before the body say, by label and in order.
func parseHeader(source string) map[string][]string {
	header := make(map[string][]string)
	for line := range strings.Lines(source) {
		text, comment := strings.CutPrefix(strings.TrimSpace(line), "--")
		if !comment {
			break
		}
		if label, value, ok := strings.Cut(text, ": "); ok {
			label = strings.TrimSpace(label)
			header[label] = append(header[label], strings.TrimSpace(value))
		}
	}
	return header
}
