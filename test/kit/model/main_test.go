package model_test

import (
	"flag"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "100") // The suite mostly waits. A flag on the command line overrides it.
	goleak.VerifyTestMain(m)
}
