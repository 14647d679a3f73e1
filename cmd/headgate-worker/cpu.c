#include <stdatomic.h>

// sched_getcpu stands in for the C library's. DuckDB asks it ten thousand times in
// a query of 0.1 s to spread its threads over shards of its caches. Where there are
// restartable sequences the answer costs a nanosecond; gVisor has none, and each
// is a call into its kernel of 10 us and more. A number of the thread's own
// spreads as well.
int sched_getcpu(void) {
	static atomic_int last;
	static _Thread_local int own;
	if (own == 0)
		own = 1 + atomic_fetch_add(&last, 1) % 1024;
	return own - 1;
}
