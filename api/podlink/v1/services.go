// Package v1 is the API podlink.v1: generated messages, gRPC and HTTP bindings and errors, and the list of its services.
package v1

import (
	"cmp"
	"fmt"
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// Services returns the API's services, sorted by name: every service of the proto package podlink.v1. Nobody has to list
// them, so nobody can forget one.
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

// Operation returns the method's name in gRPC and in Kratos, as in /podlink.v1.LinkService/GetLinkedPod.
func Operation(method protoreflect.MethodDescriptor) string {
	return fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name())
}
