package v1

import (
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// RightOf returns the least right that an operation needs, such as /podlink.v1.LinkService/GetLinkedPod;
// RIGHT_UNSPECIFIED if podlink.v1 has no such operation.
func RightOf(operation string) Right { return rights()[operation] }

var rights = sync.OnceValue(func() map[string]Right {
	found := make(map[string]Right)
	for _, method := range Methods() {
		found[Operation(method)] = rightOption(method)
	}
	return found
})

func rightOption(method protoreflect.MethodDescriptor) Right {
	right, _ := proto.GetExtension(method.Options(), E_Right).(Right)
	return right
}
