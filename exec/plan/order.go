package plan

import (
	"slices"
	"strings"
)

// order returns the models such that each comes after those whose tables it
// reads; of those that could be next, the first by name. A cycle is a problem.
func (b *builder) order() []Model {
	reads := make([][]int, len(b.models))  // model -> models it reads
	readBy := make([][]int, len(b.models)) // model -> models that read it
	waiting := make([]int, len(b.models))
	for i := range b.models {
		seen := make(map[int]bool)
		for _, in := range b.models[i].Inputs {
			j, made := b.names.made[strings.ToLower(in.Table)]
			if made && !seen[j] {
				seen[j] = true
				reads[i] = append(reads[i], j)
				readBy[j] = append(readBy[j], i)
			}
		}
		waiting[i] = len(reads[i])
	}
	byName := func(i, j int) int {
		if c := strings.Compare(b.models[i].Name, b.models[j].Name); c != 0 {
			return c
		}
		return i - j
	}
	var ready []int
	for i, n := range waiting {
		if n == 0 {
			ready = append(ready, i)
		}
	}
	slices.SortFunc(ready, byName)
	done := make([]bool, len(b.models))
	ordered := make([]Model, 0, len(b.models))
	for len(ready) > 0 {
		i := ready[0]
		ready = ready[1:]
		done[i] = true
		ordered = append(ordered, b.models[i])
		for _, j := range readBy[i] {
			if waiting[j]--; waiting[j] == 0 {
				at, _ := slices.BinarySearchFunc(ready, j, byName)
				ready = slices.Insert(ready, at, j)
			}
		}
	}
	for _, list := range reads {
		slices.SortFunc(list, byName)
	}
	b.cycles(reads, done, byName)
	return ordered
}

// cycles reports cycles among the models that are not done, no model twice.
func (b *builder) cycles(reads [][]int, done []bool, byName func(i, j int) int) {
	var left []int
	for i := range done {
		if !done[i] {
			left = append(left, i)
		}
	}
	slices.SortFunc(left, byName)
	for _, start := range left {
		if done[start] {
			continue
		}
		path := shortestCycle(start, reads, done)
		if path == nil {
			continue // it only waits for a cycle
		}
		text := make([]string, 0, len(path)+1)
		for _, i := range path {
			done[i] = true
			text = append(text, b.models[i].Name)
		}
		text = append(text, b.models[start].Name)
		m := &b.models[start]
		b.problem(m.Path, m.Line, "models need each other: %s", strings.Join(text, " -> "))
	}
}

// shortestCycle returns the models of a shortest way from start back to it, or nil.
func shortestCycle(start int, reads [][]int, done []bool) []int {
	from := make(map[int]int)
	queue := []int{start}
	for len(queue) > 0 {
		i := queue[0]
		queue = queue[1:]
		for _, j := range reads[i] {
			if j == start {
				var path []int
				for ; i != start; i = from[i] {
					path = append(path, i)
				}
				path = append(path, start)
				slices.Reverse(path)
				return path
			}
			if _, seen := from[j]; !seen && !done[j] {
				from[j] = i
				queue = append(queue, j)
			}
		}
	}
	return nil
}
