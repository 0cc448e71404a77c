package server

import (
	"encoding/json"
	"net/http"
	"slices"

	"podlink/internal/telemetry"
)

// maxLevelBytes bounds the body of PUT /loglevel.
const maxLevelBytes = 1024

// levelBody is the body of /loglevel, both ways.
type levelBody struct {
	Level string `json:"level"`
}

// showLevel answers from which level on lines are written.
func (s *AdminServer) showLevel(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(levelBody{s.level.String()}) // The caller is gone when this fails.
}

// setLevel changes it until podlink ends.
func (s *AdminServer) setLevel(w http.ResponseWriter, r *http.Request) {
	var body levelBody
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxLevelBytes))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&body); err != nil {
		http.Error(w, `the body must be as in {"level":"debug"}`, http.StatusBadRequest)
		return
	}
	if err := s.changeLevel(body.Level); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.showLevel(w, r)
}

// changeLevel says so in the log while it can be read there: warnings are, but at the level error.
func (s *AdminServer) changeLevel(name string) error {
	before := s.level.String()
	say := func() { s.log.Warnf("the log level is %s instead of %s, until podlink restarts", name, before) }
	if before != "error" && name != before && slices.Contains(telemetry.LogLevels, name) {
		say()
	}
	if err := s.level.Set(name); err != nil {
		return err
	}
	if before == "error" && name != before {
		say()
	}
	return nil
}
