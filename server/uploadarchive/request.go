package uploadarchive

import (
	"path"
	"strconv"
	"strings"
	"time"
)

// formatNames are those of git archive --list, in git's order.
var formatNames = []string{"tar", "tgz", "tar.gz", "zip"}

// defaultLevel asks for the compressor's own default.
const defaultLevel = -1

// request is what the arguments of git archive say.
type request struct {
	list    bool
	format  string // one of formatNames
	prefix  string
	level   int // 0 to 9, or defaultLevel
	verbose bool
	mtime   time.Time // zero: the commit's
	treeish string
	paths   []pathspec
}

func parseArguments(args []string) (*request, error) {
	req := &request{format: "tar", level: defaultLevel}
	var rest []string
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			rest = append(rest, args[i+1:]...)
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			rest = append(rest, arg)
			continue
		}
		name, value, has := strings.Cut(arg, "=")
		switch name {
		case "--format", "--prefix", "--mtime":
			if !has {
				if i++; i == len(args) {
					return nil, requestErrorf("option %s requires a value", name)
				}
				value = args[i]
			}
			if err := req.option(name, value); err != nil {
				return nil, err
			}
			continue
		}
		if has {
			return nil, requestErrorf("option %s is not offered", quote(arg))
		}
		switch arg {
		case "-l", "--list":
			req.list = true
		case "-v", "--verbose":
			req.verbose = true
		case "--no-prefix":
			req.prefix = ""
		case "--no-verbose":
			req.verbose = false
		case "--worktree-attributes", "--no-worktree-attributes":
			// A lake has no work tree.
		default:
			n, err := strconv.ParseUint(arg[1:], 10, 16)
			if err != nil {
				return nil, requestErrorf("option %s is not offered; there are --format, --prefix, --mtime, -0 to -9, --verbose and --list", quote(arg))
			}
			if n > 9 {
				return nil, requestErrorf("argument not supported for format %s: -%d", quote(req.format), n)
			}
			req.level = int(n)
		}
	}
	switch {
	case req.list && len(rest) > 0:
		return nil, requestErrorf("extra command line parameter %s", quote(rest[0]))
	case req.list:
		return req, nil
	case len(rest) == 0:
		return nil, requestErrorf("a ref is needed, such as HEAD, a branch or a tag; ref:directory is its part")
	case req.level != defaultLevel && req.format == "tar":
		return nil, requestErrorf("argument not supported for format \"tar\": -%d", req.level)
	}
	req.treeish = rest[0]
	for _, p := range rest[1:] {
		spec, err := parsePathspec(p)
		if err != nil {
			return nil, err
		}
		req.paths = append(req.paths, spec)
	}
	return req, nil
}

func (r *request) option(name, value string) error {
	switch name {
	case "--format":
		for _, f := range formatNames {
			if f == value {
				r.format = value
				return nil
			}
		}
		return requestErrorf("unknown archive format %s; there are %s", quote(value), strings.Join(formatNames, ", "))
	case "--prefix":
		r.prefix = value
		return nil
	}
	if s, ok := strings.CutPrefix(value, "@"); ok {
		if n, err := strconv.ParseInt(s, 10, 48); err == nil && n >= 0 {
			r.mtime = time.Unix(n, 0)
			return nil
		}
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05 -0700", "2006-01-02 15:04:05", time.DateOnly} {
		if t, err := time.Parse(layout, value); err == nil && t.Unix() >= 0 {
			r.mtime = t
			return nil
		}
	}
	return requestErrorf("time %s is not understood; use @<seconds> or 2006-01-02T15:04:05Z", quote(value))
}

// pathspec limits an archive to a file, to a directory and what is below it, or
// to what a glob matches.
type pathspec struct {
	text    string
	literal string // without a slash at its end; "" is everything
	dirOnly bool
	glob    *glob // nil if it is literal
}

func parsePathspec(text string) (pathspec, error) {
	if strings.HasPrefix(text, ":") {
		return pathspec{}, requestErrorf("pathspec %s: magic is not offered; name files and directories, or use a glob", quote(text))
	}
	clean := path.Clean(text)
	if text == "" || clean == "." {
		return pathspec{text: text}, nil
	}
	if clean[0] == '/' || clean == ".." || strings.HasPrefix(clean, "../") {
		return pathspec{}, requestErrorf("pathspec %s is outside of the repository", quote(text))
	}
	p := pathspec{text: text, literal: clean, dirOnly: strings.HasSuffix(text, "/")}
	if strings.ContainsAny(clean, `*?[\`) {
		var err error
		if p.glob, err = newGlob(clean, true); err != nil {
			return pathspec{}, requestErrorf("pathspec %s: %v", quote(text), err)
		}
	}
	return p, nil
}

// match tells whether the path is selected, and whether all below it is: what a
// glob matches selects nothing below itself.
func (p *pathspec) match(name string, dir bool) (self, below bool) {
	switch {
	case p.literal == "":
		return true, true
	case p.dirOnly && !dir:
		return false, false
	case name == p.literal:
		return true, dir
	}
	return p.glob != nil && p.glob.match(name), false
}

// mayHold tells whether something below the directory may be selected.
func (p *pathspec) mayHold(dir string) bool {
	return p.glob != nil || strings.HasPrefix(p.literal, dir+"/")
}
