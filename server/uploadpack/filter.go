package uploadpack

import (
	"fmt"
	"math"
	"net/url"
	"strconv"
	"strings"
)

// Filter says which objects a partial clone leaves out. Objects that were asked
// for by name are sent whatever the filter says.
type Filter struct {
	blobLimit int64 // blobs of at least this many bytes are left out
	treeDepth int64 // trees and blobs at this depth or deeper are left out; a commit's tree has depth 0
}

const unlimited = math.MaxInt64

// noFilter leaves nothing out.
func noFilter() Filter { return Filter{blobLimit: unlimited, treeDepth: unlimited} }

// maxFilterParts bounds a combined filter.
const maxFilterParts = 16

// ParseFilter reads git's object filter specification as rev-list(1) defines
// it: blob:none, blob:limit=<n>[kmg], tree:<depth>, and combine: of these.
func ParseFilter(spec string) (Filter, error) {
	if rest, ok := strings.CutPrefix(spec, "combine:"); ok {
		return parseCombined(spec, rest)
	}
	f := noFilter()
	switch kind, arg, _ := strings.Cut(spec, ":"); kind {
	case "blob":
		if arg == "none" {
			f.blobLimit = 0
			return f, nil
		}
		if num, ok := strings.CutPrefix(arg, "limit="); ok {
			n, err := parseSize(num)
			if err != nil {
				return Filter{}, requestErrorf("filter %q: %v", spec, err)
			}
			f.blobLimit = n
			return f, nil
		}
	case "tree":
		n, err := parseSize(arg)
		if err != nil {
			return Filter{}, requestErrorf("filter %q: %v", spec, err)
		}
		f.treeDepth = n
		return f, nil
	}
	return Filter{}, requestErrorf("filter %q is not offered; use blob:none, blob:limit=<n> or tree:<depth>", clip(spec))
}

func parseCombined(spec, rest string) (Filter, error) {
	parts := strings.Split(rest, "+")
	if len(parts) > maxFilterParts {
		return Filter{}, requestErrorf("filter %q combines more than %d filters", clip(spec), maxFilterParts)
	}
	f := noFilter()
	for _, p := range parts {
		sub, err := url.PathUnescape(p)
		if err != nil {
			return Filter{}, requestErrorf("filter %q: bad escape", clip(spec))
		}
		if strings.HasPrefix(sub, "combine:") {
			return Filter{}, requestErrorf("filter %q: combined filters do not nest", clip(spec))
		}
		g, err := ParseFilter(sub)
		if err != nil {
			return Filter{}, err
		}
		f.blobLimit = min(f.blobLimit, g.blobLimit)
		f.treeDepth = min(f.treeDepth, g.treeDepth)
	}
	return f, nil
}

// parseSize reads a number with git's optional binary unit.
func parseSize(s string) (int64, error) {
	digits, unit := s, int64(1)
	if s != "" {
		switch s[len(s)-1] {
		case 'k', 'K':
			unit = 1 << 10
		case 'm', 'M':
			unit = 1 << 20
		case 'g', 'G':
			unit = 1 << 30
		}
		if unit > 1 {
			digits = s[:len(s)-1]
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number", clip(s))
	}
	if int64(n) > math.MaxInt64/unit {
		return 0, fmt.Errorf("%q is too large", clip(s))
	}
	return int64(n) * unit, nil
}

// clip shortens foreign text that is quoted back.
func clip(s string) string {
	if len(s) > 200 {
		return s[:200] + "..."
	}
	return s
}
