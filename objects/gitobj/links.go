package gitobj

import "bytes"

// TreeLinks calls fn for each entry of a tree without its name. It is for trees
// that were checked when they came: it looks at no more than it needs. The error
// is a *CheckError, or fn's.
func TreeLinks(data []byte, fn func(Mode, OID) error) error {
	for len(data) > 0 {
		var mode Mode
		i := 0
		for ; i < len(data) && data[i] >= '0' && data[i] <= '7' && i < 6; i++ {
			mode = mode<<3 | Mode(data[i]-'0')
		}
		if i == 0 || i == len(data) || data[i] != ' ' || !mode.Valid() {
			return treeError("badTree", "an entry has no mode")
		}
		data = data[i+1:]
		nul := bytes.IndexByte(data, 0)
		if nul <= 0 || len(data)-nul-1 < len(OID{}) {
			return treeError("badTree", "an entry is cut off")
		}
		if err := fn(mode, OID(data[nul+1:][:len(OID{})])); err != nil {
			return err
		}
		data = data[nul+1+len(OID{}):]
	}
	return nil
}
