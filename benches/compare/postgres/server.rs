//! The real server, as a process of its own.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Failure;

/// A running `arrakis-server`; it ends with this.
pub(crate) struct Server {
    process: Child,
    address: SocketAddr,
    _home: tempfile::TempDir,
}

/// The key of every server here.
pub(crate) const KEY: &str = "the-key-of-the-bench";

impl Server {
    pub(crate) async fn start(database_url: &str) -> Result<Self, Failure> {
        let program = std::env::current_exe()?
            .parent()
            .map(Path::to_owned)
            .unwrap_or_default()
            .join("arrakis-server");
        if !program.exists() {
            let program = program.display();
            return Err(format!("{program} is missing: cargo build --release --workspace").into());
        }
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let home = tempfile::TempDir::new()?;
        let process = Command::new(program)
            .args(["--listen", &address.to_string()])
            .env("DATABASE_URL", database_url)
            .env("ARRAKIS_HOME", home.path())
            .env("ARRAKIS_LOG", "error")
            .env("ARRAKIS_API_KEY", KEY)
            .stdout(Stdio::null())
            .spawn()?;
        let server = Self { process, address, _home: home };
        let deadline = Instant::now() + Duration::from_secs(30);
        while tokio::net::TcpStream::connect(address).await.is_err() {
            if Instant::now() > deadline {
                return Err("the server does not listen".into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(server)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The largest that the process has been in memory.
    pub(crate) fn peak_memory_bytes(&self) -> Result<u64, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib: u64 =
            line.and_then(|line| line.trim().split(' ').next()).unwrap_or("0").parse()?;
        Ok(kib * 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
