package conf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"

	"podlink/internal/file"
	"podlink/internal/protofield"
)

// Load returns the defaults, overridden first by the YAML or JSON file or folder at path, unless that is empty, and then by
// environ, a list of name=value. An unknown key or variable, a value of the wrong type, a contradiction or an unusable TLS file is
// an error that names the YAML path. No error contains a value that can be a secret. Load opens no connection.
func Load(path string, environ []string) (*Bootstrap, error) {
	b := Default()
	if path != "" {
		if err := loadFiles(b, path); err != nil {
			return nil, fmt.Errorf("configuration %s: %w", path, err)
		}
	}
	if err := applyEnv(b.ProtoReflect(), environ); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if err := b.Validate(); err != nil {
		return nil, err
	}
	if err := b.checkFiles(); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return b, nil
}

// loadFiles applies a file, or the files of a folder in the order of their names.
func loadFiles(b *Bootstrap, path string) error {
	files, err := configFiles(path)
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := loadFile(b, file); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(file), err)
		}
	}
	return nil
}

func loadFile(b *Bootstrap, path string) error {
	switch filepath.Ext(path) {
	case ".yaml", ".yml", ".json":
	default:
		return errors.New("must be a .yaml, .yml or .json file")
	}
	text, err := file.Read(path, maxFileBytes)
	if err != nil {
		return err
	}
	values, err := parse(text)
	if err != nil {
		return err
	}
	return apply(b.ProtoReflect(), "", values)
}

// parse returns the only YAML document of a file.
func parse(text []byte) (map[string]any, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var values map[string]any
	if err := decoder.Decode(&values); err != nil && !errors.Is(err, io.EOF) {
		return nil, withoutContent(err)
	}
	if values == nil {
		return nil, errors.New("the file sets no key; write {} if the defaults are meant")
	}
	var second any
	switch err := decoder.Decode(&second); {
	case errors.Is(err, io.EOF):
		return values, nil
	case err != nil:
		return nil, withoutContent(err)
	default:
		return nil, errors.New("the file has a second YAML document, after a line of ---; podlink reads one")
	}
}

// quoted matches what the YAML parser quotes from a file.
var quoted = regexp.MustCompile("[`'\"][^\n]*[`'\"]")

// withoutContent returns the parser's error without what it quotes from the file, which can be a secret.
func withoutContent(err error) error {
	return errors.New(strings.ReplaceAll(quoted.ReplaceAllString(err.Error(), "…"), "\n", " "))
}

// keyPattern matches what may be a misspelled key.
var keyPattern = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,40}$`)

func under(path string) string {
	if path == "" {
		return ""
	}
	return " under " + path
}

// apply sets the fields of m from values. path is the YAML path of m.
func apply(m protoreflect.Message, path string, values map[string]any) error {
	for _, name := range sortedKeys(values) {
		key := strings.TrimPrefix(path+"."+name, ".")
		field := m.Descriptor().Fields().ByName(protoreflect.Name(name))
		if field == nil && !keyPattern.MatchString(name) {
			return fmt.Errorf("a key%s is not a known one", under(path)) // Perhaps a file of secrets: it is not quoted.
		}
		if field == nil {
			return fmt.Errorf("%s is not a known key", key)
		}
		if err := applyValue(m, field, key, values[name]); err != nil {
			return err
		}
	}
	return nil
}

func applyValue(m protoreflect.Message, field protoreflect.FieldDescriptor, key string, value any) error {
	switch v := value.(type) {
	case map[string]any:
		switch {
		case field.IsList():
			return fmt.Errorf("%s must be a list", key)
		case !isSection(field):
			return fmt.Errorf("%s must be a single value", key)
		}
		return apply(m.Mutable(field).Message(), key, v)
	case []any:
		if !field.IsList() {
			return fmt.Errorf("%s must not be a list", key)
		}
		return applyList(m, field, key, v)
	}
	switch {
	case isSection(field) && !field.IsList():
		return fmt.Errorf("%s must be a section with keys", key)
	case field.IsList():
		return fmt.Errorf("%s must be a list", key)
	case value == nil:
		return fmt.Errorf("%s has no value", key)
	}
	// Text that looks like a number, such as a password of digits, needs quotes.
	text, isText := value.(string)
	if err := refusePlaceholder(key, key, text); err != nil {
		return err
	}
	isDuration := protofield.IsDuration(field)
	switch wantsText := field.Kind() == protoreflect.StringKind; {
	case isDuration && !isText:
		return fmt.Errorf("%s must be a duration such as 30s", key)
	case wantsText && !isText:
		return fmt.Errorf("%s must be text; put it in quotes", key)
	case isText && !wantsText && !isDuration:
		return fmt.Errorf("%s must be of type %s; remove the quotes", key, field.Kind())
	}
	if !isText {
		text = fmt.Sprint(value)
	}
	if err := protofield.Set(m, field, text); err != nil {
		return fmt.Errorf("%s %w", key, err)
	}
	return nil
}

func applyList(m protoreflect.Message, field protoreflect.FieldDescriptor, key string, values []any) error {
	list := m.NewField(field).List()
	for i, value := range values {
		element := fmt.Sprintf("%s[%d]", key, i)
		if field.Message() != nil {
			values, ok := value.(map[string]any)
			if !ok {
				return fmt.Errorf("%s must be a section with keys", element)
			}
			if err := apply(list.AppendMutable().Message(), element, values); err != nil {
				return err
			}
			continue
		}
		text, ok := value.(string)
		if !ok {
			return fmt.Errorf("%s must be text", element)
		}
		if err := refusePlaceholder(element, key, text); err != nil {
			return err
		}
		list.Append(protoreflect.ValueOfString(text))
	}
	m.Set(field, protoreflect.ValueOfList(list))
	return nil
}

// placeholder matches ${NAME} and ${NAME:default}, which Kratos fills from the environment.
var placeholder = regexp.MustCompile(`\$\{[^{}]*\}`)

// refusePlaceholder returns an error for a text with a placeholder: podlink has variables for all keys instead, and a password
// that is sent as ${REDIS_PASSWORD} is refused much later.
func refusePlaceholder(path, key, text string) error {
	if !placeholder.MatchString(text) {
		return nil
	}
	return fmt.Errorf("%s has a placeholder of the form ${NAME}, which podlink does not fill; set %s instead",
		path, EnvPrefix+strings.ToUpper(strings.ReplaceAll(key, ".", "_")))
}
