//! A Postgres server in a temporary folder.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, User, chown, geteuid};

/// A server could not be started.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// The machine has no Postgres server.
    #[error(
        "no Postgres server was found in PATH or /usr/lib/postgresql: install it (Debian: apt-get \
         install postgresql; macOS: brew install postgresql), or name one in \
         ARRAKIS_TEST_DATABASE_URL"
    )]
    NotInstalled,
    /// Postgres refuses to run as root, and there is no other user to run as.
    #[error(
        "Postgres does not run as root, and there is neither a user postgres nor a user nobody"
    )]
    NoUser,
    /// A step failed.
    #[error("cannot start a Postgres server: {step}")]
    Step {
        /// What was tried, and what it said.
        step: String,
        /// Why it failed.
        source: io::Error,
    },
}

/// The same sentence: tests unwrap this, and should show what to do.
impl std::fmt::Debug for ClusterError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

fn step<T>(what: &str, result: io::Result<T>) -> Result<T, ClusterError> {
    result.map_err(|source| ClusterError::Step { step: format!("{what}: {source}"), source })
}

/// A running server. It ends, and its folder is deleted, when this is dropped or the process ends.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    bin: PathBuf,
    owner: Option<(Uid, Gid)>,
    options: Vec<String>,
    keeper: Option<(Child, ChildStdin)>,
}

impl Cluster {
    /// This process's server: started by the first call, and shared.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub fn shared() -> Result<&'static Self, &'static ClusterError> {
        static SHARED: OnceLock<Result<Cluster, ClusterError>> = OnceLock::new();
        // What tests write need not survive a power cut. Benches and crash tests start their own.
        let start = || Cluster::start(&["fsync=off", "full_page_writes=off"]);
        SHARED.get_or_init(start).as_ref()
    }

    /// Starts a server with these settings (`name=value`) besides its defaults.
    ///
    /// # Errors
    ///
    /// There is no Postgres on this machine, or it does not start.
    pub fn start(options: &[&str]) -> Result<Self, ClusterError> {
        let bin = find().ok_or(ClusterError::NotInstalled)?;
        let owner = unprivileged()?;
        let folder =
            step("make a folder", tempfile::Builder::new().prefix("arrakis-pg-").tempdir())?;
        let folder = folder.keep();
        let private = fs::Permissions::from_mode(0o700);
        step("make the folder private", fs::set_permissions(&folder, private))?;
        if let Some((uid, gid)) = owner {
            step("give the folder away", chown(&folder, Some(uid), Some(gid)).map_err(Into::into))?;
        }
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let mut cluster = Self { folder, bin, owner, options, keeper: None };
        let mut initdb = cluster.command("initdb");
        initdb.args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8"]);
        initdb.args(["--locale=C", "-D"]).arg(cluster.data());
        let made = step("run initdb", initdb.output())?;
        if !made.status.success() {
            let said = String::from_utf8_lossy(&made.stderr).into_owned();
            let source = io::Error::other(said);
            return Err(ClusterError::Step { step: format!("initdb failed: {source}"), source });
        }
        cluster.run()?;
        Ok(cluster)
    }

    /// The URL of a database in this server.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        let folder = self.folder.to_string_lossy().replace('/', "%2F");
        format!("postgres://postgres@{folder}/{database}")
    }

    /// What the server has logged so far, with `logging_collector=on` among its settings.
    #[must_use]
    pub fn log(&self) -> String {
        let files = fs::read_dir(self.data().join("log")).into_iter().flatten().flatten();
        files.filter_map(|file| fs::read_to_string(file.path()).ok()).collect()
    }

    /// Kills every process of the server at once, as a power cut would.
    pub fn kill(&mut self) {
        let signal = |pid: i32, signal: Signal| {
            // One that has gone meanwhile is as good as killed.
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).ok();
        };
        let postmaster = self.postmaster();
        // It must not start another while those that it has are counted.
        postmaster.into_iter().for_each(|pid| signal(pid, Signal::SIGSTOP));
        let pids: Vec<i32> = postmaster.into_iter().chain(self.backends()).collect();
        pids.iter().for_each(|&pid| signal(pid, Signal::SIGKILL));
        self.reap();
        // One that waits for the disk lives on, and no server starts while it has the old one's memory.
        while pids.iter().any(|&pid| is_alive(pid)) {
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts the server again after [`kill`](Self::kill).
    ///
    /// # Errors
    ///
    /// It does not start.
    pub fn restart(&mut self) -> Result<(), ClusterError> {
        self.reap();
        self.run()
    }

    /// Starts the server, under a shell that ends it when this process is gone: the other end of the
    /// shell's standard input closes then, whatever way the process ends.
    fn run(&mut self) -> Result<(), ClusterError> {
        const KEEPER: &str = r#"
            trap '' INT
            "$@" & pid=$!
            cat >/dev/null
            kill -QUIT $pid 2>/dev/null
            wait $pid
            [ -e "$KEEP" ] || rm -rf "$FOLDER""#;
        let mut keeper = self.command("");
        keeper.args(["-c", KEEPER, "postgres-keeper"]).arg(self.bin.join("postgres"));
        keeper.arg("-D").arg(self.data()).arg("-k").arg(&self.folder);
        let fixed = ["listen_addresses=", "max_connections=200", "log_min_messages=fatal"];
        for option in fixed.into_iter().chain(self.options.iter().map(String::as_str)) {
            keeper.args(["-c", option]);
        }
        keeper.env("FOLDER", &self.folder).env("KEEP", self.folder.join("keep"));
        keeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        keeper.process_group(0);
        // A server that was killed has left its file behind.
        let before = self.postmaster();
        let mut child = step("run postgres", keeper.spawn())?;
        let stdin = child.stdin.take();
        let Some(stdin) = stdin else {
            return step("run postgres", Err(io::Error::other("it has no standard input")));
        };
        self.keeper = Some((child, stdin));
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.is_ready(before) {
            if Instant::now() > deadline {
                let late = io::Error::new(io::ErrorKind::TimedOut, "it does not get ready");
                return step("wait for postgres", Err(late));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Whether a server after the one `before` takes connections, as the last line of its file says.
    fn is_ready(&self, before: Option<i32>) -> bool {
        if self.postmaster() == before {
            return false;
        }
        let text = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        text.lines().nth(7).is_some_and(|line| line.trim() == "ready")
    }

    /// Ends the keeper and leaves the folder.
    fn reap(&mut self) {
        let Some((mut child, stdin)) = self.keeper.take() else { return };
        let keep = self.folder.join("keep");
        fs::write(&keep, "").ok();
        drop(stdin);
        child.wait().ok();
        fs::remove_file(keep).ok();
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn postmaster(&self) -> Option<i32> {
        let text = fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        text.lines().next()?.trim().parse().ok()
    }

    /// The server's other processes, where the system tells.
    fn backends(&self) -> Vec<i32> {
        let Some(postmaster) = self.postmaster() else { return Vec::new() };
        let children = format!("/proc/{postmaster}/task/{postmaster}/children");
        let text = fs::read_to_string(children).unwrap_or_default();
        text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// A program of the server (a shell for none), run by a user that Postgres accepts.
    fn command(&self, program: &str) -> Command {
        let program = if program.is_empty() { "/bin/sh".into() } else { self.bin.join(program) };
        let mut command = Command::new(program);
        command.current_dir(&self.folder).env("LC_ALL", "C");
        if let Some((uid, gid)) = self.owner {
            command.uid(uid.as_raw()).gid(gid.as_raw());
        }
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some((mut child, stdin)) = self.keeper.take() {
            drop(stdin);
            child.wait().ok();
        }
    }
}

/// Whether a process runs, where the system tells.
fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

/// The folder of the newest server binaries.
fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).find(|folder| folder.join("initdb").is_file());
    let version = |folder: &PathBuf| {
        let name = folder.file_name()?.to_str()?;
        name.split('.').next()?.parse::<u32>().ok()
    };
    let installed = fs::read_dir("/usr/lib/postgresql").ok();
    let mut installed: Vec<PathBuf> =
        installed.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    installed.sort_by_key(version);
    let debian = installed.into_iter().rev().map(|folder| folder.join("bin"));
    in_path.into_iter().chain(debian).find(|folder| folder.join("initdb").is_file())
}

/// Whom the server runs as; none is this process's own user.
fn unprivileged() -> Result<Option<(Uid, Gid)>, ClusterError> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let user = |name| User::from_name(name).ok().flatten();
    let user = user("postgres").or_else(|| user("nobody")).ok_or(ClusterError::NoUser)?;
    Ok(Some((user.uid, user.gid)))
}
