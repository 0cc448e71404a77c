// Package v1 is the API podlink.v1: generated messages, gRPC and HTTP bindings, error helpers, and a list of its services.
package v1

import (
	"cmp"
	"fmt"
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// Services returns every service of the proto package podlink.v1, sorted by name. It uses the registry of descriptors, so
// that no list of services can become stale.
func Services() []protoreflect.ServiceDescriptor {
	var found []protoreflect.ServiceDescriptor
	protoregistry.GlobalFiles.RangeFilesByPackage("podlink.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			found = append(found, file.Services().Get(i))
		}
		return true
	})
	slices.SortFunc(found, func(a, b protoreflect.ServiceDescriptor) int { return cmp.Compare(a.FullName(), b.FullName()) })
	return found
}

// Methods returns the methods of all services.
func Methods() []protoreflect.MethodDescriptor {
	var found []protoreflect.MethodDescriptor
	for _, service := range Services() {
		for i := range service.Methods().Len() {
			found = append(found, service.Methods().Get(i))
		}
	}
	return found
}

// Operation returns the full name of the method in gRPC and Kratos, such as /podlink.v1.LinkService/GetLinkedPod.
func Operation(method protoreflect.MethodDescriptor) string {
	return fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name())
}
