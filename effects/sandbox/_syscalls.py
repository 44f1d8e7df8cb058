"""Which system calls code in the sandbox may make, by name and number.

Standard library only; the sandboxed child loads this file by itself.

It is a list of what is allowed: a list of what is forbidden would have to grow with every kernel.
Calls that aren't in any list fail with ENOSYS, as on an older kernel, so the C library falls back
on older ones; those that code may meet in the standard library fail with EPERM, which Python shows
as a PermissionError; those that no program of ours has any business with end the process.

Each entry is a name, its number on x86_64 and its number on aarch64 (``-`` where it has none).
Source: ``asm/unistd_64.h`` and ``asm-generic/unistd.h`` of Linux 6.1, later ones by their pages.
"""

ALLOWED = """
read 0 63, write 1 64, close 3 57, futex 202 98, mmap 9 222, munmap 11 215, mprotect 10 226,
brk 12 214, madvise 28 233, mremap 25 216, lseek 8 62, pread64 17 67, pwrite64 18 68, readv 19 65,
writev 20 66, preadv 295 69, pwritev 296 70, preadv2 327 286, pwritev2 328 287,
rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigpending 127 136,
rt_sigtimedwait 128 137, rt_sigsuspend 130 133, sigaltstack 131 132, restart_syscall 219 128,
open 2 -, openat 257 56, stat 4 -, fstat 5 80, lstat 6 -, newfstatat 262 79, statx 332 291,
access 21 -, faccessat 269 48, faccessat2 439 439, readlink 89 -, readlinkat 267 78,
getdents 78 -, getdents64 217 61, getcwd 79 17, chdir 80 49, fchdir 81 50, statfs 137 43,
fstatfs 138 44, poll 7 -, ppoll 271 73, select 23 -, pselect6 270 72, epoll_create 213 -,
epoll_create1 291 20, epoll_ctl 233 21, epoll_wait 232 -, epoll_pwait 281 22,
epoll_pwait2 441 441, eventfd 284 -, eventfd2 290 19, pipe 22 -, pipe2 293 59, dup 32 23,
dup2 33 -, dup3 292 24, signalfd 282 -, signalfd4 289 74, timerfd_create 283 85,
timerfd_settime 286 86, timerfd_gettime 287 87, timer_create 222 107, timer_settime 223 110,
timer_gettime 224 108, timer_getoverrun 225 109, timer_delete 226 111, nanosleep 35 101,
clock_nanosleep 230 115, clock_gettime 228 113, clock_getres 229 114, gettimeofday 96 169,
time 201 -, times 100 153, alarm 37 -, pause 34 -, setitimer 38 103, getitimer 36 102,
getpid 39 172, getppid 110 173, gettid 186 178, getuid 102 174, geteuid 107 175, getgid 104 176,
getegid 108 177, getresuid 118 148, getresgid 120 150, getgroups 115 158, getpgrp 111 -,
getpgid 121 155, getsid 124 156, getrusage 98 165, getpriority 140 141, capget 125 90,
sysinfo 99 179, uname 63 160, getrlimit 97 163, setrlimit 160 164, umask 95 166, getcpu 309 168,
sched_yield 24 124, sched_getaffinity 204 123, getrandom 318 278, exit 60 93, exit_group 231 94,
set_tid_address 218 96, set_robust_list 273 99, get_robust_list 274 100, rseq 334 293,
membarrier 324 283, arch_prctl 158 -, wait4 61 260, waitid 247 95, ftruncate 77 46,
truncate 76 45, fallocate 285 47, fsync 74 82, fdatasync 75 83, fadvise64 221 223,
readahead 187 213, flock 73 32, msync 26 227, mincore 27 232, sendfile 40 71,
copy_file_range 326 285, mkdir 83 -, mkdirat 258 34, rmdir 84 -, unlink 87 -, unlinkat 263 35,
rename 82 -, renameat 264 38, renameat2 316 276, link 86 -, linkat 265 37, symlink 88 -,
symlinkat 266 36, creat 85 -, recvfrom 45 207, shutdown 48 210, getsockname 51 204,
getpeername 52 205, getsockopt 55 209, close_range 436 436
"""

ATTRIBUTES = """
chmod 90 -, fchmod 91 52, fchmodat 268 53, fchmodat2 452 452, utime 132 -, utimes 235 -,
futimesat 261 -, utimensat 280 88
"""
"""Allowed in a root of the sandbox's own only: Landlock doesn't see these calls, and without that
root they reach every file of the user."""

REFUSED = """
fork 57 -, vfork 58 -, execve 59 221, execveat 322 281, socket 41 198, connect 42 203,
bind 49 200, listen 50 201, accept 43 202, accept4 288 242, sendmsg 46 211, sendmmsg 307 269,
recvmsg 47 212, recvmmsg 299 243, setsockopt 54 208, chown 92 -, fchown 93 55, lchown 94 -,
fchownat 260 54, mknod 133 -, mknodat 259 33, setxattr 188 5, lsetxattr 189 6, fsetxattr 190 7,
removexattr 197 14, lremovexattr 198 15, fremovexattr 199 16, setuid 105 146, setgid 106 144,
setreuid 113 145, setregid 114 143, setresuid 117 147, setresgid 119 149, setgroups 116 159,
setfsuid 122 151, setfsgid 123 152, capset 126 91, setsid 112 157, setpgid 109 154, tkill 200 130,
rt_sigqueueinfo 129 138, rt_tgsigqueueinfo 297 240, pidfd_open 434 434, pidfd_getfd 438 438,
pidfd_send_signal 424 424, sched_setaffinity 203 122, sched_setparam 142 118,
sched_setscheduler 144 119, sched_setattr 314 274, setpriority 141 140, ioprio_set 251 30,
shmget 29 194, shmat 30 196, shmctl 31 195, shmdt 67 197, msgget 68 186, msgsnd 69 189,
msgrcv 70 188, msgctl 71 187, semget 64 190, semop 65 193, semctl 66 191, semtimedop 220 192,
mq_open 240 180, mq_unlink 241 181, mq_timedsend 242 182, mq_timedreceive 243 183,
mq_notify 244 184, mq_getsetattr 245 185, memfd_create 319 279, memfd_secret 447 447,
inotify_init 253 -, inotify_init1 294 26, inotify_add_watch 254 27, fanotify_init 300 262,
fanotify_mark 301 263, mlock 149 228, mlock2 325 284, mlockall 151 230, personality 135 92,
chroot 161 51, sync 162 81, syncfs 306 267, name_to_handle_at 303 264, seccomp 317 277,
landlock_create_ruleset 444 444, landlock_add_rule 445 445, landlock_restrict_self 446 446,
splice 275 76, tee 276 77, vmsplice 278 75, kcmp 312 272, syslog 103 116, vhangup 153 58,
clock_settime 227 112, clock_adjtime 305 266, adjtimex 159 171, settimeofday 164 170,
sethostname 170 161, setdomainname 171 162, quotactl 179 60
"""

FATAL = """
ptrace 101 117, process_vm_readv 310 270, process_vm_writev 311 271, process_madvise 440 440,
process_mrelease 448 448, bpf 321 280, perf_event_open 298 241, userfaultfd 323 282,
keyctl 250 219, add_key 248 217, request_key 249 218, io_uring_setup 425 425,
io_uring_enter 426 426, io_uring_register 427 427, mount 165 40, umount2 166 39,
pivot_root 155 41, setns 308 268, unshare 272 97, open_tree 428 428, move_mount 429 429,
fsopen 430 430, fsconfig 431 431, fsmount 432 432, fspick 433 433, mount_setattr 442 442,
open_by_handle_at 304 265, init_module 175 105, finit_module 313 273, delete_module 176 106,
kexec_load 246 104, kexec_file_load 320 294, reboot 169 142, swapon 167 224, swapoff 168 225,
acct 163 89, iopl 172 -, ioperm 173 -, modify_ldt 154 -
"""

CHECKED = """
clone 56 220, kill 62 129, tgkill 234 131, ioctl 16 29, fcntl 72 25, prctl 157 167,
prlimit64 302 261, socketpair 53 199, sendto 44 206
"""
"""Allowed with some arguments only, see `_seccomp`."""


def numbers(table: str, machine: int) -> dict[str, int]:
    """The calls of one table that a machine has; `machine` is an index of `_kernel.MACHINES`."""
    found: dict[str, int] = {}
    for entry in table.split(","):
        name, *values = entry.split()
        if values[machine] != "-":
            found[name] = int(values[machine])
    return found
