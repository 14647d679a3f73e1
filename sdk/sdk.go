// Package sdk carries the Python package headgate inside the server's binary and
// unpacks it for sandboxes. It does not know what Python does with it.
package sdk

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
)

//go:embed python/headgate/*.py python/headgate/*/*.py python/headgate/py.typed
var files embed.FS

// Unpack writes the package below dir, in a directory named by its content, and
// returns that directory, which is to be on the interpreter's path. What is
// there already from an earlier start is used as it is: it was renamed into
// place whole.
func Unpack(dir string) (string, error) {
	root, err := fs.Sub(files, "python")
	if err != nil {
		return "", err
	}
	name, err := digest(root)
	if err != nil {
		return "", fmt.Errorf("python package: %w", err)
	}
	target := filepath.Join(dir, name)
	if _, err := os.Stat(target); err == nil {
		return target, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(dir, ".new-")
	if err != nil {
		return "", err
	}
	err = os.CopyFS(tmp, root)
	if err == nil {
		err = os.Chmod(tmp, 0o755) // sandboxes read it as nobody
	}
	if err == nil {
		err = os.Rename(tmp, target)
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("unpack python package: %w", err), os.RemoveAll(tmp))
	}
	return target, nil
}

func digest(root fs.FS) (string, error) {
	var paths []string
	err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	sort.Strings(paths)
	h := sha256.New()
	for _, path := range paths {
		text, err := fs.ReadFile(root, path)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n", path, len(text))
		h.Write(text)
	}
	return hex.EncodeToString(h.Sum(nil))[:20], nil
}
