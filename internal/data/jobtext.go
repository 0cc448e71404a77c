package data

import (
	"encoding/json"
	"strings"

	"podlink/internal/biz"
)

// specText is what a job has to do, as stored. A field that is missing is 0.
type specText struct {
	Kind    string `json:"kind"`
	Service string `json:"service,omitempty"`
	Pod     int32  `json:"pod"` // -1: none
	Rate    int32  `json:"rate,omitempty"`
	DryRun  bool   `json:"dry_run,omitempty"`
	Reason  string `json:"reason,omitempty"`
	Grace   int32  `json:"grace,omitempty"`
	Keep    int32  `json:"keep,omitempty"`
	Below   int64  `json:"below,omitempty"`
	Repair  bool   `json:"repair,omitempty"`
}

func encodeSpec(s biz.JobSpec) (string, error) {
	text, err := json.Marshal(specText{
		string(s.Kind), s.Service, int32(s.Pod), s.Rate, s.DryRun, s.Reason, s.Grace, s.Keep, int64(s.Below), s.Repair,
	})
	return string(text), err
}

// spec parses a spec. A kind that a later podlink has written is for that one to run.
func (p *parser) spec(text string) biz.JobSpec {
	var s specText
	if json.Unmarshal([]byte(text), &s) != nil || s.Kind == "" || s.Pod < int32(biz.NoPod) {
		p.fail("what a job has to do", text)
	}
	return biz.JobSpec{
		Kind: biz.JobKind(s.Kind), Service: s.Service, Pod: biz.PodID(s.Pod), Rate: s.Rate, DryRun: s.DryRun, Reason: s.Reason,
		Grace: s.Grace, Keep: s.Keep, Below: biz.Generation(s.Below), Repair: s.Repair,
	}
}

// progressText is the progress of a job, as stored. A field that is missing is 0.
type progressText struct {
	Seen    int64          `json:"seen,omitempty"`
	Done    int64          `json:"done,omitempty"`
	Skipped int64          `json:"skipped,omitempty"`
	Failed  int64          `json:"failed,omitempty"`
	Faults  *biz.JobFaults `json:"faults,omitempty"`
	Note    string         `json:"note,omitempty"`
	Error   string         `json:"error,omitempty"`
	Cursor  string         `json:"cursor,omitempty"`
}

func encodeProgress(p biz.JobProgress) (string, error) {
	text := progressText{p.Seen, p.Done, p.Skipped, p.Failed, nil, p.Note, p.Error, p.Cursor}
	if p.Faults != (biz.JobFaults{}) {
		text.Faults = &p.Faults
	}
	encoded, err := json.Marshal(text)
	return string(encoded), err
}

// progress parses a progress; the empty text is that of a job that has not begun.
func (p *parser) progress(text string) biz.JobProgress {
	var s progressText
	if text != "" && json.Unmarshal([]byte(text), &s) != nil {
		p.fail("the progress of a job", text)
	}
	progress := biz.JobProgress{
		Seen: s.Seen, Done: s.Done, Skipped: s.Skipped, Failed: s.Failed, Note: s.Note, Error: s.Error, Cursor: s.Cursor,
	}
	if s.Faults != nil {
		progress.Faults = *s.Faults
	}
	return progress
}

func stateText(state biz.JobState) string { return strings.ToLower(string(state)) }

func (p *parser) state(text string) biz.JobState {
	switch state := biz.JobState(strings.ToUpper(text)); state {
	case biz.JobPending, biz.JobRunning, biz.JobDone, biz.JobCancelled, biz.JobFailed:
		if text == stateText(state) {
			return state
		}
	}
	p.fail("the state of a job", text)
	return ""
}
