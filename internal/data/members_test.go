package data

import (
	"context"
	"regexp"
	"strings"

	"github.com/redis/go-redis/v9"
)

// The members of a service with one pod that has a reservation. Its report is as old as the one that calls release.
const (
	countedReport = "1 0 0 0 0 -1 -1 1700000000000 0 0 0 * * 0 - - up"
	countedEntry  = "0000000001 0 -1 -1 1700000000000 0 0"
	countedMeta   = "0 0 1700000000000 30000 0 0 0 0"
	countedStore  = "id 1700000000000 one"
)

// countedPod returns the members by score.
func countedPod() map[int64]string {
	return map[int64]string{-3: countedReport, -1: countedMeta, 1: countedEntry, 1 << 49: "@1", -1 << 36: countedStore}
}

// writeMembers adds members to the key of the service game.
func (s *testStore) writeMembers(ctx context.Context, members map[int64]string) error {
	for score, member := range members {
		err := s.client.ZAdd(ctx, s.keys.service(game), redis.Z{Score: float64(score), Member: member}).Err()
		if err != nil {
			return err
		}
	}
	return nil
}

// The parts of members that depend on how long a test takes: the time that was heard.
var (
	heardInReports = regexp.MustCompile(`\b(-?\d+ #\d*) \d+ ((?:0|#\d*) \d+ \S+ \S+ \d+ )`)
	storeID        = regexp.MustCompile(`\b[A-Z2-7]{26} #`)
	heardInMeta    = regexp.MustCompile(`\b\d+ \d+ (#\d*) (\d+) \d+ (?:0|#\d*) \d+ \d+\b`)
	heardInEntries = regexp.MustCompile(`\b(\d{10} \d+ -?\d+ -?\d+ #\d*) \d+ (\d+)\b`)
)

// withoutHeard replaces what was heard, and random texts, in a text whose times were replaced by a number sign.
func withoutHeard(text string) string {
	text = storeID.ReplaceAllString(text, "ID #")
	text = heardInMeta.ReplaceAllString(text, "META $1 $2")
	text = heardInEntries.ReplaceAllString(text, "$1 H $2")
	return heardInReports.ReplaceAllString(text, "$1 H $2")
}

// isTime reports whether a score is a time, or depends on the time that was heard.
func isTime(score string) bool { return len(score) >= 15 && !strings.HasPrefix(score, "-") }
