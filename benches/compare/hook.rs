//! The hook against a bare program that does the same durable write.
//!
//! Build both first (`cargo build --release`), then run this from the workspace:
//! `cargo run --release -p arrakis-benches --bin compare-hook`. Every round runs each program once, in
//! turn, so that what else the machine does meets all alike; what counts is the ratio.

#![allow(clippy::print_stdout, reason = "it prints its result")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

use std::fs::File;
use std::io::{Error, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 300;

fn main() -> std::io::Result<()> {
    let programs = std::env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default();
    let (hook, bare) = (programs.join("arrakis-hook"), programs.join("bare-write"));
    for program in [&hook, &bare] {
        if !program.exists() {
            let message =
                format!("{} is missing: cargo build --release --workspace", program.display());
            return Err(Error::other(message));
        }
    }
    let directory = tempfile::TempDir::new()?;
    let payload = directory.path().join("payload.json");
    let text = format!(
        r#"{{"session_id":"s","cwd":"/p","hook_event_name":"PostToolUse","tool_name":"Bash","tool_response":"{}"}}"#,
        "x".repeat(900)
    );
    File::create(&payload)?.write_all(text.as_bytes())?;
    for folder in ["bare/tmp", "bare/pending"] {
        std::fs::create_dir_all(directory.path().join(folder))?;
    }
    // A server that takes connections and never answers: what the hook must not wait for.
    let hanging = std::net::TcpListener::bind("127.0.0.1:0")?;
    let hanging = format!("http://{}/api/claude-hooks", hanging.local_addr()?);
    let nobody = "http://127.0.0.1:9/api/claude-hooks".to_owned();

    let home = |name: &str| directory.path().join(name);
    let run_hook = |name: &str, url: &str| {
        let mut command = Command::new(&hook);
        command.env("ARRAKIS_HOME", home(name)).env("CLAUDE_HOOK_API_URL", url);
        command.env("CLAUDE_HOOK_API_KEY", "ark_none");
        command
    };
    let mut names = ["bare program", "hook, server down", "hook, server hanging"].into_iter();
    let mut times: [Vec<Duration>; 3] = Default::default();
    for _ in 0..ROUNDS {
        let mut bare = Command::new(&bare);
        bare.arg(home("bare"));
        let commands = [bare, run_hook("down", &nobody), run_hook("hanging", &hanging)];
        for (command, times) in commands.into_iter().zip(&mut times) {
            times.push(time(command, &payload)?);
        }
    }
    for home in [home("down"), home("hanging")] {
        stop_drainer(&home);
    }
    let base = percentile(&mut times[0].clone(), 50);
    println!("{ROUNDS} runs each, whole process, payload of {} bytes\n", text.len());
    println!("{:<22}{:>10}{:>10}{:>9}", "", "p50", "p99", "ratio");
    for times in &mut times {
        let (p50, p99) = (percentile(times, 50), percentile(times, 99));
        let ratio = p50.as_secs_f64() / base.as_secs_f64();
        println!("{:<22}{p50:>10.2?}{p99:>10.2?}{ratio:>8.2}x", names.next().unwrap_or_default());
    }
    println!("\nbudget: p50 at most 1.5x the bare program, p99 at most 15 ms");
    Ok(())
}

fn time(mut command: Command, payload: &PathBuf) -> std::io::Result<Duration> {
    command.stdin(File::open(payload)?).stdout(Stdio::null()).stderr(Stdio::null());
    let started = Instant::now();
    let status = command.status()?;
    let elapsed = started.elapsed();
    if status.success() { Ok(elapsed) } else { Err(Error::other(format!("{command:?}: {status}"))) }
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() - 1) * percent / 100]
}

/// Ends the drainer that the hooks of a home have started, as its home goes away.
fn stop_drainer(home: &Path) {
    let pattern = format!("ARRAKIS_HOME={}", home.display());
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
        if environment.split(|byte| *byte == 0).any(|entry| entry == pattern.as_bytes()) {
            let id = process.file_name();
            Command::new("kill").arg(id).status().ok();
        }
    }
}
