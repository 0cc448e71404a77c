package client

// Binary is podlink's, for the examples.
func Binary() string { return binary }
