//! Runs a program and interferes at the n-th call by which it touches given directories.
//!
//! The programs have many threads, and the n-th call is that of the whole process: `strace` counts for
//! each thread by itself, so it could not reach every call of a drainer or a server. A call counts
//! when one of its paths, or the file behind one of its descriptors, is below a directory of interest.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::calls::{Argument, arguments};

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
        trace_me(&mut command);
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
                pending: HashMap::new(),
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

#[allow(unsafe_code, reason = "there is no other way to run code between fork and exec")]
fn trace_me(command: &mut Command) {
    // SAFETY: between fork and exec only one call is made, and it is async-signal-safe.
    unsafe { command.pre_exec(|| Ok(ptrace::traceme()?)) };
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
    /// What is to be done when a thread's call returns.
    pending: HashMap<Pid, Return>,
}

/// What is done when a call returns.
enum Return {
    /// It was not made, and fails.
    Fail(Errno),
    /// It has written the time here.
    Time(u64),
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
                    let options = Options::PTRACE_O_TRACESYSGOOD
                        | Options::PTRACE_O_TRACECLONE
                        | Options::PTRACE_O_EXITKILL;
                    ptrace::setoptions(thread, options).unwrap();
                    if let Some(Plan { fault: Fault::Jump(_), .. }) = self.plan {
                        self.hide_vdso();
                    }
                    ptrace::syscall(thread, None)
                }
                WaitStatus::PtraceSyscall(thread) => {
                    self.at_call(thread);
                    ptrace::syscall(thread, None)
                }
                // What a new thread begins with.
                WaitStatus::Stopped(thread, Signal::SIGSTOP)
                | WaitStatus::PtraceEvent(thread, ..) => ptrace::syscall(thread, None),
                WaitStatus::Stopped(thread, signal) => ptrace::syscall(thread, signal),
                other => panic!("{other:?} was not asked for"),
            };
            // A thread of a killed process is gone before it is told to go on.
            assert!(matches!(resumed, Ok(()) | Err(Errno::ESRCH)), "{resumed:?}");
        }
    }

    /// Deals with a thread that is about to make a call, or has just made it.
    fn at_call(&mut self, thread: Pid) {
        const ENTRY: u8 = nix::libc::PTRACE_SYSCALL_INFO_ENTRY;
        // A killed thread can be looked at no more.
        let (Ok(info), Ok(mut registers)) = (ptrace::syscall_info(thread), ptrace::getregs(thread))
        else {
            return;
        };
        if info.op != ENTRY {
            match self.pending.remove(&thread) {
                Some(Return::Fail(error)) => {
                    registers.rax = i64::from(-(error as i32)).cast_unsigned();
                    ptrace::setregs(thread, registers).ok();
                }
                Some(Return::Time(address)) => {
                    let seconds = i64::from_ne_bytes(self.word(address)) + self.clock_off;
                    self.memory.write_all_at(&seconds.to_ne_bytes(), address).unwrap();
                }
                None => {}
            }
            return;
        }
        let is_wall_clock = registers.rdi == nix::libc::CLOCK_REALTIME as u64;
        if registers.orig_rax == nix::libc::SYS_clock_gettime as u64 && is_wall_clock {
            self.pending.insert(thread, Return::Time(registers.rsi));
            return;
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
        registers.orig_rax = u64::MAX;
        ptrace::setregs(thread, registers).unwrap();
        self.pending.insert(thread, Return::Fail(error));
    }

    /// The call, if it touches a directory of interest.
    fn call(&self, number: u64, values: [u64; 5]) -> Option<Call> {
        let (name, arguments) = arguments(number.cast_signed())?;
        let mut base = None;
        for argument in arguments {
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
                return Some(Call { name, path });
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
            if word(at) == nix::libc::AT_SYSINFO_EHDR {
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
        if number == nix::libc::AT_FDCWD {
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
