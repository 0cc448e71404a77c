package store

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestLoadsAreFenced: a late write of a process that has lost the user is refused, although the later process has only loaded yet.
// If only writes were fenced, it would be accepted, and then lost.
func TestLoadsAreFenced(t *testing.T) {
	s := Store{Folder: t.TempDir()}
	require.NoError(t, s.Save("alice", 100, 7)) // A holds alice.
	visits, err := s.Load("alice", 200)         // B gets her.
	require.NoError(t, err)
	require.EqualValues(t, 7, visits)
	require.ErrorIs(t, s.Save("alice", 100, 8), ErrFenced)
	require.NoError(t, s.Save("alice", 200, 8))
	_, err = s.Load("alice", 100)
	require.ErrorIs(t, err, ErrFenced)
	visits, err = s.Load("alice", 200)
	require.NoError(t, err)
	require.EqualValues(t, 8, visits)

	visits, err = s.Load("a/../b", 1)
	require.NoError(t, err)
	require.Zero(t, visits, "of a user who is not stored")
}
