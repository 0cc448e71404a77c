package server

import (
	"net/http"
	"sync"

	"github.com/maypok86/otter/v2"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/service"
)

const (
	// jsonPods is the number of pods whose JSON is kept.
	jsonPods = 1024
	// maxBuffer is the size of the largest buffer that is used again, in bytes.
	maxBuffer = 64 << 10
)

// buffers are those of replies that were written: a reply grows its buffer several times otherwise.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// replyEncoder writes replies as JSON, including fields without a value, whatever the Accept header says.
//
// It keeps the JSON of pods: each compute describes a pod, which takes as long to encode as the rest of the request takes,
// and the service returns the same message while the pod has not changed.
type replyEncoder struct {
	pods *otter.Cache[*v1.Pod, []byte]
}

func newReplyEncoder() replyEncoder {
	return replyEncoder{otter.Must(&otter.Options[*v1.Pod, []byte]{MaximumSize: jsonPods})}
}

func (e replyEncoder) encode(w http.ResponseWriter, _ *http.Request, reply any) error {
	buffer := buffers.Get().(*[]byte)
	text, err := e.append((*buffer)[:0], reply)
	if err != nil {
		return service.Internal(err)
	}
	w.Header().Set("Content-Type", "application/json")
	_, err = w.Write(text)
	if cap(text) <= maxBuffer {
		*buffer = text
		buffers.Put(buffer)
	}
	return err
}

// append appends the JSON of the reply.
func (e replyEncoder) append(text []byte, reply any) ([]byte, error) {
	computed, ok := reply.(*v1.ComputeLinkedPodReply)
	if !ok || computed.GetPod() == nil {
		return appendJSON(text, reply)
	}
	pod, err := e.pod(computed.GetPod())
	if err != nil {
		return nil, err
	}
	text, err = appendJSON(text, &v1.ComputeLinkedPodReply{
		Outcome: computed.GetOutcome(), Link: computed.GetLink(), PreviousPodId: computed.GetPreviousPodId(),
	})
	if err != nil {
		return nil, err
	}
	text = append(text[:len(text)-len("}")], `,"pod":`...)
	text = append(text, pod...)
	return append(text, '}'), nil
}

// pod returns the JSON of a message that nobody changes.
func (e replyEncoder) pod(pod *v1.Pod) ([]byte, error) {
	if text, ok := e.pods.GetIfPresent(pod); ok {
		return text, nil
	}
	text, err := appendJSON(nil, pod)
	if err != nil {
		return nil, err
	}
	e.pods.Set(pod, text)
	return text, nil
}

func appendJSON(text []byte, message any) ([]byte, error) {
	return protojson.MarshalOptions{EmitDefaultValues: true}.MarshalAppend(text, message.(proto.Message))
}
