package server

import (
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
)

// TestEncodeReply: a reply whose pod's JSON is kept says the same as one that is encoded as a whole.
func TestEncodeReply(t *testing.T) {
	encoder := newReplyEncoder()
	pod := &v1.Pod{PodId: 7, State: `quoted "up"`, Capacity: proto.Int32(0), Labels: map[string]string{"zone": "a"}}
	for name, reply := range map[string]proto.Message{
		"with a pod": &v1.ComputeLinkedPodReply{
			Outcome: v1.ComputeLinkedPodReply_EXISTING, Link: &v1.Link{PodId: 7}, PreviousPodId: 7, Pod: pod,
		},
		"another link": &v1.ComputeLinkedPodReply{
			Outcome: v1.ComputeLinkedPodReply_CREATED, Link: &v1.Link{Uid: "b"}, PreviousPodId: -1, Pod: pod,
		},
		"an equal pod":     &v1.ComputeLinkedPodReply{Pod: proto.CloneOf(pod)},
		"without a pod":    &v1.ComputeLinkedPodReply{Link: &v1.Link{PodId: -1}},
		"without anything": &v1.ComputeLinkedPodReply{},
		"another reply":    &v1.GetServicePodReply{Pod: pod},
	} {
		t.Run(name, func(t *testing.T) {
			before := proto.CloneOf(reply)
			w := httptest.NewRecorder()
			require.NoError(t, encoder.encode(w, nil, reply))
			want, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(before)
			require.NoError(t, err)
			require.JSONEq(t, string(want), w.Body.String())
			require.Equal(t, "application/json", w.Header().Get("Content-Type"))
			require.True(t, proto.Equal(before, reply), "the reply is not changed: others may hold it")
		})
	}
	require.EqualValues(t, 2, encoder.pods.EstimatedSize())
}
