//! How soon all works again, with the real programs: after a drainer's death, and after a full disk.
//!
//! Build first (`cargo build --release`), then run this from the workspace:
//! `cargo run --release -p arrakis-benches --bin compare-recovery -- --times 20`. The full disk is a file
//! system in memory; where this program may not mount one it says so and measures the first alone.

#![allow(clippy::print_stdout, reason = "it prints its result")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use arrakis_store_fs::{Layout, is_idle};

type Failure = Box<dyn Error>;

/// Within so long all must work again.
const BUDGET: Duration = Duration::from_secs(5);

/// How long anything is waited for.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How large the disk is that fills up.
const DISK: &str = "size=16m";

fn main() -> Result<(), Failure> {
    let times = times_wanted()?;
    let directory = tempfile::TempDir::new()?;
    let programs = std::env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default();
    let server = Programs { programs: &programs, home: directory.path().join("server") };
    let mut up = Running(
        server
            .command("arrakis", &["up", "--json", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()?,
    );
    let url = said_url(&mut up)?;
    let key = fs::read_to_string(server.home.join("config.toml"))?;

    let way = Way::to(&url)?;
    let client = Programs { programs: &programs, home: directory.path().join("home") };
    fs::create_dir(&client.home)?;
    fs::write(client.home.join("config.toml"), key.replace(&url, &way.url))?;
    let took = (0..times).map(|_| a_death(&client, &way)).collect::<Result<Vec<_>, _>>()?;
    report("a drainer dies; its event is delivered", took);

    let disk = directory.path().join("disk");
    fs::create_dir(&disk)?;
    let mount =
        Command::new("mount").args(["-t", "tmpfs", "-o", DISK, "none"]).arg(&disk).output()?;
    if !mount.status.success() {
        println!("a full disk: not measured, a file system cannot be mounted here");
        return Ok(());
    }
    let _mounted = Mounted(disk.clone());
    let client = Programs { programs: &programs, home: disk.join("home") };
    fs::create_dir(&client.home)?;
    fs::write(client.home.join("config.toml"), key)?;
    let took = (0..times).map(|_| a_full_disk(&client, &disk)).collect::<Result<Vec<_>, _>>()?;
    let (captured, delivered): (Vec<_>, Vec<_>) = took.into_iter().unzip();
    report("space is back; a hook's event is in its home", captured);
    report("space is back; all is delivered and settled", delivered);
    Ok(())
}

/// One drainer dies with an event in its hands while another is at work.
fn a_death(client: &Programs<'_>, way: &Way) -> Result<Duration, Failure> {
    let layout = Layout::new(&client.home);
    client.hook()?;
    way.swallow.store(true, Ordering::SeqCst);
    let mut holder = Running(client.command("arrakis", &["drain"]).spawn()?);
    let is_held = || Ok::<_, io::Error>(!way.swallow.load(Ordering::SeqCst));
    wait_until("it has the event", is_held)?;
    let _other = Running(client.command("arrakis", &["drain", "--parallel"]).spawn()?);
    client.hook()?;
    wait_until("the rest is delivered", || Ok::<_, io::Error>(events(&layout.pending())? == 0))?;
    // Somewhere between two looks of the other for the dead.
    thread::sleep(Duration::from_millis(1000 + rand::random_range(0..2000)));
    holder.0.kill()?;
    let died = Instant::now();
    wait_until("it is delivered", || is_idle(&layout))?;
    Ok(died.elapsed())
}

/// The disk fills up while a drainer works, and is emptied.
fn a_full_disk(client: &Programs<'_>, disk: &Path) -> Result<(Duration, Duration), Failure> {
    let layout = Layout::new(&client.home);
    let _drainer = Running(client.command("arrakis", &["drain"]).spawn()?);
    client.hook()?;
    wait_until("a drainer is at work", || is_idle(&layout))?;
    let filler = disk.join("filler");
    let full = fill(&filler);
    if !full.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::StorageFull) {
        return Err(format!("the disk is not full: {full:?}").into());
    }
    // The first takes what was set aside, further ones go to the fallback home.
    for _ in 0..3 {
        client.hook()?;
        fill(&filler).ok();
    }
    // A hook would have started it.
    let _for_fallback = Running(client.command("arrakis", &["drain"]).spawn()?);
    fs::remove_file(&filler)?;
    let back = Instant::now();
    client.hook()?;
    let captured = back.elapsed();
    let fallback = Layout::new(client.fallback());
    wait_until("all is delivered", || {
        Ok::<_, io::Error>(is_idle(&layout)? && is_idle(&fallback)?)
    })?;
    Ok((captured, back.elapsed()))
}

/// Writes to a file until the disk is full.
fn fill(path: &Path) -> io::Result<()> {
    let mut file = File::options().append(true).create(true).open(path)?;
    for size in [64 * 1024, 1] {
        let filled = (0..).try_for_each(|_| file.write_all(&vec![0; size]));
        if size == 1 {
            return filled;
        }
    }
    Ok(())
}

fn events(directory: &Path) -> io::Result<usize> {
    let names = fs::read_dir(directory)?.flatten().map(|entry| entry.file_name());
    Ok(names.filter(|name| name.as_encoded_bytes().ends_with(b".event")).count())
}

fn wait_until<E: Error + 'static>(
    what: &str,
    done: impl Fn() -> Result<bool, E>,
) -> Result<(), Failure> {
    let deadline = Instant::now() + TIMEOUT;
    while !done()? {
        if Instant::now() >= deadline {
            return Err(format!("waited in vain until {what}").into());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn report(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let (Some(longest), Some(median)) = (took.last(), took.get(took.len() / 2)) else { return };
    println!(
        "{what}: p50 {median:.2?}, longest {longest:.2?} of {} (budget: {BUDGET:?})",
        took.len()
    );
}

fn times_wanted() -> Result<usize, Failure> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => Ok(20),
        (Some("--times"), Some(times)) => Ok(times.parse()?),
        _ => Err("usage: compare-recovery [--times N]".into()),
    }
}

/// The programs, in a home of their own.
struct Programs<'a> {
    programs: &'a Path,
    home: PathBuf,
}

impl Programs<'_> {
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("ARRAKIS_HOME", &self.home)
            .env("ARRAKIS_FALLBACK_HOME", self.fallback())
            // Drainers are started here, and by nobody else.
            .env("ARRAKIS_BIN", "true")
            .stdout(Stdio::null());
        command
    }

    fn fallback(&self) -> PathBuf {
        let beside = self.programs.join("..");
        self.home.parent().and_then(Path::parent).unwrap_or(&beside).join("fallback")
    }

    fn hook(&self) -> Result<(), Failure> {
        let mut hook = self.command("arrakis-hook", &[]).stdin(Stdio::piped()).spawn()?;
        if let Some(mut stdin) = hook.stdin.take() {
            stdin.write_all(br#"{"session_id":"recovery","hook_event_name":"Stop"}"#)?;
        }
        if hook.wait()?.success() { Ok(()) } else { Err("a hook failed".into()) }
    }
}

/// A process that does not outlive this one.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        Command::new("umount").arg(&self.0).status().ok();
    }
}

fn said_url(up: &mut Running) -> Result<String, Failure> {
    let stdout = up.0.stdout.take().ok_or("the server has no stdout")?;
    let mut text = String::new();
    for line in BufReader::new(stdout).lines() {
        text.push_str(&line?);
        if let Ok(said) = serde_json::from_str::<serde_json::Value>(&text) {
            return Ok(said["url"].as_str().unwrap_or_default().to_owned());
        }
    }
    Err("the server did not start".into())
}

/// A way to the server on which one connection can be swallowed.
struct Way {
    url: String,
    swallow: Arc<AtomicBool>,
}

impl Way {
    fn to(url: &str) -> Result<Self, Failure> {
        let address = url.trim_start_matches("http://").split('/').next().unwrap_or_default();
        let (address, listener) = (address.to_owned(), TcpListener::bind("127.0.0.1:0")?);
        let own = url.replace(&address, &listener.local_addr()?.to_string());
        let swallow = Arc::new(AtomicBool::new(false));
        let next = Arc::clone(&swallow);
        thread::spawn(move || {
            let mut swallowed = Vec::new();
            for client in listener.incoming().flatten() {
                if next.swap(false, Ordering::SeqCst) {
                    swallowed.push(client);
                } else if let Ok(server) = TcpStream::connect(&address) {
                    join(&client, &server).ok();
                }
            }
        });
        Ok(Self { url: own, swallow })
    }
}

/// Passes on what either side says.
fn join(client: &TcpStream, server: &TcpStream) -> io::Result<()> {
    for (from, to) in [(client, server), (server, client)] {
        let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
        thread::spawn(move || {
            let mut bytes = vec![0; 64 * 1024];
            while let Ok(count) = from.read(&mut bytes)
                && count > 0
                && to.write_all(&bytes[..count]).is_ok()
            {}
            to.shutdown(std::net::Shutdown::Both).ok();
        });
    }
    Ok(())
}
