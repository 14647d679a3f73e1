package server

import (
	"strings"

	"github.com/headgate/headgate/hooks/lake"
)

// The end of a path says what is asked of a lake over HTTP.
const (
	endRefs      = "info/refs"
	endUpload    = "git-upload-pack"
	endReceive   = "git-receive-pack"
	endArchive   = "git-upload-archive"
	maxPathBytes = 256 // a lake's name has at most 100
)

// gitPath is a path below a lake: "/team/flights.git/info/refs".
type gitPath struct {
	lake string // as it stands there; lake.ParseName drops ".git" and has the last word
	end  string // one of the ends above, or "" for a path that only a dumb client asks for
}

// parseGitPath splits the path of a request, as it was sent. ok is false for what
// no git client asks for. No escape is undone and nothing is cleaned: a name has
// neither need of them, so every lake has exactly two spellings, with ".git" and without.
func parseGitPath(escaped string) (p gitPath, ok bool) {
	rest, ok := strings.CutPrefix(escaped, "/")
	if !ok || len(escaped) > maxPathBytes || strings.ContainsAny(rest, "%\\") {
		return gitPath{}, false
	}
	for _, end := range []string{endRefs, endUpload, endReceive, endArchive} {
		if name, ok := strings.CutSuffix(rest, "/"+end); ok {
			return gitPath{name, end}, name != "" && name[0] != '/'
		}
	}
	// HEAD, objects/..., info/alternates and LFS's info/lfs/...: only below a name
	// with ".git" can they be told from anything else.
	name, file, found := strings.Cut(rest, ".git/")
	if found && name != "" && name[0] != '/' && (file == "HEAD" || strings.HasPrefix(file, "objects/") || strings.HasPrefix(file, "info/")) {
		return gitPath{lake: name + ".git"}, true
	}
	return gitPath{}, false
}

// name is the lake's. The error is for the client.
func (p gitPath) name() (lake.Name, error) { return lake.ParseName(p.lake) }
