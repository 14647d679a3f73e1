package engine

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/protocol"
)

// fewestUnique is how many rows a table has at least for values that are all
// different to mean something.
const fewestUnique = 10

// suggest lists verifiers that hold of the targets as they are. Whether they held
// before is for who has the history to ask.
func (e *execution) suggest(ctx context.Context) (*protocol.Answer, error) {
	if e.order.Score == nil {
		return nil, &protocol.UserError{Kind: kindInternal, Message: "an order to suggest without its settings"}
	}
	s := &scoring{db: e.db, e: e, order: e.order.Score, tables: make(map[string]*original)}
	if err := s.load(ctx); err != nil {
		return nil, err
	}
	for _, t := range s.tables {
		if err := s.profile(ctx, t); err != nil {
			return nil, err
		}
	}
	answer := &protocol.Answer{Suggestions: []protocol.Suggestion{}}
	for _, target := range s.order.Targets {
		t := s.tables[strings.ToLower(target.Name)]
		if t == nil || t.rows == 0 {
			continue // nothing is known of it
		}
		t.key = target.Key
		found, err := s.suggestions(ctx, t)
		if err != nil {
			return nil, err
		}
		for _, c := range found {
			// What is suggested never fails on the data that it was inferred from.
			violated, err := s.finds(ctx, body(c.SQL))
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if err == nil && !violated {
				answer.Suggestions = append(answer.Suggestions, c)
			}
		}
	}
	return answer, nil
}

// suggestions are what may hold of a table.
func (s *scoring) suggestions(ctx context.Context, t *original) ([]protocol.Suggestion, error) {
	var all []protocol.Suggestion
	add := func(kind, column, says string, r protocol.Remedy, err error) {
		if err == nil {
			all = append(all, protocol.Suggestion{Table: t.name, Column: column, Kind: kind, Says: says, Remedy: r})
		}
	}
	isKey := func(column string) bool { return len(t.key) == 1 && strings.EqualFold(t.key[0], column) }
	for i := range t.profile {
		p := &t.profile[i]
		if p.nulls == t.rows {
			continue
		}
		if p.nulls == 0 && !isKey(p.Name) {
			r, err := columnTest(t.name, p.Name, plan.Test{Kind: plan.NotNull})
			add("not_null", p.Name, fmt.Sprintf("none of %s is NULL", count(t.rows, "row")), r, err)
		}
		if p.distinct == t.rows && t.rows >= fewestUnique && (p.kind == integerColumn || p.kind == textColumn) && !isKey(p.Name) {
			r, err := columnTest(t.name, p.Name, plan.Test{Kind: plan.Unique})
			add("unique", p.Name, fmt.Sprintf("%s have as many values", count(t.rows, "row")), r, err)
		}
		to, err := s.parent(ctx, t, p)
		if err != nil {
			return nil, err
		}
		switch {
		case to != nil:
			r, err := columnTest(t.name, p.Name, plan.Test{Kind: plan.Relationships, To: to.To, Field: to.Field})
			add("relationships", p.Name, fmt.Sprintf("%d values are all in %s.%s, whose values are unique", p.distinct, to.To, to.Field), r, err)
		case p.kind == textColumn && p.distinct <= mostCategories && t.rows >= 4*fewestRepeats*p.distinct:
			values, err := s.values(ctx, t, p)
			if err != nil {
				return nil, err
			}
			r, err := columnTest(t.name, p.Name, plan.Test{Kind: plan.AcceptedValues, Values: values})
			add("accepted_values", p.Name, fmt.Sprintf("%d values in %s", p.distinct, count(t.rows, "row")), r, err)
		}
		if (p.kind == integerColumn || p.kind == fractionColumn) && p.least.Valid && p.distinct < t.rows {
			if r, ok := rangeFile(t, p, 0.1); ok {
				add("range", p.Name, fmt.Sprintf("%s to %s, and a tenth of that beside", p.least.String, p.most.String), r, nil)
			}
		}
		if p.kind == timeColumn && p.least.Valid {
			zero := plan.Rule{Kind: plan.Freshness, Columns: []string{p.Name}, Advance: new(time.Duration)}
			r, err := rule(t, p.Name, zero, "freshness: {column: "+scalar(p.Name)+", advance: 0}")
			add("freshness", p.Name, "the newest value did not go back", r, err)
			if p.distinct >= fewestDistances {
				add("no_gap", p.Name, fmt.Sprintf("every day from %s to %s is there", p.least.String, p.most.String), gapFile(t, p.Name), nil)
			}
		}
	}
	if len(t.key) > 0 {
		r, err := rule(t, "", plan.Rule{Kind: plan.ImmutableHistory}, "immutable_history")
		add("immutable_history", "", "no row that was there changed or went", r, err)
	}
	return all, nil
}

// parent looks for a column of another table whose values are unique and hold all of a column's.
func (s *scoring) parent(ctx context.Context, t *original, p *columnProfile) (*protocol.ScoreRelation, error) {
	if p.kind != textColumn || p.distinct < 3 || p.distinct == t.rows {
		return nil, nil
	}
	for _, in := range s.order.Parents {
		to := s.tables[strings.ToLower(in)]
		if to == nil || to == t {
			continue
		}
		for i := range to.profile {
			o := &to.profile[i]
			if o.Type != p.Type || o.distinct != to.rows || o.distinct < p.distinct {
				continue
			}
			query := fmt.Sprintf("SELECT 1 FROM %s AS c ANTI JOIN %s AS p ON c.%s = p.%s WHERE c.%s IS NOT NULL",
				t.store, to.store, identifier(p.Name), identifier(o.Name), identifier(p.Name))
			if lost, err := s.finds(ctx, query); err != nil {
				return nil, err
			} else if !lost {
				return &protocol.ScoreRelation{Table: t.name, Column: p.Name, To: to.name, Field: o.Name}, nil
			}
		}
	}
	return nil, nil
}
