package data

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"podlink/internal/rdb"

	"github.com/stretchr/testify/require"
)

// contractScripts are the scripts that the contract names; none of them may be missing.
var contractScripts = []string{
	"statefulSetLink", "statefulTrySetLink", "statefulSetLinkIfAbsent", "statefulComputeLinkIfAbsent",
	"statefulGetLinkIfPersist", "statefulRemoveLink", "statefulRemoveLinkWithId", "statefulGetLinkService",
	"statefulSetState", "statefulGetService", "statefulGetServicePod",
}

// The commands that scripts use, by what they do to a key. A new one has to be put here first.
var (
	readCommands  = []string{"HGET", "HGETALL", "HLEN", "HMGET", "TIME"}
	writeCommands = []string{"HSET", "HDEL", "PERSIST", "PEXPIREAT"}
)

func TestEveryScriptIsKnown(t *testing.T) {
	var listed []string
	for _, sc := range scripts {
		listed = append(listed, sc.Name)
	}
	require.Subset(t, listed, contractScripts)
	require.Len(t, slices.Compact(slices.Sorted(slices.Values(listed))), len(listed), "each once")

	files, err := luaFiles.ReadDir("lua")
	require.NoError(t, err)
	var found []string
	for _, file := range files {
		if name, isScript := strings.CutSuffix(file.Name(), ".lua"); isScript {
			found = append(found, name)
		}
	}
	require.ElementsMatch(t, listed, found, "every file is a script, and the other way round")

	var inTable, inSelfTest []string
	for _, run := range scriptRuns {
		inTable = append(inTable, run.script.Name)
	}
	for _, step := range selfTestSteps {
		inSelfTest = append(inSelfTest, step.Script.Name)
	}
	require.Subset(t, inTable, listed)
	require.Subset(t, inSelfTest, listed)

	libraries, err := luaFiles.ReadDir("lua/lib")
	require.NoError(t, err)
	for _, library := range libraries {
		text := luaText(t, "lib/"+strings.TrimSuffix(library.Name(), ".lua"))
		require.True(t, slices.ContainsFunc(scripts, func(sc *rdb.Script) bool {
			return strings.Contains(sc.Source(), text)
		}), "nobody needs %s", library.Name())
	}
}

func TestHeaderSaysWhatTheBodyDoes(t *testing.T) {
	for _, sc := range scripts {
		t.Run(sc.Name, func(t *testing.T) {
			text := luaText(t, sc.Name)
			header := parseHeader(text)
			body := withoutComments(text)
			reached := reachable(body, withoutComments(strings.Replace(withLibraries(text), text, "", 1)))

			require.True(t, strings.HasPrefix(text, "-- "+sc.Name+" "), "the header begins with the script's name")
			require.Equal(t, documentedInputs(header), matches(`\b(?:KEYS|ARGV)\[\d+\]`, reached), "KEYS and ARGV")
			require.Contains(t, reached, "KEYS[1]")
			require.NotContains(t, reached, "KEYS[2]", "one mutation is one script on one key")

			commands := callees(reached)
			writes := false
			for _, command := range commands {
				write := slices.Contains(writeCommands, command)
				require.True(t, write || slices.Contains(readCommands, command), "%s: read or write?", command)
				writes = writes || write
			}
			access := map[bool]string{false: "read", true: "write"}[writes]
			require.Equal(t, []string{access}, header["Access"], "it calls %s", commands)
			require.Equal(t, writes, sc.Access == rdb.Write)

			require.Equal(t, documentedStatuses(header), statuses(body), "statuses")
			require.Len(t, header["Repeat"], 1)
		})
	}
}

// luaText returns a Lua file.
func luaText(t *testing.T, name string) string {
	t.Helper()
	text, err := luaFiles.ReadFile("lua/" + name + ".lua")
	require.NoError(t, err)
	return string(text)
}

var commentPattern = regexp.MustCompile(`(?m)--.*$`)

func withoutComments(text string) string { return commentPattern.ReplaceAllString(text, "") }

// matches returns what the pattern finds, sorted and each once.
func matches(pattern, text string) []string {
	found := make(map[string]bool)
	for _, match := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		found[match[len(match)-1]] = true
	}
	return slices.Sorted(maps.Keys(found))
}

// The top level of a library: functions, and variables with what they are set to.
var (
	functionPattern = regexp.MustCompile(`(?ms)^local function (\w+)\(.*?^end$`)
	variablePattern = regexp.MustCompile(`(?m)^local ([\w, ]+?) = (.+)$`)
	wordPattern     = regexp.MustCompile(`\w+`)
)

// reachable returns the body with everything of the library that it uses, directly or through something else.
func reachable(body, library string) string {
	definitions := make(map[string]string)
	for _, function := range functionPattern.FindAllStringSubmatch(library, -1) {
		definitions[function[1]] = function[0]
	}
	for _, variable := range variablePattern.FindAllStringSubmatch(functionPattern.ReplaceAllString(library, ""), -1) {
		// Of several names each counts as all the values.
		for name := range strings.SplitSeq(variable[1], ", ") {
			definitions[name] = variable[2]
		}
	}
	// What stands outside of functions runs in every script.
	reached := body + variablePattern.ReplaceAllString(functionPattern.ReplaceAllString(library, ""), "")
	for {
		more := ""
		for _, word := range wordPattern.FindAllString(reached, -1) {
			more += definitions[word] + "\n"
			delete(definitions, word)
		}
		if strings.TrimSpace(more) == "" {
			return reached
		}
		reached += more
	}
}

const calleePattern = `\bp?call\('(\w+)'`

func callees(text string) []string { return matches(calleePattern, text) }

// documentedInputs are the KEYS and ARGV that a header explains.
func documentedInputs(header map[string][]string) []string {
	var inputs []string
	for label := range header {
		if strings.HasPrefix(label, "KEYS[") || strings.HasPrefix(label, "ARGV[") {
			inputs = append(inputs, label)
		}
	}
	slices.Sort(inputs)
	return inputs
}

// statuses are the words in capitals that a body answers with.
func statuses(body string) []string {
	return matches(`'([A-Z][A-Z_]+)'`, regexp.MustCompile(calleePattern).ReplaceAllString(body, ""))
}

// documentedStatuses are those that a header explains.
func documentedStatuses(header map[string][]string) []string {
	return matches(`(?m)^([A-Z_]+)`, strings.Join(header["Reply"], "\n"))
}
