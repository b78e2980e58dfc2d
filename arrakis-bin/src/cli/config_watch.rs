//! What a drainer notices of `config.toml` while it runs.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use arrakis_core::delivery::drain::Drainer;
use arrakis_store_fs::Layout;
use arrakis_store_fs::source::Shipper;

use crate::compose::{ConfiguredEndpoints, ship_config};
use crate::config::{Config, ConfigProblem, process_env};

/// How often `config.toml` is looked at for changes, and how long it must stay as it is before it is read: an
/// editor may be in the middle of writing it, and half a file is another configuration.
const CONFIG_INTERVAL: Duration = Duration::from_millis(500);

/// What shows that a file was changed, replaced or made readable: the time of its last change of any kind,
/// in seconds and nanoseconds, its number and its size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileState([i64; 2], u64, u64);

impl FileState {
    /// The state of `config.toml`; `None` if there is none.
    #[must_use]
    pub fn of(home: &Layout) -> Option<Self> {
        let found = std::fs::metadata(home.config()).ok()?;
        Some(Self([found.ctime(), found.ctime_nsec()], found.ino(), found.len()))
    }
}

/// Reloads `config.toml` when it changes, and retries every receiver.
pub async fn watch_config(
    home: &Layout,
    mut seen: Option<FileState>,
    drainer: &Drainer,
    endpoints: &ConfiguredEndpoints,
    shipper: &Shipper,
) {
    let mut before = seen;
    loop {
        let now = FileState::of(home);
        let is_written = std::mem::replace(&mut before, now) == now;
        if now != seen && is_written {
            seen = now;
            let (config, problems) = Config::load(home.home(), &process_env);
            tell_problems(&problems);
            endpoints.update(&config);
            shipper.configure(ship_config(&config));
            drainer.poke();
        }
        tokio::time::sleep(CONFIG_INTERVAL).await;
    }
}

/// Logs what cannot be used of a configuration.
pub fn tell_problems(problems: &[ConfigProblem]) {
    for problem in problems {
        tracing::warn!(target: "arrakis::queue", error = %problem, "the configuration has a problem");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use std::sync::Arc;

    use arrakis_core::base::clock::{Clock, Timestamp};
    use arrakis_core::base::envelope::{Envelope, Source};
    use arrakis_core::base::retry::Jitter;
    use arrakis_core::delivery::drain::{DrainConfig, Until};
    use arrakis_core::delivery::queue::{MemoryQueue, Queue};
    use arrakis_core::delivery::receiver::Receivers;
    use arrakis_core::delivery::transport::{Batch, Loopback, Outcome, Transport, TransportError};
    use arrakis_core::testkit::fakes::TokioClock;
    use arrakis_transport_http::client::Endpoints;
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use tokio::time::{Instant, sleep};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::compose::shipper;

    const URL: &str = "http://receiver/";

    /// Takes events where there is a key.
    #[derive(Debug)]
    struct Keyed {
        endpoints: Arc<ConfiguredEndpoints>,
        inner: Loopback,
    }

    #[async_trait::async_trait]
    impl Transport for Keyed {
        async fn deliver(&self, batch: Batch) -> Result<Vec<Outcome>, TransportError> {
            self.endpoints.endpoint(batch.destination())?;
            self.inner.deliver(batch).await
        }
    }

    /// Drains one event under a configuration that holds delivery, corrects it after an hour, and sees that the
    /// event is delivered within two seconds.
    async fn corrected(broken: Option<&str>) {
        let directory = tempfile::TempDir::new().unwrap();
        let home = Layout::new(directory.path());
        let write = |text: &str| std::fs::write(home.config(), text).unwrap();
        broken.map(write);
        let (config, _) = Config::load(home.home(), &|_| None);
        assert_eq!(config.hold.is_some(), broken.is_some());
        let endpoints = Arc::new(ConfiguredEndpoints::new(&config));
        let shipper = shipper(&home, &config);
        let transport =
            Arc::new(Keyed { endpoints: Arc::clone(&endpoints), inner: Loopback::default() });
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::new(Timestamp::EPOCH));
        let queue = Arc::new(MemoryQueue::new(Arc::clone(&clock)));
        let event = Envelope::new(
            "e".parse().unwrap(),
            Timestamp::EPOCH,
            URL,
            Source::default(),
            &b"{}"[..],
        );
        queue.push(event).await.unwrap();
        let jitter = Jitter::new(StdRng::seed_from_u64(1));
        let receivers = Receivers::new(Arc::clone(&clock), jitter.clone());
        let config = DrainConfig { clock, ..DrainConfig::new(jitter) };
        let drainer = Drainer::new(queue, Arc::<Keyed>::clone(&transport) as _, receivers, config);
        let shutdown = CancellationToken::new();
        let person = async {
            sleep(Duration::from_secs(3600)).await;
            assert!(
                transport.inner.stored().is_empty() && !shipper.is_enabled() | broken.is_none()
            );
            // The first half of a file is no configuration yet.
            write("");
            sleep(CONFIG_INTERVAL / 2).await;
            assert!(!shipper.is_enabled() | broken.is_none());
            write(&format!(
                "url = \"{URL}\"\napi_key = \"ark_k\"\nallow_plain_http = [\"receiver\"]\n"
            ));
            let corrected_at = Instant::now();
            while transport.inner.stored().is_empty() {
                sleep(Duration::from_millis(100)).await;
            }
            assert!(
                corrected_at.elapsed() < Duration::from_secs(2),
                "{:?}",
                corrected_at.elapsed()
            );
            assert!(shipper.is_enabled(), "transcripts are read again");
        };
        tokio::select! {
            _ = drainer.run(Until::Idle, &shutdown) => panic!("it ends while an event waits"),
            () = watch_config(&home, FileState::of(&home), &drainer, &endpoints, &shipper) => {}
            () = person => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_corrected_configuration_is_used_within_two_seconds() {
        corrected(None).await;
        let rule =
            format!("url = \"{URL}\"\napi_key = \"ark_k\"\n[[redact.rules]]\nname = \"n\"\n");
        for broken in ["x =", "enabled = 1", "redact = 5", &format!("{rule}pattern = \"(\"\n")] {
            corrected(Some(broken)).await;
        }
    }
}
