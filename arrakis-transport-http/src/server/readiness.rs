//! Whether the store takes writes, asked no more often than it helps.
//!
//! Asking is a small write, and a disk that is full may have room for that: so what became of the latest
//! events counts as well.
//!
//! The store is asked in a task of its own: a probe that goes away takes nothing with it, so that of
//! many impatient probes of a store that hangs still only one question is under way.

use std::sync::Arc;
use std::time::Duration;

use arrakis_core::record::store::EventStore;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// How long an answer holds: probes come from several sides, and each is a write.
const FRESH: Duration = Duration::from_millis(500);

/// How long the store may take to answer. With [`FRESH`] this is less than two seconds, in which
/// readiness must notice a store that hangs.
const TIMEOUT: Duration = Duration::from_millis(1400);

/// When a question is given up that the store never answered, so that another can be asked.
const GIVE_UP: Duration = Duration::from_secs(30);

/// How long the store is not ready after it took no events, unless it took some since. It ends by itself,
/// because a load balancer sends none to who is not ready.
const REFUSED: Duration = Duration::from_secs(3);

/// Why the store takes no writes, for whoever asked.
type Answer = Result<(), &'static str>;

/// How far a question to the store has come.
#[derive(Debug, Clone, Copy)]
enum Progress {
    Asked,
    /// No answer within [`TIMEOUT`]; one may still come.
    Hanging,
    Answered(Answer, Instant),
}

/// Asks the store for whoever wants to know.
#[derive(Debug)]
pub(super) struct Readiness {
    store: Arc<dyn EventStore>,
    question: Mutex<Option<watch::Receiver<Progress>>>,
    /// When events were last refused, unless some were taken since.
    refused: Mutex<Option<Instant>>,
}

impl Readiness {
    pub(super) fn new(store: Arc<dyn EventStore>) -> Self {
        Self { store, question: Mutex::default(), refused: Mutex::default() }
    }

    /// Tells whether the store took events just now.
    pub(super) fn took_events(&self, took: bool) {
        *self.refused() = (!took).then(Instant::now);
    }

    /// Whether the store takes writes, and why not.
    pub(super) async fn check(&self) -> Answer {
        if self.refused().is_some_and(|at| at.elapsed() < REFUSED) {
            return Err("the store does not take events at the moment");
        }
        let mut question = self.question();
        let progress = question.wait_for(|progress| !matches!(progress, Progress::Asked)).await;
        match progress.as_deref() {
            Ok(Progress::Answered(answer, _)) => *answer,
            Ok(_) => Err("the store takes too long to answer"),
            Err(_) => Err("the store failed"),
        }
    }

    fn refused(&self) -> MutexGuard<'_, Option<Instant>> {
        self.refused.lock()
    }

    /// The question that is under way or was just answered, else a new one.
    fn question(&self) -> watch::Receiver<Progress> {
        let mut question = self.question.lock();
        if let Some(current) = question.as_ref().filter(|question| is_current(question)) {
            return current.clone();
        }
        let (progress, asked) = watch::channel(Progress::Asked);
        tokio::spawn(ask(Arc::clone(&self.store), progress));
        question.insert(asked).clone()
    }
}

fn is_current(question: &watch::Receiver<Progress>) -> bool {
    match *question.borrow() {
        Progress::Answered(_, at) => at.elapsed() < FRESH,
        // Whoever asked has gone: the question was given up.
        Progress::Asked | Progress::Hanging => question.has_changed().is_ok(),
    }
}

async fn ask(store: Arc<dyn EventStore>, progress: watch::Sender<Progress>) {
    let mut ping = store.ping();
    let answer = match timeout(TIMEOUT, &mut ping).await {
        Ok(answer) => answer,
        Err(_) => {
            tracing::error!(target: "arrakis::server", "the store does not answer");
            progress.send_replace(Progress::Hanging);
            let Ok(answer) = timeout(GIVE_UP, ping).await else { return };
            answer
        }
    };
    let answer = answer.map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        tracing::error!(target: "arrakis::server", %error, cause, "the store takes no writes");
        "the store is not available at the moment"
    });
    progress.send_replace(Progress::Answered(answer, Instant::now()));
}
