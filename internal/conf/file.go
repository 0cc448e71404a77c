package conf

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
)

const (
	// maxFileBytes bounds a configuration file.
	maxFileBytes = 1 << 20
	// maxSecretBytes bounds the file of a secret.
	maxSecretBytes = 64 << 10
)

// configFiles returns the path itself, or the files of a folder in the order of their names. As Kratos does, it skips hidden
// files and subfolders, so a mounted ConfigMap works.
func configFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, entry := range entries {
		if !entry.IsDir() && !strings.HasPrefix(entry.Name(), ".") {
			files = append(files, filepath.Join(path, entry.Name()))
		}
	}
	if len(files) == 0 {
		return nil, errors.New("the folder has no configuration file")
	}
	return files, nil
}
