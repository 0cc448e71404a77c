package data

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"podlink/internal/rdb"

	"github.com/stretchr/testify/require"

	redistest "podlink/test/kit/redis"
)

// contractScripts are the scripts that the contract requires.
var contractScripts = []string{
	"statefulSetLink", "statefulTrySetLink", "statefulSetLinkIfAbsent", "statefulComputeLinkIfAbsent",
	"statefulGetLinkIfPersist", "statefulRemoveLink", "statefulRemoveLinkWithId", "statefulGetLinkService",
	"statefulSetState", "statefulGetService", "statefulGetServicePod",
}

// The commands of the scripts, by their access to the key. A new command must be added here.
var (
	readCommands = []string{
		"GET", "HGET", "HGETALL", "HLEN", "HMGET", "TIME", "XREVRANGE", "ZCARD", "ZCOUNT", "ZRANGEBYSCORE", "ZREVRANGEBYSCORE", "ZSCORE",
	}
	writeCommands = []string{
		"DEL", "HDEL", "HINCRBY", "HSET", "PERSIST", "PEXPIRE", "PEXPIREAT", "SADD", "SET", "XADD", "XTRIM", "ZADD", "ZREM",
		"ZREMRANGEBYLEX",
	}
)

func TestEveryScriptIsKnown(t *testing.T) {
	var listed []string
	for _, sc := range scripts {
		listed = append(listed, sc.Name)
	}
	require.Subset(t, listed, contractScripts)
	require.Len(t, slices.Compact(slices.Sorted(slices.Values(listed))), len(listed), "each once")

	require.ElementsMatch(t, listed, luaFiles(t, "lua"), "every file is a script, and every script has a file")
	require.ElementsMatch(t, listed, luaFiles(t, "lua/assembled"), "every script is assembled, and nothing else; run make generate")

	var inTable, inSelfTest []string
	for _, run := range scriptRuns {
		inTable = append(inTable, run.script.Name)
	}
	for _, step := range selfTestSteps {
		inSelfTest = append(inSelfTest, step.Script.Name)
	}
	require.Subset(t, inTable, listed)
	require.Subset(t, inSelfTest, listed)

	for _, library := range luaFiles(t, "lua/lib") {
		require.True(t, slices.ContainsFunc(scripts, func(sc *rdb.Script) bool {
			_, needed := partsOf(sc)["lib/"+library+".lua"]
			return needed
		}), "no script needs %s", library)
	}
}

// luaFiles returns the names of the Lua files in a folder.
func luaFiles(t *testing.T, folder string) []string {
	t.Helper()
	files, err := os.ReadDir(folder)
	require.NoError(t, err)
	var found []string
	for _, file := range files {
		if name, ok := strings.CutSuffix(file.Name(), ".lua"); ok {
			found = append(found, name)
		}
	}
	return found
}

func TestHeaderSaysWhatTheBodyDoes(t *testing.T) {
	for _, sc := range scripts {
		t.Run(sc.Name, func(t *testing.T) {
			text, own := headerText(sc), partsOf(sc)[sc.Name+".lua"]
			header := parseHeader(text)
			body, library := withoutComments(own), withoutComments(strings.Replace(sc.Source(), own, "", 1))
			reached := reachable(body, library)

			require.True(t, strings.HasPrefix(text, "-- "+sc.Name+" "), "the header begins with the script's name")
			require.Equal(t, documentedInputs(header), matches(`\b(?:KEYS|ARGV)\[\d+\]`, reached), "KEYS and ARGV")
			require.Contains(t, reached, "KEYS[1]")
			require.NotContains(t, reached, "KEYS[2]", "one mutation is one script on one key")

			require.Empty(t, hiddenCalls(withoutComments(sc.Source())), "write call('COMMAND'")
			commands := callees(reached)
			writes := false
			for _, command := range commands {
				write := slices.Contains(writeCommands, command)
				require.True(t, write || slices.Contains(readCommands, command), "%s: read or write?", command)
				writes = writes || write
			}
			access := map[bool]string{false: "read", true: "write"}[writes]
			require.Equal(t, []string{access}, header["Access"], "it calls %s", commands)
			require.Equal(t, writes, sc.Access != rdb.Read)

			possible := append(documentedStatuses(header), matches(`(?m)^([A-Z_]+)`, strings.Join(header["Never"], "\n"))...)
			require.ElementsMatch(t, possible, statuses(body, library), "statuses")
			require.Len(t, header["Repeat"], 1)
		})
	}
}

// TestHeaderAgreesWithTheList: the headers of the Lua files have the kind and the access that Go uses.
func TestHeaderAgreesWithTheList(t *testing.T) {
	for _, sc := range scripts {
		require.Empty(t, disagreements(sc), sc.Name)
	}
	for name, wrong := range map[string]struct {
		script *rdb.Script
		change func(sc *rdb.Script)
		want   string
	}{
		"a write that is called a read":   {scriptSetLink, func(sc *rdb.Script) { sc.Access = rdb.Read }, "Access"},
		"a read that is called a write":   {scriptGetLink, func(sc *rdb.Script) { sc.Access = rdb.Write }, "Access"},
		"another kind of key":             {scriptSetState, func(sc *rdb.Script) { sc.KeyKind = keyLink }, "KEYS[1]"},
		"a write without confirmation":    {scriptSetLink, func(sc *rdb.Script) { sc.Access = rdb.WriteUnconfirmed }, "Confirm"},
		"a reservation with confirmation": {scriptReservePod, func(sc *rdb.Script) { sc.Access = rdb.Write }, "Confirm"},
	} {
		changed := *wrong.script
		wrong.change(&changed)
		require.Contains(t, strings.Join(disagreements(&changed), "\n"), wrong.want, name)
	}
}

// disagreements returns the labels of the header that differ from scripts.go.
func disagreements(sc *rdb.Script) []string {
	header := parseHeader(headerText(sc))
	access := map[bool]string{false: "read", true: "write"}[sc.Access != rdb.Read]
	confirmed := header["Access"][0] == "write" && header["Confirm"] == nil
	var found []string
	for _, row := range []struct{ label, header, list string }{
		{"Access", strings.Join(header["Access"], ", "), access},
		{"KEYS[1]", strings.Split(header["KEYS[1]"][0], ":")[1], sc.KeyKind},
		{"Confirm", fmt.Sprint(confirmed), fmt.Sprint(sc.Access == rdb.Write)},
	} {
		if row.header != row.list {
			found = append(found, fmt.Sprintf("%s: %s in the header, %s in the list", row.label, row.header, row.list))
		}
	}
	return found
}

// TestErrorsNameTheLineOfTheFile: files are embedded unchanged, so a line number in an error of Redis is a line of the file.
func TestErrorsNameTheLineOfTheFile(t *testing.T) {
	for _, sc := range scripts {
		file, err := os.ReadFile("lua/assembled/" + sc.Name + ".lua")
		require.NoError(t, err)
		require.Equal(t, string(file), sc.Source(), sc.Name)
	}
	client := redistest.Start(t).Client(t)
	for name, row := range map[string]struct {
		script *rdb.Script
		args   []any
		line   string
	}{
		"at the end of a long script": {scriptSetLink, []any{"a", "no number", 1, most}, "latest = string.sub(now, 1, -4) + left * 1000"},
		"in the script itself":        {scriptSetWorkload, nil, "call('HSET', KEYS[1], 'state', ARGV[1], 'update_ms', update)"},
		"in a function":               {scriptGetServicePod, []any{"x"}, "local member = at_score(integer(-pod - 2))"},
	} {
		t.Run(name, func(t *testing.T) {
			err := client.Eval(t.Context(), row.script.Source(), []string{"key"}, row.args...).Err()
			require.Error(t, err)
			found := regexp.MustCompile(`@user_script:(\d+)\.`).FindStringSubmatch(err.Error())
			require.NotNil(t, found, "%v", err)
			number, err := strconv.Atoi(found[1])
			require.NoError(t, err)
			require.Contains(t, strings.Split(row.script.Source(), "\n")[number-1], row.line)
		})
	}
}

// partPattern matches the line before a part of an assembled script, which names its source file.
var partPattern = regexp.MustCompile(`(?m)^-- === (\S+) ===$`)

// partsOf returns the parts of the embedded script by source file.
func partsOf(sc *rdb.Script) map[string]string {
	parts := make(map[string]string)
	begins := partPattern.FindAllStringSubmatchIndex(sc.Source(), -1)
	for i, begin := range begins {
		end := len(sc.Source())
		if i+1 < len(begins) {
			end = begins[i+1][0]
		}
		parts[sc.Source()[begin[2]:begin[3]]] = sc.Source()[begin[1]:end]
	}
	return parts
}

// headerText returns the header of the embedded script: the comment after the "Code generated" line.
func headerText(sc *rdb.Script) string {
	_, rest, _ := strings.Cut(sc.Source(), "\n\n")
	header, _, _ := strings.Cut(rest, "\n\n")
	return header
}

// parseHeader returns the texts of the lines "-- Label: text" of a header, by label and in order.
func parseHeader(text string) map[string][]string {
	header := make(map[string][]string)
	for line := range strings.Lines(text) {
		if label, value, ok := strings.Cut(strings.TrimPrefix(line, "--"), ": "); ok {
			label = strings.TrimSpace(label)
			header[label] = append(header[label], strings.TrimSpace(value))
		}
	}
	return header
}

var commentPattern = regexp.MustCompile(`(?m)--.*$`)

func withoutComments(text string) string { return commentPattern.ReplaceAllString(text, "") }

// matches returns the distinct matches of the pattern, sorted.
func matches(pattern, text string) []string {
	found := make(map[string]bool)
	for _, match := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		found[match[len(match)-1]] = true
	}
	return slices.Sorted(maps.Keys(found))
}

// The top level of a library: functions, and variables with their values.
var (
	functionPattern = regexp.MustCompile(`(?ms)^local function (\w+)\(.*?^end$`)
	variablePattern = regexp.MustCompile(`(?m)^local ([\w, ]+?) = (.+)$`)
	wordPattern     = regexp.MustCompile(`\w+`)
)

// reachable returns the body and all of the library that it uses, directly or indirectly.
func reachable(body, library string) string {
	definitions := make(map[string]string)
	for _, function := range functionPattern.FindAllStringSubmatch(library, -1) {
		definitions[function[1]] = function[0]
	}
	for _, variable := range variablePattern.FindAllStringSubmatch(functionPattern.ReplaceAllString(library, ""), -1) {
		// With several names, each gets all the values.
		for name := range strings.SplitSeq(variable[1], ", ") {
			definitions[name] = variable[2]
		}
	}
	// Code outside functions runs in every script.
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

// The words by which a script reaches commands: as callees sees them, and all.
var (
	plainCallPattern = regexp.MustCompile(`\b(?:redis\.)?` + calleePattern + `[,)]|(?m)^local call = redis\.call$|\bredis\.error_reply\(`)
	callWordPattern  = regexp.MustCompile(`\b(?:redis|p?call|xpcall|loadstring|getfenv|setfenv|_G)\b|\bload\s*\(`)
)

// hiddenCalls returns the lines with a call that callees does not see: one that is not written call('WORD'.
func hiddenCalls(text string) []string {
	var found []string
	for line := range strings.Lines(plainCallPattern.ReplaceAllString(text, "")) {
		if callWordPattern.MatchString(line) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

func TestHiddenCallsAreFound(t *testing.T) {
	for _, hidden := range []string{
		`call("HSET", KEYS[1], 'a', 1)`, `redis.call("HSET", KEYS[1], 'a', 1)`, `redis.pcall("HSET", KEYS[1])`, `call ('HSET', KEYS[1])`,
		`call('HS' .. 'ET', KEYS[1])`, `call(command, KEYS[1])`, `call[[HSET]]`, `call'HSET'`, `call{'HSET'}`, `local call = redis.call or nil`,
		`local c = redis.call`, `local c = call`, `redis['call']('HSET', KEYS[1])`, `local r = redis`, `pcall(write, KEYS[1])`,
		`_G.redis.set()`, `loadstring(ARGV[1])()`, `load(read)()`, `call('HGET', KEYS[1]); call("HSET", KEYS[1])`,
	} {
		require.Len(t, hiddenCalls("local a = 1\n"+hidden+"\n"), 1, hidden)
	}
	for _, plain := range []string{
		`call('HGET', KEYS[1])`, `local call = redis.call`, `if redis.pcall('HSET', call('HGET', KEYS[1])) then`, `recall(callee)`,
		`local load = decode(value)`, `return redis.error_reply('PODLINK')`,
	} {
		require.Empty(t, hiddenCalls(plain), plain)
	}
}

// TestReadsDoNotWrite: Redis itself refuses a write of a script that is marked as a read. The embedded store is no judge: there
// TIME counts as a write.
func TestReadsDoNotWrite(t *testing.T) {
	store := openStore(t, onServer(redistest.Start(t).Addr()))
	err := store.client.EvalRO(t.Context(), `redis.call("HSET", KEYS[1], 'a', 1)`, []string{"key"}).Err()
	require.ErrorContains(t, err, "Write commands are not allowed", "a write is found")
	for _, run := range scriptRuns {
		if run.script.Access != rdb.Read {
			continue
		}
		key := store.keyOf(t, run.script)
		replies := run.prepare(t, store, key)
		err := store.client.EvalRO(t.Context(), run.script.Source(), []string{key}, resolve(run.args, replies)...).Err()
		require.NoError(t, err, "%s %s", run.script.Name, run.name)
	}
}

func callees(text string) []string { return matches(calleePattern, text) }

// documentedInputs returns the KEYS and ARGV of a header.
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

// statuses returns the statuses in a body: its strings in capitals; and those that the library sets or returns.
func statuses(body, library string) []string {
	own := regexp.MustCompile(calleePattern).ReplaceAllString(body, "")
	set := strings.Join(regexp.MustCompile(`(?:status(?:, \w+)* = |return \{)'[A-Z_]+'`).FindAllString(library, -1), "\n")
	return matches(`'([A-Z][A-Z_]+)'`, own+set)
}

// documentedStatuses returns the statuses of a header.
func documentedStatuses(header map[string][]string) []string {
	return matches(`(?m)^([A-Z_]+)`, strings.Join(header["Reply"], "\n"))
}
