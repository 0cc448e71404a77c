package biz

import "sync/atomic"

// SharedPod is a pod that all computes return which find it, until its service is read again or the pod reports. It must not be
// modified.
type SharedPod struct {
	Pod
	converted atomic.Pointer[any]
}

// Converted returns what convert returned for the pod first. So what is the same in many answers is made once, and is kept as
// long as the pod.
func (p *SharedPod) Converted(convert func(*Pod) any) any {
	if p.converted.Load() == nil {
		converted := convert(&p.Pod)
		p.converted.CompareAndSwap(nil, &converted) // Another caller may have been faster.
	}
	return *p.converted.Load()
}
