package conf

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/go-kratos/kratos/v2/config/file"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"

	"podlink/internal/protofield"
)

// EnvPrefix is the prefix of environment variables that override keys: PODLINK_DATA_REDIS_PASSWORD is data.redis.password.
const EnvPrefix = "PODLINK_"

// Load returns the defaults, overridden first by the YAML or JSON file or folder at path, unless that is empty, and then by the
// environment. An unknown key, a value of the wrong type or a contradiction is an error that names the YAML path. No error
// contains a value that can be a secret.
func Load(path string, lookupEnv func(string) (string, bool)) (*Bootstrap, error) {
	b := Default()
	if path != "" {
		if err := loadFiles(b, path); err != nil {
			return nil, fmt.Errorf("configuration %s: %w", path, err)
		}
	}
	if err := applyEnv(b.ProtoReflect(), EnvPrefix, lookupEnv); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if err := b.Validate(); err != nil {
		return nil, err
	}
	return b, b.checkFiles()
}

// loadFiles applies a file, or the files of a folder in the order of their names.
func loadFiles(b *Bootstrap, path string) error {
	files, err := file.NewSource(path).Load()
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return errors.New("the folder has no configuration file")
	}
	for _, f := range files {
		switch ext := filepath.Ext(f.Key); ext {
		case ".yaml", ".yml", ".json":
		default:
			return fmt.Errorf("%s: must be a .yaml, .yml or .json file", f.Key)
		}
		var values map[string]any
		if err := yaml.Unmarshal(f.Value, &values); err != nil {
			return fmt.Errorf("%s: %w", f.Key, err)
		}
		if err := apply(b.ProtoReflect(), "", values); err != nil {
			return fmt.Errorf("%s: %w", f.Key, err)
		}
	}
	return nil
}

// apply sets the fields of m from values. path is the YAML path of m.
func apply(m protoreflect.Message, path string, values map[string]any) error {
	for _, name := range sortedKeys(values) {
		key := strings.TrimPrefix(path+"."+name, ".")
		field := m.Descriptor().Fields().ByName(protoreflect.Name(name))
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
	section := field.Message() != nil && !protofield.IsDuration(field)
	switch v := value.(type) {
	case map[string]any:
		if !section {
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
	case section:
		return fmt.Errorf("%s must be a section with keys", key)
	case field.IsList():
		return fmt.Errorf("%s must be a list", key)
	case value == nil:
		return fmt.Errorf("%s has no value", key)
	}
	// Text that looks like a number, such as a password of digits, needs quotes.
	text, isText := value.(string)
	if wantsText := field.Kind() == protoreflect.StringKind || protofield.IsDuration(field); wantsText && !isText {
		return fmt.Errorf("%s must be text; put it in quotes", key)
	} else if !wantsText && isText {
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
		text, ok := value.(string)
		if !ok {
			return fmt.Errorf("%s[%d] must be text", key, i)
		}
		list.Append(protoreflect.ValueOfString(text))
	}
	m.Set(field, protoreflect.ValueOfList(list))
	return nil
}

// applyEnv sets every field of m that has an environment variable. Other variables with the prefix are ignored: Kubernetes sets
// some for a service named podlink.
func applyEnv(m protoreflect.Message, prefix string, lookup func(string) (string, bool)) error {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		name := prefix + strings.ToUpper(string(field.Name()))
		if field.Message() != nil && !protofield.IsDuration(field) {
			if err := applyEnv(m.Mutable(field).Message(), name+"_", lookup); err != nil {
				return err
			}
			continue
		}
		if text, ok := lookup(name); ok {
			if err := protofield.Set(m, field, text); err != nil {
				return fmt.Errorf("%s %w", name, err)
			}
		}
	}
	return nil
}
