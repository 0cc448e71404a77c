package server

import (
	"regexp"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/auth"
)

// What a call costs of its caller's rate.
const (
	readPrice  = 1
	writePrice = 2
	listPrice  = 50
	// entriesPerUnit is how many entries of a batch cost one.
	entriesPerUnit = 20
)

// price is what a call costs of its caller's rate.
type price struct {
	base    int                            // known before the call is decoded
	entries []protoreflect.FieldDescriptor // of a batch: lists, of which the longest counts
	report  bool                           // it is paid from the bucket for reports
	right   auth.Right                     // the least that the call needs
}

// unknownPrice is that of a request that matches no operation.
var unknownPrice = &price{base: readPrice}

// prices are the prices of all operations.
type prices struct {
	byOperation map[string]*price
	byRequest   map[protoreflect.MessageDescriptor]*price // No two operations share a request.
}

// ofMany matches the operations whose cost grows with how much there is, and streams, which cost as long as they last.
var ofMany = regexp.MustCompile(`^(List|Count|Export|Watch)`)

func pricesOf(methods []protoreflect.MethodDescriptor) prices {
	all := prices{make(map[string]*price), make(map[protoreflect.MessageDescriptor]*price)}
	for _, method := range methods {
		right, name := v1.RightOf(v1.Operation(method)), string(method.Name())
		p := &price{base: writePrice, report: right == v1.Right_REPORT, right: auth.Right(right)}
		switch {
		case ofMany.MatchString(name):
			p.base = listPrice
		case right == v1.Right_READ:
			p.base = readPrice
		}
		if strings.HasPrefix(name, "Batch") {
			for i := range method.Input().Fields().Len() {
				if field := method.Input().Fields().Get(i); field.IsList() {
					p.entries = append(p.entries, field)
				}
			}
		}
		all.byOperation[v1.Operation(method)], all.byRequest[method.Input()] = p, p
	}
	return all
}

// operation returns the price of an operation.
func (p prices) operation(name string) *price {
	if found := p.byOperation[name]; found != nil {
		return found
	}
	return unknownPrice
}

// request returns the price of the operation with that request.
func (p prices) request(of protoreflect.MessageDescriptor) *price {
	if found := p.byRequest[of]; found != nil {
		return found
	}
	return unknownPrice
}

// rest returns what a decoded call costs beyond its base.
func (p *price) rest(request proto.Message) int {
	most := 0
	for _, field := range p.entries {
		most = max(most, request.ProtoReflect().Get(field).List().Len())
	}
	return max(0, (most+entriesPerUnit-1)/entriesPerUnit-p.base)
}
