package server

import (
	"encoding/json"
	"net/http"
	"slices"

	"podlink/internal/audit"
	"podlink/internal/telemetry"
)

// maxLevelBytes bounds the body of PUT /loglevel.
const maxLevelBytes = 1024

// levelBody is the body of requests to and replies from /loglevel.
type levelBody struct {
	Level string `json:"level"`
}

// getLevel handles GET /loglevel.
func (s *AdminServer) getLevel(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(levelBody{s.level.String()}) // On failure the connection is gone.
}

// setLevel handles PUT /loglevel. The change lasts until podlink restarts.
func (s *AdminServer) setLevel(w http.ResponseWriter, r *http.Request) {
	var body levelBody
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxLevelBytes))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&body); err != nil {
		http.Error(w, `the body must be an object such as {"level":"debug"}`, http.StatusBadRequest)
		return
	}
	before := s.level.String()
	if err := s.changeLevel(body.Level); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.audit.Happened(r.Context(), audit.Record{
		Operation: "loglevel", Outcome: "changed", Detail: before + " to " + body.Level, Reason: r.Header.Get(reasonHeader),
		Peer: r.RemoteAddr,
	})
	s.getLevel(w, r)
}

// changeLevel sets the level and logs the change as a warning, at whichever of the two levels writes warnings.
func (s *AdminServer) changeLevel(name string) error {
	before := s.level.String()
	logChange := func() { s.log.Warnf("log level changed from %s to %s until podlink restarts", before, name) }
	if before != "error" && name != before && slices.Contains(telemetry.LogLevels, name) {
		logChange()
	}
	if err := s.level.Set(name); err != nil {
		return err
	}
	if before == "error" && name != before {
		logChange()
	}
	return nil
}
