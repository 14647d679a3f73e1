package runsc

import (
	"fmt"
	"strings"
	"testing"

	slinux "gvisor.dev/gvisor/pkg/sentry/syscalls/linux"

	"github.com/headgate/headgate/exec/sandbox/attempt"
)

// untraced are gVisor's calls that are not traced, by the reason why a refusal of
// one is no attempt at what a sandbox does not give (decision 013).
var untraced = map[string]string{
	"reads, and looking is no violation": `access capget faccessat faccessat2 fgetxattr flistxattr fstat fstatfs getcwd getdents getdents64 getegid
		geteuid getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit
		getrusage getsid getsockname getsockopt gettid gettimeofday getuid getxattr ioprio_get lgetxattr listxattr llistxattr lseek lstat
		newfstatat pread64 preadv preadv2 read readahead readlink readlinkat readv stat statfs statx sysfs sysinfo time times uname ustat
		clock_getres clock_gettime getcpu get_mempolicy get_robust_list sched_get_priority_max sched_get_priority_min sched_getaffinity
		sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval mincore`,
	"writes through a descriptor, which somebody had to open for writing: that is traced": `copy_file_range fallocate ftruncate io_cancel io_destroy
		io_getevents io_pgetevents io_setup io_submit pwrite64 pwritev pwritev2 sendfile splice tee vmsplice write writev fsync fdatasync
		sync sync_file_range syncfs fadvise64`,
	"needs what a traced call would have had to give first":                   "fanotify_mark io_uring_enter io_uring_register",
	"refused by the mode of the descriptor, as it is for a file of one's own": "mmap mprotect remap_file_pages msync",
	"receives": "accept accept4 listen recvfrom recvmmsg recvmsg shutdown socketpair",
	"sets what is the sandbox's own network's": "setsockopt ioctl",
	"the process's own memory":                 "brk madvise mbind membarrier memfd_create mlock mlock2 mlockall mremap munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect set_mempolicy",
	"the process's own descriptors": `close close_range dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2
		epoll_wait epoll_wait_old eventfd eventfd2 fcntl flock inotify_add_watch inotify_init inotify_init1 inotify_rm_watch pipe pipe2 poll
		ppoll pselect6 select signalfd signalfd4 timerfd_create timerfd_gettime timerfd_settime chdir fchdir umask`,
	"tasks of the sandbox's own kernel, which has no others": `exit exit_group fork vfork futex kill pause pidfd_open pidfd_send_signal restart_syscall
		rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_yield
		set_robust_list set_tid_address setpgid setsid sigaltstack tgkill tkill wait4 waitid arch_prctl`,
	"time of the task's own": "alarm clock_nanosleep nanosleep setitimer timer_create timer_delete timer_getoverrun timer_gettime timer_settime",
	"objects of the sandbox's own kernel": `mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd
		semctl semget semop semtimedop shmat shmctl shmdt shmget`,
	"asks for priority, limits or another identity, which programs do as a matter of course": `ioprio_set personality prctl prlimit64 sched_setaffinity
		sched_setattr sched_setparam sched_setscheduler seccomp setfsgid setfsuid setgid setgroups setpriority setregid setresgid setresuid
		setreuid setrlimit setuid`,
	"there is no such call, in Linux either": `afs_syscall get_kernel_syms get_thread_area getpmsg nfsservctl putpmsg query_module security
		set_thread_area tuxcall uselib vserver`,
	"taken away": "clone3",
}

// A new gVisor may have new calls: each has to be traced, or not for a reason.
func TestEveryCallIsTracedOrArgued(t *testing.T) {
	traced := make(map[string]bool)
	for _, p := range attempt.Points() {
		traced[p] = true
	}
	why := make(map[string]string)
	for reason, names := range untraced {
		for name := range strings.FieldsSeq(names) {
			if why[name] != "" {
				t.Errorf("%s is listed twice", name)
			}
			why[name] = reason
		}
	}
	known := 0
	for number, call := range slinux.AMD64.Table {
		is := traced[fmt.Sprintf("syscall/sysno/%d/exit", number)] || traced["syscall/"+call.Name+"/exit"] || traced["syscall/"+call.Name+"/enter"]
		switch {
		case is && why[call.Name] != "":
			t.Errorf("%s is traced, and listed as not traced", call.Name)
		case !is && why[call.Name] == "":
			t.Errorf("%s is not traced, and no reason is given", call.Name)
		}
		delete(why, call.Name)
		known++
	}
	for name := range why {
		t.Errorf("gVisor has no call %s", name)
	}
	if known < 300 {
		t.Errorf("gVisor has %d calls", known)
	}
}
