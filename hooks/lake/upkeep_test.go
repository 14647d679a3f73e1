package lake

import (
	"fmt"
	"testing"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/refs"
)

// Upkeep builds the index of what the refs lead to, once the lake has grown.
func TestUpkeepBuildsTheIndex(t *testing.T) {
	s, end := newShop(t, t.TempDir())
	defer end()
	s.l.Upkeep()
	s.l.upkeep.done.Wait()
	if s.l.Objects.Reachability(t.Context()) != nil {
		t.Fatal("one commit is worth no index")
	}
	var tip objects.OID
	for i := range 400 {
		tree := s.dir(gitobj.Entry{Name: "f", Mode: gitobj.ModeFile, OID: s.put(objects.Blob, fmt.Append(nil, i))})
		text := fmt.Sprintf("tree %s\n", tree)
		if i > 0 {
			text += fmt.Sprintf("parent %s\n", tip)
		}
		tip = s.put(objects.Commit, []byte(text+"author A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nm\n"))
	}
	s.set("refs/heads/side", tip)
	s.l.Upkeep()
	s.l.upkeep.done.Wait()
	x := s.l.Objects.Reachability(t.Context())
	if x == nil || x.Commits() != 401 {
		t.Fatalf("the index is %v, want one of 401 commits", x)
	}
	for _, branch := range []string{"main", "side"} {
		oid, err := s.l.Refs.Get(t.Context(), refs.Name("refs/heads/"+branch))
		if err != nil {
			t.Fatal(err)
		}
		pos, ok := x.Find(oid)
		if set := x.NewSet(); !ok || !x.Reach(pos, set) {
			t.Errorf("the tip of %s has no bitmap", branch)
		}
	}
}
