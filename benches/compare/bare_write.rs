//! The least that a program can do to keep stdin durably: create, write, fsync, rename, fsync the
//! directory. `bare-write DIRECTORY`, which must hold `tmp` and `pending`.

use std::fs::{File, OpenOptions, rename};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let directory = PathBuf::from(std::env::args_os().nth(1).unwrap_or_default());
    let mut payload = Vec::new();
    std::io::stdin().lock().read_to_end(&mut payload)?;
    let name = std::process::id().to_string();
    let (temporary, pending) = (directory.join("tmp").join(&name), directory.join("pending"));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(&payload)?;
    file.sync_all()?;
    rename(&temporary, pending.join(name))?;
    File::open(pending)?.sync_all()
}
