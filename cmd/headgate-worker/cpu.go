package main

// int sched_getcpu(void);
import "C"

// threadNumber is what DuckDB is told when it asks which processor it is on (see
// cpu.c).
func threadNumber() int { return int(C.sched_getcpu()) }
