package protofield_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/conf"
	"podlink/internal/protofield"
)

func TestSet(t *testing.T) {
	for name, row := range map[string]struct {
		message proto.Message
		field   protoreflect.Name
		text    string
		want    string // the message as JSON
		err     string
	}{
		"string":              {&v1.Link{}, "uid", "a b", `{"uid":"a b"}`, ""},
		"string not UTF-8":    {&v1.Link{}, "uid", "\xff", "", "must be valid UTF-8"},
		"bool":                {&v1.GetServiceStateRequest{}, "live_only", "true", `{"liveOnly":true}`, ""},
		"bool false":          {&v1.GetServiceStateRequest{}, "live_only", "false", `{"liveOnly":false}`, ""},
		"bool as a number":    {&v1.GetServiceStateRequest{}, "live_only", "1", "", "must be true or false"},
		"int32":               {&v1.Link{}, "pod_id", "-1", `{"podId":-1}`, ""},
		"int32 too large":     {&v1.Link{}, "pod_id", "2147483648", "", "must be an integer of 32 bits"},
		"int32 with a point":  {&v1.Link{}, "pod_id", "1.0", "", "must be an integer of 32 bits"},
		"int32 with a plus":   {&v1.Link{}, "pod_id", "+1", "", "must be an integer of 32 bits"},
		"int32 with zeros":    {&v1.Link{}, "pod_id", "00", "", "must be an integer of 32 bits"},
		"int32 empty":         {&v1.Link{}, "pod_id", "", "", "must be an integer of 32 bits"},
		"int64":               {&v1.Link{}, "epoch", "9223372036854775807", `{"epoch":"9223372036854775807"}`, ""},
		"int64 too large":     {&v1.Link{}, "epoch", "9223372036854775808", "", "must be an integer of 64 bits"},
		"duration":            {&conf.State{}, "pod_ttl", "1m30s", `{"podTtl":"90s"}`, ""},
		"duration, no unit":   {&conf.State{}, "pod_ttl", "30", "", "must be a duration such as 500ms or 30s"},
		"list":                {&conf.Data_Redis{}, "addrs", "a:1, b:2", `{"addrs":["a:1","b:2"]}`, ""},
		"another message":     {&v1.GetLinkedPodReply{}, "link", "{}", "", "can't be set from text"},
		"enum":                {&v1.Pod{}, "routing", "READY", "", "can't be set from text"},
		"list of messages":    {&v1.GetServiceStateReply{}, "pods", "a", "", "can't be set from text"},
		"map of text to text": {&v1.BatchGetWorkloadStateReply{}, "states", "a", "", "can't be set from text"},
	} {
		t.Run(name, func(t *testing.T) {
			m := row.message.ProtoReflect()
			err := protofield.Set(m, m.Descriptor().Fields().ByName(row.field), row.text)
			if row.err != "" {
				require.EqualError(t, err, row.err)
				require.True(t, proto.Equal(row.message, m.New().Interface()), "a rejected text changed the message")
				return
			}
			require.NoError(t, err)
			got, err := protojson.Marshal(row.message)
			require.NoError(t, err)
			require.JSONEq(t, row.want, string(got))
		})
	}
}
