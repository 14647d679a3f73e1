package engine

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/headgate/headgate/exec/protocol"
)

// projectOptions of COPY: what is cut down is read once or twice on this machine
// and thrown away, so it must be quick to write and to read.
const projectOptions = "FORMAT parquet, COMPRESSION lz4_raw"

// project cuts each input down to its selected columns and filtered rows. Inputs
// are not made views: two of them may be of one table.
func (e *execution) project(ctx context.Context) (*protocol.Answer, error) {
	answer := &protocol.Answer{}
	for i, t := range e.order.Inputs {
		query, err := e.db.inputQuery(ctx, t)
		if err != nil {
			return nil, err
		}
		p := protocol.Projection{File: fmt.Sprintf("%d.parquet", i)}
		if p.Columns, err = e.db.describeQuery(ctx, query); err != nil {
			return nil, inputError(err, t)
		}
		path := filepath.Join(e.dir, p.File)
		if p.Rows, err = e.db.copyTo(ctx, query, path, projectOptions); err != nil {
			return nil, inputError(err, t)
		}
		if err := e.sendFile(p.File, path); err != nil {
			return nil, err
		}
		answer.Projected = append(answer.Projected, p)
	}
	return answer, nil
}

// inputError is an error of reading an input. Its filter is the only thing in
// the statement that is the user's.
func inputError(err error, t protocol.Table) error {
	u := userError(err)
	if t.Filter != "" && u.Kind == kindSQL {
		u.Message = fmt.Sprintf("filter of table %q: %s", t.Name, u.Message)
	} else {
		u.Message = fmt.Sprintf("table %q: %s", t.Name, u.Message)
	}
	u.Line, u.Column = 0, 0
	return u
}
