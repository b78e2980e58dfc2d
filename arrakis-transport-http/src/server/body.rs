//! Reading bodies: decoded, within limits of their own and of all together.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use arrakis_core::base::heavy::{HEAVY_BYTES, HeavyPool};
use arrakis_core::base::limits::{BODIES_IN_FLIGHT_BYTES, SMALL_BODIES_IN_FLIGHT_BYTES};
use axum::body::Body;
use axum::http::header::CONTENT_ENCODING;
use axum::http::{HeaderMap, StatusCode};
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::HttpError;

/// The unit in which the budget is counted: a semaphore counts to less than bytes may need.
const UNIT_BYTES: usize = 1024;

/// How long a body may take to arrive: 32 MiB at half a megabyte a second. A client that trickles must
/// not hold its part of the budget for ever.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// The memory that bodies may take.
#[derive(Debug)]
pub(super) struct Budget {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    heavy: HeavyPool,
}

/// A body, and its part of the budget, which it gives back when dropped.
#[derive(Debug)]
pub(super) struct HeldBody {
    pub(super) bytes: Bytes,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Budget {
    /// The whole budget; `heavy` expands large bodies.
    pub(super) fn new(heavy: HeavyPool) -> Self {
        let memory = |bytes: usize| Arc::new(Semaphore::new(bytes / UNIT_BYTES));
        Self {
            small: memory(SMALL_BODIES_IN_FLIGHT_BYTES),
            large: memory(BODIES_IN_FLIGHT_BYTES),
            heavy,
        }
    }

    /// Reads a body of at most `limit` bytes, expanded.
    pub(super) async fn read(
        &self,
        headers: &HeaderMap,
        body: Body,
        limit: usize,
    ) -> Result<HeldBody, HttpError> {
        let encoding = Encoding::of(headers)?;
        let held = Held {
            memory: Arc::clone(&self.small),
            large: Some(Arc::clone(&self.large)),
            permit: None,
            bytes: 0,
        };
        let (raw, held) = tokio::time::timeout(BODY_TIMEOUT, read_all(body, held, limit))
            .await
            .unwrap_or_else(|_| Err(HttpError::busy("the body took too long to arrive")))?;
        let bytes = raw.len();
        let decoder: Box<dyn Read + Send> = match encoding {
            Encoding::Identity => return Ok(HeldBody { bytes: raw, _permit: held.permit }),
            Encoding::Gzip => Box::new(flate2::read::MultiGzDecoder::new(raw.reader())),
            Encoding::Zstd => {
                Box::new(zstd::Decoder::new(raw.reader()).map_err(|error| undecodable(&error))?)
            }
        };
        let mut expansion = Expansion { decoder, expanded: BytesMut::new(), limit, held };
        // How large a body is shows only as it expands.
        let begin = move || expansion.advance(HEAVY_BYTES).map(|ended| (expansion, ended));
        let (mut expansion, ended) = self.heavy.run(bytes, begin).await?;
        if !ended {
            let go_on = move || expansion.advance(usize::MAX).map(|_| expansion);
            expansion = self.heavy.run(usize::MAX, go_on).await?;
        }
        let Expansion { expanded, held, .. } = expansion;
        Ok(HeldBody { bytes: expanded.freeze(), _permit: held.permit })
    }
}

async fn read_all(
    mut body: Body,
    mut held: Held,
    limit: usize,
) -> Result<(Bytes, Held), HttpError> {
    let mut raw = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            let message = format!("the body could not be read: {error}");
            HttpError::new(StatusCode::BAD_REQUEST, "incomplete_body", message)
        })?;
        if let Ok(data) = frame.into_data() {
            if raw.len() + data.len() > limit {
                return Err(HttpError::too_large(limit));
            }
            held.add(data.len())?;
            raw.extend_from_slice(&data);
        }
    }
    Ok((raw.freeze(), held))
}

/// A growing part of the budget.
struct Held {
    memory: Arc<Semaphore>,
    /// Where the body moves to when it turns out to be large.
    large: Option<Arc<Semaphore>>,
    permit: Option<OwnedSemaphorePermit>,
    bytes: usize,
}

impl Held {
    fn add(&mut self, bytes: usize) -> Result<(), HttpError> {
        self.bytes += bytes;
        if self.bytes > HEAVY_BYTES
            && let Some(large) = self.large.take()
        {
            self.permit = None;
            self.memory = large;
        }
        let have = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = self.bytes.div_ceil(UNIT_BYTES).saturating_sub(have);
        // A body is at most some ten thousand units.
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        let more = Arc::clone(&self.memory)
            .try_acquire_many_owned(missing)
            .map_err(|_| HttpError::busy("too many bodies are in flight"))?;
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        Ok(())
    }
}

enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Result<Self, HttpError> {
        let Some(value) = headers.get(CONTENT_ENCODING) else { return Ok(Self::Identity) };
        match value.to_str().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Self::Identity),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            _ => Err(HttpError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_encoding",
                "the content encoding is not known; use gzip, zstd or none",
            )),
        }
    }
}

/// A body that is being expanded, piece by piece, so that a bomb is noticed at the limit.
struct Expansion {
    decoder: Box<dyn Read + Send>,
    expanded: BytesMut,
    limit: usize,
    held: Held,
}

impl Expansion {
    /// Expands until there are `until` bytes or more; returns whether the body has ended.
    fn advance(&mut self, until: usize) -> Result<bool, HttpError> {
        let mut piece = vec![0; 64 * 1024];
        while self.expanded.len() < until {
            let read = self.decoder.read(&mut piece).map_err(|error| undecodable(&error))?;
            if read == 0 {
                return Ok(true);
            }
            if self.expanded.len() + read > self.limit {
                return Err(HttpError::too_large(self.limit));
            }
            self.held.add(read)?;
            self.expanded.extend_from_slice(&piece[..read]);
        }
        Ok(false)
    }
}

fn undecodable(error: &std::io::Error) -> HttpError {
    let message = format!("the body is not in its content encoding: {error}");
    HttpError::new(StatusCode::BAD_REQUEST, "undecodable_body", message)
}
