//! Runs a program and interferes at the n-th call by which it touches given directories.
//!
//! The programs have many threads, and the n-th call is that of the whole process: `strace` counts for
//! each thread by itself, so it could not reach every call of a drainer or a server. A call counts
//! when one of its paths, or the file behind one of its descriptors, is below a directory of interest.
//!
//! A seccomp filter stops the program at the calls that may count and at no other: most calls of a program with
//! many threads are about locks and timers.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::mem::offset_of;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::SystemTime;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::calls::{Argument, FILE_CALLS};

/// What happens to the chosen call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The process is killed instead of making it.
    Kill,
    /// It is not made, and fails.
    Fail(Errno),
    /// It and all that could not be made on a broken file system either fail from now on.
    FailOn(Errno),
    /// From now on the wall clock, as the process sees it, is off by so many seconds.
    Jump(i64),
}

/// A fault and the number of the call that it comes to; the first is 1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) at: usize,
    pub(crate) fault: Fault,
}

/// One call that touched a directory of interest.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) name: &'static str,
    pub(crate) path: PathBuf,
}

/// How a traced program went.
pub(crate) struct Report {
    /// The calls that counted, in order.
    pub(crate) calls: Vec<Call>,
    /// The call that the fault came to.
    pub(crate) struck: Option<Call>,
    /// How the process ended.
    pub(crate) ended: WaitStatus,
}

impl Report {
    /// Whether the process died by SIGKILL.
    pub(crate) fn is_killed(&self) -> bool {
        matches!(self.ended, WaitStatus::Signaled(_, Signal::SIGKILL, _))
    }

    /// How many faults happened: one, unless the call was not reached.
    pub(crate) fn faults(&self) -> u64 {
        u64::from(self.struck.is_some())
    }

    /// The exit code, if there is one.
    pub(crate) fn code(&self) -> Option<i32> {
        match self.ended {
            WaitStatus::Exited(_, code) => Some(code),
            _ => None,
        }
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { calls, struck, ended } = self;
        write!(f, "{ended:?} after {} calls, struck at {struck:?}", calls.len())
    }
}

/// A program that runs under the tracer.
pub(crate) struct Traced {
    pub(crate) pid: Pid,
    pub(crate) stdout: ChildStdout,
    armed: Arc<AtomicBool>,
    tracer: JoinHandle<Report>,
}

impl Traced {
    /// Starts `command`, gives it `input` on stdin, and traces it. Calls count from [`arm`](Self::arm) on.
    pub(crate) fn start(
        mut command: Command,
        input: Vec<u8>,
        roots: Vec<PathBuf>,
        plan: Option<Plan>,
    ) -> Self {
        let armed = Arc::new(AtomicBool::new(false));
        let counting = Arc::clone(&armed);
        let (started, streams) = mpsc::channel();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let has_jump = plan.is_some_and(|plan| matches!(plan.fault, Fault::Jump(_)));
        trace_me(&mut command, filter(has_jump));
        // Only the thread that started a process may trace it.
        let tracer = std::thread::spawn(move || {
            #[allow(clippy::zombie_processes, reason = "the tracer waits for it")]
            let mut child = command.spawn().unwrap_or_else(|error| {
                panic!("cannot trace programs here ({error}); in a container, allow ptrace: --cap-add SYS_PTRACE")
            });
            let pid = Pid::from_raw(child.id().cast_signed());
            let stdin = child.stdin.take().unwrap();
            started.send((pid, stdin, child.stdout.take().unwrap())).unwrap();
            let mut memory = File::options();
            let memory = memory.read(true).write(true).open(format!("/proc/{pid}/mem")).unwrap();
            let tracer = Tracer {
                pid,
                memory,
                roots,
                plan,
                armed: counting,
                calls: Vec::new(),
                struck: None,
                clock_off: 0,
            };
            tracer.run()
        });
        let Ok((pid, mut stdin, stdout)) = streams.recv() else {
            std::panic::resume_unwind(tracer.join().unwrap_err());
        };
        std::thread::spawn(move || stdin.write_all(&input).ok());
        Self { pid, stdout, armed, tracer }
    }

    /// Has calls count from now on.
    pub(crate) fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }

    /// Waits until the program has ended.
    pub(crate) fn wait(self) -> Report {
        self.tracer.join().unwrap()
    }
}

/// Traces a program from its first call to its end.
pub(crate) fn run(
    command: Command,
    input: Vec<u8>,
    roots: Vec<PathBuf>,
    plan: Option<Plan>,
) -> Report {
    let traced = Traced::start(command, input, roots, plan);
    traced.arm();
    traced.wait()
}

/// Has the program stop at the calls of `filter`, before it makes them.
#[allow(unsafe_code, reason = "there is no other way to run code between fork and exec")]
fn trace_me(command: &mut Command, filter: Vec<libc::sock_filter>) {
    let begin = move || {
        ptrace::traceme()?;
        let program =
            libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
        // SAFETY: the program outlives the call, which copies it.
        let result = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
                | libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
        };
        Errno::result(result)?;
        Ok(())
    };
    // SAFETY: between fork and exec only three calls are made, and they are async-signal-safe.
    unsafe { command.pre_exec(begin) };
}

/// A program for the kernel: which calls the tracer is asked about. The wall clock is one of them where it jumps.
fn filter(with_wall_clock: bool) -> Vec<libc::sock_filter> {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    // The lower half of the n-th argument.
    let argument = |n: usize| offset_of!(libc::seccomp_data, args) + n * 8;
    let load = |offset: usize| (LOAD, offset as u32, 0);
    let allow = (RETURN, libc::SECCOMP_RET_ALLOW, 0);
    let mut program = Vec::new();
    // Each step skips so many of the next steps if the value is not equal.
    let skip_unless = |value: u32, steps: u8| (IF_EQUAL, value, steps);
    let number = load(offset_of!(libc::seccomp_data, nr));
    let ask = (RETURN, libc::SECCOMP_RET_TRACE, 0);
    program.push(number);
    for call in FILE_CALLS {
        if call.number == libc::SYS_mmap {
            // Memory without a file.
            let anonymous = [
                skip_unless(call.number as u32, 4),
                load(argument(4)),
                skip_unless(u32::MAX, 1),
                allow,
                ask,
            ];
            program.extend(anonymous);
        } else {
            program.extend([skip_unless(call.number as u32, 1), ask]);
        }
    }
    if with_wall_clock {
        let clock = libc::CLOCK_REALTIME as u32;
        let steps = [
            skip_unless(libc::SYS_clock_gettime as u32, 3),
            load(argument(0)),
            skip_unless(clock, 1),
            ask,
        ];
        program.extend(steps);
    }
    program.push(allow);
    let instruction =
        |(code, k, jf): (u32, u32, u8)| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    program.into_iter().map(instruction).collect()
}

struct Tracer {
    pid: Pid,
    memory: File,
    roots: Vec<PathBuf>,
    plan: Option<Plan>,
    armed: Arc<AtomicBool>,
    calls: Vec<Call>,
    struck: Option<Call>,
    /// What is added to the wall clock, in seconds.
    clock_off: i64,
}

impl Tracer {
    fn run(mut self) -> Report {
        // Its own threads, and no child of another thread of this test.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        let mut is_set_up = false;
        loop {
            let status = waitpid(None, Some(flags)).unwrap();
            let resumed = match status {
                WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) => {
                    if pid == self.pid {
                        let Self { calls, struck, .. } = self;
                        return Report { calls, struck, ended: status };
                    }
                    continue;
                }
                WaitStatus::Stopped(thread, Signal::SIGTRAP) if !is_set_up => {
                    is_set_up = true;
                    // A child inherits the filter, and its calls would fail if nobody answered for them.
                    let options = Options::PTRACE_O_TRACESECCOMP
                        | Options::PTRACE_O_TRACECLONE
                        | Options::PTRACE_O_TRACEFORK
                        | Options::PTRACE_O_TRACEVFORK
                        | Options::PTRACE_O_TRACEEXEC
                        | Options::PTRACE_O_EXITKILL;
                    ptrace::setoptions(thread, options).unwrap();
                    if let Some(Plan { fault: Fault::Jump(_), .. }) = self.plan {
                        self.hide_vdso();
                    }
                    ptrace::cont(thread, None)
                }
                WaitStatus::PtraceEvent(thread, _, libc::PTRACE_EVENT_SECCOMP) => {
                    self.at_call(thread);
                    ptrace::cont(thread, None)
                }
                // What a new thread begins with.
                WaitStatus::Stopped(thread, Signal::SIGSTOP)
                | WaitStatus::PtraceEvent(thread, ..) => ptrace::cont(thread, None),
                WaitStatus::Stopped(thread, signal) => ptrace::cont(thread, signal),
                other => panic!("{other:?} was not asked for"),
            };
            // A thread of a killed process is gone before it is told to go on.
            assert!(matches!(resumed, Ok(()) | Err(Errno::ESRCH)), "{resumed:?}");
        }
    }

    /// Deals with a thread that is about to make a call.
    fn at_call(&mut self, thread: Pid) {
        let is_child = !Path::new(&format!("/proc/{}/task/{thread}", self.pid)).exists();
        if is_child {
            return;
        }
        // A killed thread can be looked at no more.
        let Ok(registers) = ptrace::getregs(thread) else { return };
        if registers.orig_rax == libc::SYS_clock_gettime as u64 {
            self.say_the_time(registers.rsi);
            return answer(thread, registers, 0);
        }
        if !self.armed.load(Ordering::SeqCst) {
            return;
        }
        let r = registers;
        let Some(call) = self.call(r.orig_rax, [r.rdi, r.rsi, r.rdx, r.r10, r.r8]) else { return };
        self.calls.push(call.clone());
        let Some(plan) = self.plan else { return };
        let error = match plan.fault {
            Fault::FailOn(error) if self.calls.len() >= plan.at && can_break(call.name) => error,
            // Letting go of a descriptor does not fail: what failed earlier is told by fsync.
            Fault::Fail(error) if self.calls.len() == plan.at && call.name != "close" => error,
            Fault::Kill if self.calls.len() == plan.at => {
                self.struck = Some(call);
                kill(self.pid, Signal::SIGKILL).unwrap();
                return;
            }
            Fault::Jump(seconds) if self.calls.len() == plan.at => {
                self.clock_off = seconds;
                self.struck = Some(call);
                return;
            }
            _ => return,
        };
        self.struck.get_or_insert(call);
        answer(thread, registers, -i64::from(error as i32));
    }

    /// Writes what the wall clock says, as the process sees it, to an address in the process.
    fn say_the_time(&self, address: u64) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let seconds = now.as_secs().cast_signed() + self.clock_off;
        let parts = [seconds, i64::from(now.subsec_nanos())].map(i64::to_ne_bytes);
        self.memory.write_all_at(parts.as_flattened(), address).unwrap();
    }

    /// The call, if it touches a directory of interest.
    fn call(&self, number: u64, values: [u64; 5]) -> Option<Call> {
        let call = FILE_CALLS.iter().find(|call| call.number.cast_unsigned() == number)?;
        let mut base = None;
        for argument in call.arguments {
            let path = match *argument {
                Argument::File(index) => {
                    base = self.descriptor(values[index]);
                    base.clone()
                }
                Argument::Path(index) => match self.text(values[index]) {
                    Some(path) if path.is_absolute() => Some(path),
                    path => base.clone().zip(path).map(|(base, path)| base.join(path)),
                },
            };
            if let Some(path) = path.filter(|path| self.is_of_interest(path)) {
                return Some(Call { name: call.name, path });
            }
        }
        None
    }

    /// Has the program ask the kernel for the time, where it can be seen: it finds the page of code that
    /// answers without a call through an entry above its stack's bottom.
    fn hide_vdso(&self) {
        const IGNORED: u64 = 1;
        let mut at = ptrace::getregs(self.pid).unwrap().rsp + 8;
        let word = |at| u64::from_ne_bytes(self.word(at));
        // The arguments and the environment, each with a zero after it.
        for _ in 0..2 {
            while word(at) != 0 {
                at += 8;
            }
            at += 8;
        }
        while word(at) != 0 {
            if word(at) == libc::AT_SYSINFO_EHDR {
                self.memory.write_all_at(&IGNORED.to_ne_bytes(), at).unwrap();
            }
            at += 16;
        }
    }

    fn word(&self, address: u64) -> [u8; 8] {
        let mut word = [0; 8];
        self.memory.read_exact_at(&mut word, address).unwrap();
        word
    }

    fn is_of_interest(&self, path: &Path) -> bool {
        self.roots.iter().any(|root| path.starts_with(root))
    }

    fn descriptor(&self, number: u64) -> Option<PathBuf> {
        // Only the lower half is the number; the upper may hold anything.
        let number = number as i32;
        if number == libc::AT_FDCWD {
            return std::fs::read_link(format!("/proc/{}/cwd", self.pid)).ok();
        }
        std::fs::read_link(format!("/proc/{}/fd/{number}", self.pid)).ok()
    }

    /// Reads a path from the program's memory.
    fn text(&self, address: u64) -> Option<PathBuf> {
        const PAGE: u64 = 4096;
        let mut text = Vec::new();
        let mut at = address;
        while at != 0 && text.len() < PAGE as usize {
            // To the end of a page: the next one need not be there.
            let mut part = vec![0; (PAGE - at % PAGE) as usize];
            self.memory.read_exact_at(&mut part, at).ok()?;
            if let Some(end) = part.iter().position(|byte| *byte == 0) {
                text.extend_from_slice(&part[..end]);
                return Some(PathBuf::from(OsStr::from_bytes(&text)));
            }
            text.extend_from_slice(&part);
            at += part.len() as u64;
        }
        None
    }
}

/// Has the call that a thread is about to make not be made, and return this.
fn answer(thread: Pid, mut registers: libc::user_regs_struct, value: i64) {
    const NO_CALL: u64 = u64::MAX;
    registers.orig_rax = NO_CALL;
    registers.rax = value.cast_unsigned();
    ptrace::setregs(thread, registers).unwrap();
}

/// Whether a call fails on a file system that has no space left or is broken. Looking at what is
/// there, letting go of it and removing it work on.
fn can_break(name: &str) -> bool {
    matches!(
        name,
        "openat"
            | "write"
            | "pwrite64"
            | "writev"
            | "fsync"
            | "fdatasync"
            | "rename"
            | "mkdir"
            | "ftruncate"
            | "fallocate"
    )
}
