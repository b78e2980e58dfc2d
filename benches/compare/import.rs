//! The import of past transcripts.
//!
//! Build first (`cargo build --release -p arrakis-bin -p arrakis-benches`), then run this from the workspace:
//! `cargo run --release -p arrakis-benches --bin compare-import -- --megabytes 200`. It writes transcripts as the client has
//! them and runs the real `arrakis import` into an empty home. No server answers, so what is measured is reading, redacting and
//! spooling.

#![allow(clippy::print_stdout, reason = "it prints its result")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

/// How long a transcript is, about.
const FILE_BYTES: usize = 2_700_000;

/// How often the process is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What source code and talk are made of here.
const WORDS: &[&str] = &[
    "let", "match", "fn", "the", "spool", "of", "and", "reader", "returns", "None", "where",
    "line", "self", "builder", "error", "0x7f", "queue", "drain", "->", "=", "{", "}", "(", ")",
    "// note", "path", "config",
];

/// What one process took.
#[derive(Debug, Default)]
struct Cost {
    seconds: f64,
    processor_seconds: f64,
    peak_kib: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let megabytes = megabytes_wanted()?;
    let arrakis = std::env::current_exe()?.with_file_name("arrakis");
    if !arrakis.exists() {
        return Err(format!("{} is missing: cargo build --release", arrakis.display()).into());
    }
    let folder = tempfile::tempdir()?;
    let projects = folder.path().join("claude/projects/-home-dev-project");
    fs::create_dir_all(&projects)?;
    let (mut random, mut bytes, mut lines) = (StdRng::seed_from_u64(1), 0, 0);
    while bytes < megabytes * 1_000_000 {
        let (more, count) = write_transcript(&projects, &mut random)?;
        bytes += more;
        lines += count;
    }
    let cost = import(&arrakis, folder.path())?;
    #[allow(clippy::cast_precision_loss, reason = "it is printed with one digit")]
    let read = bytes as f64 / 1e6;
    println!(
        "{read:.0} MB in {lines} lines: {:.1} s, {:.1} MB/s, {:.1} s of processor time, {:.1} MiB at its peak",
        cost.seconds,
        read / cost.seconds,
        cost.processor_seconds,
        f64::from(u32::try_from(cost.peak_kib)?) / 1024.0,
    );
    Ok(())
}

fn megabytes_wanted() -> Result<usize, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [] => Ok(200),
        [flag, number] if flag == "--megabytes" => Ok(number.parse()?),
        _ => Err("usage: compare-import [--megabytes N]".into()),
    }
}

/// Imports everything into an empty home.
fn import(arrakis: &Path, folder: &Path) -> Result<Cost, Box<dyn Error>> {
    let home = folder.join("arrakis");
    fs::create_dir_all(&home)?;
    // Nobody listens there, and the spool takes all.
    let config =
        "url = \"http://127.0.0.1:9/api/claude-hooks\"\n[spool]\nmax_bytes = 100000000000\n";
    fs::write(home.join("config.toml"), config)?;
    let started = Instant::now();
    let mut child = Command::new(arrakis)
        .arg("import")
        .env("HOME", folder)
        .env("ARRAKIS_HOME", &home)
        .env("CLAUDE_CONFIG_DIR", folder.join("claude"))
        .stdout(Stdio::null())
        .spawn()?;
    let mut cost = Cost::default();
    let status = loop {
        look(&child, &mut cost);
        if let Some(status) = child.try_wait()? {
            break status;
        }
        std::thread::sleep(LOOK_EVERY);
    };
    cost.seconds = started.elapsed().as_secs_f64();
    if !status.success() {
        return Err(format!("`arrakis import` failed: {status}").into());
    }
    Ok(cost)
}

/// Notes what a process has taken so far; nothing where it has ended.
fn look(child: &Child, cost: &mut Cost) {
    let read = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", child.id())).ok();
    let peak = read("status").and_then(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().to_owned();
        line.strip_suffix(" kB")?.trim().parse().ok()
    });
    cost.peak_kib = cost.peak_kib.max(peak.unwrap_or(0));
    // Behind the name, which may have spaces: the state, and ten fields before the times, in hundredths of a second.
    let ticks = read("stat").and_then(|stat| {
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let mut next = || fields.next()?.parse::<u32>().ok();
        Some(f64::from(next()?) + f64::from(next()?))
    });
    cost.processor_seconds = cost.processor_seconds.max(ticks.unwrap_or(0.0) / 100.0);
}

/// Writes the transcript of one session; returns its bytes and lines.
fn write_transcript(folder: &Path, random: &mut StdRng) -> Result<(usize, usize), Box<dyn Error>> {
    let session = uuid(random);
    let mut file = BufWriter::new(File::create(folder.join(format!("{session}.jsonl")))?);
    let (mut bytes, mut lines, mut parent) = (0, 0, Value::Null);
    while bytes < FILE_BYTES {
        let id = uuid(random);
        let second = lines % 86_400;
        let (hour, minute) = (second / 3600, second / 60 % 60);
        let mut line = json!({"parentUuid": parent, "isSidechain": false, "userType": "external",
            "cwd": "/home/dev/project", "sessionId": session, "version": "2.1.332", "gitBranch": "main",
            "uuid": id, "timestamp": format!("2026-11-24T{hour:02}:{minute:02}:{:02}.000Z", second % 60)});
        for (name, value) in said(lines, random) {
            line[name] = value;
        }
        let text = format!("{line}\n");
        file.write_all(text.as_bytes())?;
        (bytes, lines, parent) = (bytes + text.len(), lines + 1, Value::String(id));
    }
    file.flush()?;
    Ok((bytes, lines))
}

/// What a line says: prompts, answers, tool uses with their results, and requests, which are left out.
fn said(n: usize, random: &mut StdRng) -> Vec<(&'static str, Value)> {
    let tool_use = format!("toolu_{:08}", n / 5);
    let answer = |content: Value| {
        json!({"id": format!("msg_{n:08}"), "type": "message", "role": "assistant", "model": "claude-opus-5-5",
            "content": [content], "usage": {"input_tokens": 1200, "output_tokens": 80}})
    };
    let user = |content: Value| json!({"role": "user", "content": content});
    match n % 5 {
        0 => vec![("type", "user".into()), ("message", user(words(40, random).into()))],
        1 => vec![
            ("type", "assistant".into()),
            ("requestId", format!("req_{n:08}").into()),
            ("message", answer(json!({"type": "text", "text": words(120, random)}))),
        ],
        2 => {
            let input = json!({"file_path": "/home/dev/project/src/lib.rs"});
            let call = json!({"type": "tool_use", "id": tool_use, "name": "Read", "input": input});
            vec![
                ("type", "assistant".into()),
                ("requestId", format!("req_{n:08}").into()),
                ("message", answer(call)),
            ]
        }
        3 => {
            let text = words(random.random_range(100..3000), random);
            let result = json!({"type": "tool_result", "tool_use_id": tool_use, "content": text, "is_error": false});
            vec![
                ("type", "user".into()),
                ("message", user(json!([result]))),
                ("toolUseResult", json!({"type": "text", "file": {"content": text}})),
            ]
        }
        _ => vec![("type", "progress".into()), ("data", words(20, random).into())],
    }
}

fn words(count: usize, random: &mut StdRng) -> String {
    let words: Vec<&str> = (0..count).filter_map(|_| WORDS.choose(random)).copied().collect();
    words.chunks(12).map(|line| line.join(" ")).collect::<Vec<_>>().join("\n")
}

fn uuid(random: &mut StdRng) -> String {
    let n: u128 = random.random();
    let hex = format!("{n:032x}");
    let parts = [&hex[..8], &hex[8..12], "4000", "8000", &hex[20..]];
    parts.join("-")
}
