//! Heavy work, beside the async workers.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread::available_parallelism;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// Most bytes that an async worker decompresses, parses, redacts or projects itself. It takes about a millisecond,
/// for which all other requests of the worker wait; nearly all events are smaller.
pub const HEAVY_BYTES: usize = 64 * 1024;

/// Runs heavy work on tokio's blocking threads, as many jobs at a time as there are cores. Further callers wait in
/// line. Clones share the line.
#[derive(Debug, Clone)]
pub struct HeavyPool(Arc<Semaphore>);

impl Default for HeavyPool {
    fn default() -> Self {
        Self::new(available_parallelism().map_or(1, usize::from))
    }
}

impl HeavyPool {
    /// A pool that runs `jobs` jobs at a time.
    #[must_use]
    pub fn new(jobs: usize) -> Self {
        Self(Arc::new(Semaphore::new(jobs.max(1))))
    }

    /// Runs `work` over `bytes` bytes: at once where they are few, else in the pool. Work that has begun goes on
    /// when its caller is dropped, and keeps its place in the pool and what it owns until it ends.
    pub async fn run<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        if bytes <= HEAVY_BYTES {
            return work();
        }
        let place = Arc::clone(&self.0).acquire_owned().await;
        let done = spawn_blocking(move || {
            let _place = place;
            work()
        });
        match done.await.map_err(tokio::task::JoinError::try_into_panic) {
            Ok(result) => result,
            Err(Ok(panic)) => resume_unwind(panic),
            // The runtime shuts down, and drops this future as well.
            Err(Err(_)) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use parking_lot::Mutex;

    use super::*;

    #[tokio::test]
    async fn no_more_jobs_run_than_there_are_places_and_light_work_does_not_wait() {
        let pool = HeavyPool::new(1);
        let order = Arc::new(Mutex::new(Vec::new()));
        let (open, gate) = mpsc::channel();
        let job = |name: &'static str, wait: Option<mpsc::Receiver<()>>| {
            let order = Arc::clone(&order);
            move || {
                order.lock().push(format!("{name} begins"));
                if let Some(wait) = wait {
                    wait.recv().unwrap();
                }
                order.lock().push(format!("{name} ends"));
            }
        };
        tokio::join!(
            biased;
            pool.run(HEAVY_BYTES + 1, job("first", Some(gate))),
            pool.run(HEAVY_BYTES + 1, job("second", None)),
            async {
                pool.run(HEAVY_BYTES, || ()).await;
                open.send(()).unwrap();
            },
        );
        assert_eq!(*order.lock(), ["first begins", "first ends", "second begins", "second ends"]);
    }

    #[tokio::test]
    async fn work_goes_on_in_its_place_when_its_caller_is_dropped() {
        let pool = HeavyPool::new(1);
        let (open, gate) = mpsc::channel();
        let job = pool.run(HEAVY_BYTES + 1, move || gate.recv().unwrap());
        assert!(futures_util::FutureExt::now_or_never(job).is_none());
        assert_eq!(pool.0.available_permits(), 0);
        open.send(()).unwrap();
        pool.run(HEAVY_BYTES + 1, || ()).await;
        assert_eq!(pool.0.available_permits(), 1);
    }

    #[tokio::test]
    #[should_panic(expected = "as said")]
    async fn a_panic_is_the_callers() {
        HeavyPool::new(1).run(HEAVY_BYTES + 1, || panic!("as said")).await;
    }
}
