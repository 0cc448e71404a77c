package client

import (
	"context"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/go-kratos/kratos/v2/selector"
)

// The keys of an instance's metadata that say which pod it is. Agent.Metadata has the first and the last.
const (
	// MetadataPodID is the pod's ordinal, as in 2.
	MetadataPodID = "pod_id"
	// MetadataPodName is the pod's name, which ends with its ordinal, as in chat-2.
	MetadataPodName = "pod_name"
	// MetadataInstanceID names the pod's process, as it reports it to podlink: two registered instances may be of one pod.
	MetadataInstanceID = "instance_id"
)

// NodeFilter leaves of a service's instances the one of the pod that the call goes to. It goes with Middleware; each client needs
// its own.
func (r *Router) NodeFilter() selector.NodeFilter {
	var index atomic.Pointer[podIndex]
	return func(ctx context.Context, nodes []selector.Node) []selector.Node {
		try, ok := ctx.Value(podCallKey{r}).(*podCall)
		if !ok {
			return nodes
		}
		if try.link == nil {
			try.chose(len(nodes) > 0, nil)
			return nodes
		}
		known := index.Load()
		if known == nil || !slices.Equal(known.nodes, nodes) {
			known = r.indexPods(nodes)
			if known.comparable {
				index.Store(known)
			}
		}
		found, of := r.choose(known, try)
		try.chose(len(found) > 0, of)
		return found
	}
}

// podIndex is which instances are which pod's. To compare the instances with those of the last call is much faster than to look at
// the metadata of each.
type podIndex struct {
	nodes      []selector.Node
	comparable bool
	pods       map[string]*podNodes // by ordinal
}

type podNodes struct {
	nodes  []selector.Node
	record *podRecord // nil for an ordinal that is none
}

func (r *Router) indexPods(nodes []selector.Node) *podIndex {
	index := &podIndex{nodes: slices.Clone(nodes), comparable: true, pods: map[string]*podNodes{}}
	var ordinals []string
	for _, node := range nodes {
		index.comparable = index.comparable && reflect.TypeOf(node).Comparable()
		ordinal := ordinalOf(node)
		if index.pods[ordinal] == nil {
			index.pods[ordinal] = &podNodes{}
			if _, ok := podNumber(ordinal); ok {
				ordinals = append(ordinals, ordinal)
			}
		}
		index.pods[ordinal].nodes = append(index.pods[ordinal].nodes, node)
	}
	for i, record := range r.pods.discovered(ordinals) {
		index.pods[ordinals[i]].record = record
	}
	return index
}

// choose returns the instances that a call may go to, and the record of their pod if they are one's.
func (r *Router) choose(index *podIndex, try *podCall) ([]selector.Node, *podRecord) {
	pod := index.pods[try.link.ordinal]
	switch {
	case try.other:
		return slices.DeleteFunc(slices.Clone(index.nodes), func(node selector.Node) bool { return ordinalOf(node) == try.link.ordinal }), nil
	case pod == nil && try.anyPod:
		return slices.Clone(index.nodes), nil
	case pod == nil:
		return nil, nil
	case len(pod.nodes) == 1:
		return pod.nodes, pod.record
	}
	return r.ofProcess(try.link.ordinal, pod.nodes), pod.record
}

// ofProcess returns of a pod's instances the one of the process that podlink has named last: another one may be a process that was
// replaced, and is registered still. Where there is none it returns all.
func (r *Router) ofProcess(ordinal string, nodes []selector.Node) []selector.Node {
	all := slices.Clone(nodes) // A filter that follows may work in place.
	instance := r.pods.instance(ordinal)
	if instance == "" {
		return all
	}
	named := slices.DeleteFunc(slices.Clone(nodes), func(node selector.Node) bool { return node.Metadata()[MetadataInstanceID] != instance })
	if len(named) == 0 {
		return all
	}
	return named
}

// ordinalOf returns the ordinal of an instance's pod; empty if the instance does not name one.
func ordinalOf(node selector.Node) string {
	metadata := node.Metadata()
	if id, ok := metadata[MetadataPodID]; ok {
		return id
	}
	name := metadata[MetadataPodName]
	if i := strings.LastIndexByte(name, '-'); i >= 0 {
		return name[i+1:]
	}
	return ""
}

// podNumber returns the number that an ordinal is; false if it is none, or is not written as podlink writes it.
func podNumber(ordinal string) (int32, bool) {
	id, err := strconv.ParseInt(ordinal, 10, 32)
	return int32(id), err == nil && id >= 0 && number(id) == ordinal
}
