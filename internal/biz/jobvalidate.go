package biz

import (
	"fmt"
	"math"
)

const (
	maxReasonLen    = 256
	maxRequestIDLen = 128
	maxGrace        = 24 * 60 * 60
)

// validate checks a job. rate is how many steps a second podlink allows.
func (n *NewJob) validate(rate int32) error {
	return firstError(
		validateName("namespace", n.Namespace),
		n.validateKind(),
		n.validateService(),
		n.validateJobPod(),
		within("rate", n.Rate, 0, rate),
		n.validateTexts(),
		n.validateDryRun(),
		n.only("grace_seconds", n.Grace != 0, Relocate),
		within("grace_seconds", n.Grace, 0, maxGrace),
		n.validateRelease(),
		n.validateConfirm(),
		n.only("repair", n.Repair, Verify),
	)
}

func within(field string, n, least, most int32) error {
	if n < least || n > most {
		return &InvalidArgumentError{field, fmt.Sprintf("must be %d to %d", least, most)}
	}
	return nil
}

func (n *NewJob) validateKind() error {
	switch n.Kind {
	case Relocate, Release, RemoveAll, Verify:
		return nil
	default:
		return &InvalidArgumentError{"kind", "must be RELOCATE, RELEASE, REMOVE or VERIFY"}
	}
}

// ofPod reports whether the job is about the links to one pod.
func (n *NewJob) ofPod() bool { return n.Kind == Relocate || n.Kind == Release }

func (n *NewJob) validateService() error {
	if n.Service == "" && !n.ofPod() {
		return nil // All services of the namespace.
	}
	return validateName("service", n.Service)
}

func (n *NewJob) validateJobPod() error {
	if n.ofPod() {
		return validatePod(n.Pod)
	}
	if n.Pod != nil {
		return n.notFor("pod_id")
	}
	return nil
}

func (n *NewJob) notFor(field string) error {
	return &InvalidArgumentError{field, fmt.Sprintf("must not be set for %s", n.Kind)}
}

// only refuses a field that is set and belongs to another kind of job.
func (n *NewJob) only(field string, set bool, kind JobKind) error {
	if set && n.Kind != kind {
		return n.notFor(field)
	}
	return nil
}

func (n *NewJob) validateTexts() error {
	if n.Reason != "" {
		if err := validateText("reason", n.Reason, maxReasonLen); err != nil {
			return err
		}
	}
	if len(n.RequestID) > maxRequestIDLen || !consistsOf(n.RequestID, "._:-") {
		return &InvalidArgumentError{"request_id", "must be at most 128 characters A-Z a-z 0-9 . _ : -"}
	}
	return nil
}

func (n *NewJob) validateDryRun() error {
	if n.DryRun && n.Kind == Verify {
		return &InvalidArgumentError{"dry_run", "must not be set for VERIFY, which changes nothing without repair"}
	}
	return nil
}

func (n *NewJob) validateRelease() error {
	if n.Kind != Release {
		return firstError(n.only("keep_seconds", n.Keep != 0, Release), n.only("below_generation", n.Below != 0, Release))
	}
	if n.Below < 1 || n.Below > MaxGeneration {
		return &InvalidArgumentError{"below_generation", fmt.Sprintf("must be 1 to %d", MaxGeneration)}
	}
	return within("keep_seconds", n.Keep, 1, math.MaxInt32)
}

// validateConfirm wants the name of what is removed, so that nobody removes another service by a slip.
func (n *NewJob) validateConfirm() error {
	if n.Kind != RemoveAll {
		return n.only("confirm", n.Confirm != "", RemoveAll)
	}
	name, what := n.Service, "service"
	if name == "" {
		name, what = n.Namespace, "namespace"
	}
	if n.Confirm != name {
		return &InvalidArgumentError{"confirm", "must be the name of the " + what + " to be removed"}
	}
	return nil
}
