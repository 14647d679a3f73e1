package main

import (
	"runtime"
	"sync"
	"testing"
)

// More threads than processors at a time, each with a number of its own that it
// keeps: the C library's answer could not be that.
func TestThreadsHaveNumbersOfTheirOwn(t *testing.T) {
	n := runtime.NumCPU() + 1
	var all, done sync.WaitGroup
	all.Add(n)
	numbers := make([]int, n)
	for i := range n {
		done.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			numbers[i] = threadNumber()
			all.Done()
			all.Wait() // every thread is held until the last has its number
			if again := threadNumber(); again != numbers[i] {
				t.Errorf("thread %d was told %d and then %d", i, numbers[i], again)
			}
		})
	}
	done.Wait()
	seen := make(map[int]bool)
	for _, number := range numbers {
		if seen[number] || number < 0 {
			t.Errorf("numbers %v", numbers)
		}
		seen[number] = true
	}
}
