package conf

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"podlink/internal/protofield"
)

// masked is what YAML and errors show instead of a secret.
const masked = "***"

// YAML returns the configuration as a file for -conf, in the order of conf.proto. Secrets are masked.
func (b *Bootstrap) YAML() (string, error) {
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(section(b.ProtoReflect())); err != nil {
		return "", err
	}
	return out.String(), encoder.Close()
}

func section(m protoreflect.Message) *yaml.Node {
	node := &yaml.Node{Kind: yaml.MappingNode}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		name := &yaml.Node{Kind: yaml.ScalarNode, Value: string(field.Name())}
		node.Content = append(node.Content, name, valueNode(field, m.Get(field)))
	}
	return node
}

func valueNode(field protoreflect.FieldDescriptor, value protoreflect.Value) *yaml.Node {
	switch {
	case field.IsList():
		list := &yaml.Node{Kind: yaml.SequenceNode}
		if value.List().Len() == 0 {
			list.Style = yaml.FlowStyle
		}
		for i := range value.List().Len() {
			if isSection(field) {
				list.Content = append(list.Content, section(value.List().Get(i).Message()))
				continue
			}
			list.Content = append(list.Content, textNode(field, value.List().Get(i).String()))
		}
		return list
	case isSection(field):
		return section(value.Message())
	case protofield.IsDuration(field):
		return &yaml.Node{Kind: yaml.ScalarNode, Value: value.Message().Interface().(*durationpb.Duration).AsDuration().String()}
	case field.Kind() == protoreflect.StringKind:
		return textNode(field, value.String())
	case field.Kind() == protoreflect.DoubleKind:
		return &yaml.Node{Kind: yaml.ScalarNode, Value: strconv.FormatFloat(value.Float(), 'g', -1, 64)}
	default:
		return &yaml.Node{Kind: yaml.ScalarNode, Value: value.String()}
	}
}

func textNode(field protoreflect.FieldDescriptor, text string) *yaml.Node {
	node := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: visible(field, text)}
	var other any
	if yaml.Unmarshal([]byte(node.Value), &other) != nil || other != node.Value {
		node.Style = yaml.DoubleQuotedStyle // Without quotes a parser takes it for another type.
	}
	return node
}

// visible returns the text without secrets: all of a secret, except the name of a name=value, and the credentials of a URL.
func visible(field protoreflect.FieldDescriptor, text string) string {
	switch {
	case text == "" || !isSecret(field):
		return maskCredentials(text)
	case field.IsList():
		name, _, _ := strings.Cut(text, "=")
		return name + "=" + masked
	default:
		return masked
	}
}

// unmasked rejects secrets that are what YAML shows instead of one: they come from an output of -check that is used as a file.
func (v *violations) unmasked(m protoreflect.Message, path string) {
	const why = "is %s, which -check prints instead of a secret: set the secret itself"
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		key := path + string(field.Name())
		switch {
		case isSection(field) && field.IsList(): // No section of a list has a secret.
		case isSection(field):
			v.unmasked(m.Get(field).Message(), key+".")
		case !isSecret(field):
		case field.IsList():
			for j := range m.Get(field).List().Len() {
				if _, value, _ := strings.Cut(m.Get(field).List().Get(j).String(), "="); value == masked {
					v.add(fmt.Sprintf("%s[%d]", key, j), why, masked)
				}
			}
		case m.Get(field).String() == masked:
			v.add(key, why, masked)
		}
	}
}

// credentials matches a user and password before the host of a URL or address.
var credentials = regexp.MustCompile(`[^\s"/]+@`)

func maskCredentials(text string) string { return credentials.ReplaceAllString(text, masked+"@") }
