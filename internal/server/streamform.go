package server

import (
	"bytes"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	v1 "podlink/api/podlink/v1"
)

// streamForm is how the messages of a stream look over HTTP.
type streamForm struct {
	contentType string
	// begin writes what comes before the first message.
	begin func(b *bytes.Buffer)
	// message and failure write a message with its token, and the error with which the stream ends. Both are JSON.
	message func(b *bytes.Buffer, token string, data []byte)
	failure func(b *bytes.Buffer, data []byte)
	// resumes: browsers open the stream again by themselves, with a header that says where it goes on.
	resumes bool
}

// eventRetry is how long browsers wait before they open a stream again.
const eventRetry = time.Second

// streamForms are the values of the option of streaming rpcs.
var streamForms = map[v1.HttpStream]*streamForm{
	v1.HttpStream_EVENTS: {
		contentType: "text/event-stream",
		begin:       func(b *bytes.Buffer) { fmt.Fprintf(b, "retry: %d\n\n", eventRetry.Milliseconds()) },
		message: func(b *bytes.Buffer, token string, data []byte) {
			if token != "" {
				fmt.Fprintf(b, "id: %s\n", token)
			}
			writeEvent(b, "message", data)
		},
		failure: func(b *bytes.Buffer, data []byte) { writeEvent(b, "failure", data) },
		resumes: true,
	},
	v1.HttpStream_LINES: {
		contentType: "application/x-ndjson",
		begin:       func(*bytes.Buffer) {},
		message:     func(b *bytes.Buffer, _ string, data []byte) { fmt.Fprintf(b, "%s\n", data) },
		failure:     func(b *bytes.Buffer, data []byte) { fmt.Fprintf(b, "{\"failure\":%s}\n", data) },
	},
}

func writeEvent(b *bytes.Buffer, event string, data []byte) {
	fmt.Fprintf(b, "event: %s\ndata: %s\n\n", event, data)
}

// formOf returns the form of a streaming rpc.
func formOf(method protoreflect.MethodDescriptor) *streamForm {
	form, _ := proto.GetExtension(method.Options(), v1.E_HttpStream).(v1.HttpStream)
	return streamForms[form]
}
