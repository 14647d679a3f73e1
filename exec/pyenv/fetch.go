package pyenv

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	// fetchTimeout is for one wheel: 2 GiB at 20 Mbit/s.
	fetchTimeout = 15 * time.Minute
	// indexVariables hold addresses of indexes as uv takes them, credentials included.
	indexVariables = "UV_DEFAULT_INDEX UV_INDEX UV_INDEX_URL UV_EXTRA_INDEX_URL"
)

// client follows the machine's proxy and certificates, as uv does.
var client = &http.Client{Timeout: fetchTimeout}

// fetch writes the wheel f into a new file at path. The file is there if, and only
// if, its size and hash are those of f.
func fetch(ctx context.Context, f found, path string) (n int64, err error) {
	in, err := open(ctx, f)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	tmp, err := os.CreateTemp(filepath.Dir(path), ".wheel-")
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
	}()
	most := f.Size
	if most == 0 {
		most = maxWheelBytes
	}
	sum := sha256.New()
	n, err = io.Copy(io.MultiWriter(tmp, sum), io.LimitReader(in, most+1))
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return n, &UnavailableError{Text: fmt.Sprintf("downloading %s from the package index broke off; try again", f.File), Err: err}
	}
	if got := hex.EncodeToString(sum.Sum(nil)); n > most || f.Size > 0 && n != f.Size || got != f.SHA256 {
		return n, refusef("the index gives other bytes for %s than it says: %d with sha256 %s, not %d with %s", f.File, n, got, f.Size, f.SHA256)
	}
	return n, os.Rename(tmp.Name(), path)
}

// open starts to read a wheel from where uv found it.
func open(ctx context.Context, f found) (io.ReadCloser, error) {
	u, err := url.Parse(f.source)
	if err != nil {
		return nil, err
	}
	if u.Scheme == "file" {
		return os.Open(u.Path)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.source, nil)
	if err != nil {
		return nil, err
	}
	if user := credentials(u); user != nil && u.User == nil {
		password, _ := user.Password()
		req.SetBasicAuth(user.Username(), password)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, &UnavailableError{Text: fmt.Sprintf("%s could not be downloaded from the package index; try again later", f.File), Err: err}
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		text := fmt.Sprintf("the package index answers %q when asked for %s", resp.Status, f.File)
		if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
			text += "; an index that asks for a password needs it in UV_DEFAULT_INDEX or UV_INDEX of the server"
		}
		return nil, &UnavailableError{Text: text}
	}
	return resp.Body, nil
}

// credentials are those of the configured index that the address belongs to.
func credentials(u *url.URL) *url.Userinfo {
	for name := range strings.FieldsSeq(indexVariables) {
		for text := range strings.FieldsSeq(os.Getenv(name)) {
			if _, address, named := strings.Cut(text, "=http"); named { // "name=https://..."
				text = "http" + address
			}
			index, err := url.Parse(text)
			if err == nil && index.User != nil && index.Host == u.Host && index.Scheme == u.Scheme {
				return index.User
			}
		}
	}
	return nil
}
