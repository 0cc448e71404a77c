package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

// folder is the folder of podlink's scripts.
const folder = "../../internal/data/lua"

// TestAssembledIsWhatTheSourcesGive fails for a changed source without `make generate`, and for an edited assembled script.
func TestAssembledIsWhatTheSourcesGive(t *testing.T) {
	committed := readAll(t, filepath.Join(folder, outFolder))
	files, err := assembleAll(os.DirFS(folder))
	require.NoError(t, err)
	require.Equal(t, committed, files, "run make generate")

	for _, changed := range []string{"statefulGetLink.lua", "lib/clock.lua"} {
		t.Run("known-bad/"+changed, func(t *testing.T) {
			sources := sourcesOf(t)
			sources[changed] = &fstest.MapFile{Data: append(sources[changed].Data, "call('HDEL', key)\n"...)}
			files, err := assembleAll(sources)
			require.NoError(t, err)
			require.NotEqual(t, committed, files)
		})
	}
}

func TestAssemble(t *testing.T) {
	sources := fstest.MapFS{
		"script.lua": {Data: []byte("-- script does it.\n--\n-- Needs:   a\n-- Then:    c\n-- Reply:   DONE: always\n\n" +
			"local s = 1 -- Needs: a mind\n")},
		"lib/a.lua":      {Data: []byte("-- a.lua is first.\n--\n-- Needs:   b\n\n-- a counts.\nlocal a = b\n")},
		"lib/b.lua":      {Data: []byte("-- b.lua is before it.\n\nlocal b = 1\n")},
		"lib/c.lua":      {Data: []byte("-- c.lua is last.\n--\n-- Needs:   b\n\nreturn s")},
		"lib/readme.txt": {Data: []byte("no Lua")},
	}
	files, err := assembleAll(sources)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"script.lua": notice + `

-- script does it.
--
-- Reply:   DONE: always

-- === lib/b.lua ===
-- b.lua is before it.

local b = 1

-- === lib/a.lua ===
-- a.lua is first.

-- a counts.
local a = b

-- === script.lua ===

local s = 1 -- Needs: a mind

-- === lib/c.lua ===
-- c.lua is last.

return s
`}, files, "each part once, in order of execution")

	sources["lib/d.lua"] = &fstest.MapFile{Data: []byte("local d")}
	_, err = assembleAll(sources)
	require.ErrorContains(t, err, "no script needs lib/d.lua")

	delete(sources, "lib/b.lua")
	_, err = assembleAll(sources)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, "lib/a.lua: open lib/b.lua", "names both files")
}

// TestRun: the output of a removed script is removed, and a second run changes nothing.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, sourcesOf(t)))
	out := filepath.Join(dir, outFolder)
	require.NoError(t, os.Mkdir(out, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(out, "removed.lua"), []byte("return 1"), 0o644))
	for range 2 {
		require.NoError(t, run(dir))
		require.Equal(t, readAll(t, filepath.Join(folder, outFolder)), readAll(t, out))
	}
}

// sourcesOf returns podlink's scripts and their parts, without the assembled scripts.
func sourcesOf(t *testing.T) fstest.MapFS {
	t.Helper()
	sources := fstest.MapFS{}
	for _, sub := range []string{".", libFolder} {
		for name, text := range readAll(t, filepath.Join(folder, sub)) {
			sources[filepath.Join(sub, name)] = &fstest.MapFile{Data: []byte(text), Mode: 0o644}
		}
	}
	return sources
}

// readAll returns the text of every file in a folder by name.
func readAll(t *testing.T, folder string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(folder)
	require.NoError(t, err)
	texts := make(map[string]string)
	for _, entry := range entries {
		if entry.IsDir() {
			continue
		}
		text, err := os.ReadFile(filepath.Join(folder, entry.Name()))
		require.NoError(t, err)
		texts[entry.Name()] = string(text)
	}
	return texts
}
