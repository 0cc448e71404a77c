package conf

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"podlink/internal/file"
	"podlink/internal/protofield"
)

const (
	// EnvPrefix is the prefix of environment variables that override keys: PODLINK_DATA_REDIS_PASSWORD is data.redis.password.
	EnvPrefix = "PODLINK_"
	// fileSuffix makes the name of a secret's variable the name of the variable with the path of its file.
	fileSuffix = "_FILE"
)

// serviceLink matches the variables that Kubernetes sets in every container for each service whose name begins with podlink.
var serviceLink = regexp.MustCompile(
	`^` + EnvPrefix + `([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// variable is an environment variable that sets a key.
type variable struct {
	message  protoreflect.Message
	field    protoreflect.FieldDescriptor
	fromFile bool // its value is the path of a file with the key's value
}

// variables returns all environment variables of the keys of m, by name.
func variables(m protoreflect.Message, prefix string) map[string]variable {
	known := make(map[string]variable)
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		name := prefix + strings.ToUpper(string(field.Name()))
		switch {
		case isSection(field) && field.IsList():
			continue // A list of sections is set in the file alone.
		case isSection(field):
			maps.Copy(known, variables(m.Mutable(field).Message(), name+"_"))
			continue
		}
		known[name] = variable{m, field, false}
		if isSecret(field) {
			known[name+fileSuffix] = variable{m, field, true}
		}
	}
	return known
}

// isSection reports whether the field is a message with keys.
func isSection(field protoreflect.FieldDescriptor) bool {
	return field.Message() != nil && !protofield.IsDuration(field)
}

// isSecret reports whether the field is marked as one in conf.proto.
func isSecret(field protoreflect.FieldDescriptor) bool {
	options, ok := field.Options().(*descriptorpb.FieldOptions)
	return ok && options.GetDebugRedact()
}

// applyEnv sets the fields of m from the variables of environ, a list of name=value. A variable with the prefix that names no
// key is an error, unless it is one that Kubernetes sets: a misspelled one would leave a default in force.
func applyEnv(m protoreflect.Message, environ []string) error {
	known, given := variables(m, EnvPrefix), Pairs(environ)
	for _, name := range sortedKeys(given) {
		if !strings.HasPrefix(name, EnvPrefix) {
			continue
		}
		v, ok := known[name]
		if !ok {
			if serviceLink.MatchString(name) {
				continue
			}
			return fmt.Errorf("%s is not a known variable; the nearest is %s", name, nearest(name, slices.Sorted(maps.Keys(known))))
		}
		if err := v.set(name, given); err != nil {
			return fmt.Errorf("%s %w", name, err)
		}
	}
	return nil
}

// set sets the key. Its errors are phrased to follow the variable's name, and do not contain a file's content.
func (v variable) set(name string, given map[string]string) error {
	if !v.fromFile {
		return protofield.Set(v.message, v.field, given[name])
	}
	direct := strings.TrimSuffix(name, fileSuffix)
	if _, both := given[direct]; both {
		return fmt.Errorf("must not be set together with %s", direct)
	}
	if given[name] == "" {
		return fmt.Errorf("must be the path of a file")
	}
	content, err := file.Read(given[name], maxSecretBytes)
	if err != nil {
		return fmt.Errorf("can't be read: %w", err)
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
	if text == "" {
		return fmt.Errorf("can't be used: %s is empty", given[name])
	}
	return protofield.Set(v.message, v.field, text)
}

// nearest returns the shortest candidate that has all words of name, in their order: a section is easily left out. Without one it
// returns the candidate that the fewest edits turn into name.
func nearest(name string, candidates []string) string {
	best, fewest := "", 0
	for _, candidate := range candidates {
		n := edits(name, candidate)
		if hasWords(candidate, name) {
			n = len(candidate) - len(name) - maxNameLen // Before all others.
		}
		if best == "" || n < fewest {
			best, fewest = candidate, n
		}
	}
	return best
}

// maxNameLen is longer than the name of any variable.
const maxNameLen = 1000

// hasWords reports whether the words of name are among those of candidate, in their order.
func hasWords(candidate, name string) bool {
	words := strings.Split(name, "_")
	for _, word := range strings.Split(candidate, "_") {
		if len(words) > 0 && word == words[0] {
			words = words[1:]
		}
	}
	return len(words) == 0
}

// edits returns the Levenshtein distance: how many characters to insert, remove or replace.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
