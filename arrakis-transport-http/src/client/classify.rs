//! What a reply, or the lack of one, means.
//!
//! | what came | means |
//! |---|---|
//! | no connection: refused, no route, no name, TLS | `Unreachable` |
//! | no reply in time | `Timeout` |
//! | 2xx with our receipt, naming the request id and the digest | accepted, or duplicate |
//! | 2xx with anything else | `Misconfigured`: whoever answers is not Arrakis |
//! | 400, 413, 422 with our error for this very request id | the event is refused |
//! | 400, 413, 422 for a batch | `Refused`: one of its events may be to blame |
//! | 400, 413, 422 otherwise | `Misconfigured` |
//! | 429, 502, 503, 504 | `Unavailable`, with its `Retry-After` |
//! | any other 5xx | `Failed` |
//! | 1xx, 3xx, 401, 403, 404, 405, any other 4xx | `Misconfigured` |
//!
//! In a batch each event has a result of its own; one that is missing, or that names another id or
//! digest, means that the event is to be tried again. Where not one result names its event, whoever
//! answers is not Arrakis.

use std::time::{Duration, SystemTime};

use arrakis_core::clock::Timestamp;
use arrakis_core::envelope::Envelope;
use arrakis_core::limits::{RETRY_AFTER_MAX, cut};
use arrakis_core::transport::{Batch, Outcome, Reason, Receipt, TransportError};
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::wire::{Answer, ErrorAnswer, EventResult};

/// What became of the batch, by the reply to it.
pub(super) fn reply(
    batch: &Batch,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Vec<Outcome>, TransportError> {
    let alone = (batch.len() == 1).then(|| &*batch.envelopes()[0]);
    match status.as_u16() {
        200..=299 => match alone {
            Some(envelope) => receipt(envelope, body).map(|outcome| vec![outcome]),
            None => receipts(batch, body),
        },
        400 | 413 | 422 => match alone {
            Some(envelope) => match refusal(envelope, body) {
                Some(reason) => Ok(vec![Outcome::Refused(reason)]),
                None => Err(misconfigured(status, body)),
            },
            None => Err(TransportError::Refused { status: status.as_u16(), message: said(body) }),
        },
        429 | 502..=504 => Err(TransportError::Unavailable {
            status: status.as_u16(),
            retry_after: retry_after(headers, SystemTime::now().into()),
        }),
        500..=599 => Err(TransportError::Failed { status: status.as_u16(), message: said(body) }),
        _ => Err(misconfigured(status, body)),
    }
}

/// Why no reply came.
pub(super) fn failure(
    destination: &str,
    timeout: Duration,
    error: reqwest::Error,
) -> TransportError {
    if error.is_timeout() && !error.is_connect() {
        return TransportError::Timeout { after: timeout };
    }
    if error.is_builder() {
        return TransportError::Misconfigured {
            problem: format!("{destination} is not a URL that can be sent to"),
            remedy: "correct url in config.toml".to_owned(),
        };
    }
    // Without the URL, which is named already.
    let source = error.without_url().into();
    TransportError::Unreachable { destination: destination.to_owned(), source }
}

fn receipt(envelope: &Envelope, body: &[u8]) -> Result<Outcome, TransportError> {
    let answer: Option<Answer> = serde_json::from_slice(body).ok();
    let outcome = answer.and_then(|answer| stored(envelope, answer));
    outcome.ok_or_else(|| not_arrakis(body))
}

fn receipts(batch: &Batch, body: &[u8]) -> Result<Vec<Outcome>, TransportError> {
    /// A result of a later version may look different; it must not spoil its neighbours.
    #[derive(Deserialize)]
    struct Results {
        results: Vec<serde_json::Value>,
    }
    let Ok(Results { results }) = serde_json::from_slice(body) else {
        return Err(not_arrakis(body));
    };
    let mut results = results.into_iter();
    let outcome = |envelope: &std::sync::Arc<Envelope>| {
        let result = results.next().and_then(|result| serde_json::from_value(result).ok());
        match result {
            Some(EventResult::Stored(answer)) => stored(envelope, answer),
            Some(EventResult::Refused(error)) => refused(envelope, error),
            None => None,
        }
    };
    let outcomes: Vec<_> = batch.envelopes().iter().map(outcome).collect();
    if outcomes.iter().all(Option::is_none) {
        return Err(not_arrakis(body));
    }
    let no_receipt = || {
        let message = "the reply has no result that names this event and its digest";
        Outcome::TryAgain(Reason { code: "no_receipt".to_owned(), message: message.to_owned() })
    };
    Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(no_receipt)).collect())
}

/// The receipt in an answer, if it is one for this very event and payload.
fn stored(envelope: &Envelope, answer: Answer) -> Option<Outcome> {
    let names =
        answer.request_id == *envelope.request_id() && answer.digest == envelope.header.digest;
    let receipt =
        Receipt { request_id: answer.request_id, digest: answer.digest, event_id: answer.event_id };
    let outcome = if answer.duplicate { Outcome::Duplicate } else { Outcome::Accepted };
    (answer.success && names).then_some(outcome(receipt))
}

fn refused(envelope: &Envelope, error: ErrorAnswer) -> Option<Outcome> {
    let named = error.request_id.as_deref() == Some(envelope.request_id().as_str());
    let reason = Reason { code: error.error.code, message: error.error.message };
    let passing = matches!(reason.code.as_str(), "unavailable" | "internal");
    named.then_some(if passing { Outcome::TryAgain(reason) } else { Outcome::Refused(reason) })
}

/// Our own error about this very event.
fn refusal(envelope: &Envelope, body: &[u8]) -> Option<Reason> {
    let error: ErrorAnswer = serde_json::from_slice(body).ok()?;
    let named = error.request_id.as_deref() == Some(envelope.request_id().as_str());
    (!error.success && named)
        .then_some(Reason { code: error.error.code, message: error.error.message })
}

fn misconfigured(status: StatusCode, body: &[u8]) -> TransportError {
    let remedy = match status.as_u16() {
        401 => "put a valid ingest key into config.toml: `arrakis keys create --scope ingest`",
        403 => "use a key of scope ingest: `arrakis keys create --scope ingest`",
        404 | 405 => "correct url in config.toml: it ends in /api/claude-hooks",
        300..=399 => "set url in config.toml to where the redirect leads",
        _ => "check url in config.toml, and what stands between here and the receiver",
    };
    TransportError::Misconfigured {
        problem: format!("HTTP {} ({})", status.as_u16(), said(body)),
        remedy: remedy.to_owned(),
    }
}

fn not_arrakis(body: &[u8]) -> TransportError {
    TransportError::Misconfigured {
        problem: format!("the reply is no receipt of Arrakis ({})", said(body)),
        remedy: "check url in config.toml: something else answers there".to_owned(),
    }
}

/// What a reply says, for people: our own message, else its first line.
fn said(body: &[u8]) -> String {
    if let Ok(error) = serde_json::from_slice::<ErrorAnswer>(body) {
        return error.error.message;
    }
    let text = String::from_utf8_lossy(body);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("no text");
    cut(line, 200).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The wait that `Retry-After` asks for, in seconds or until a date; at most an hour.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            // An HTTP date is RFC 2822 with GMT for the zone.
            let date = OffsetDateTime::parse(&text.replace("GMT", "+0000"), &Rfc2822).ok()?;
            Timestamp::from_micros(date.unix_timestamp().saturating_mul(1_000_000)).since(now)
        }
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrakis_core::envelope::Source;
    use arrakis_core::transport::Fault;

    use super::*;

    fn batch(count: usize) -> Batch {
        let envelope = |n: usize| {
            let id = format!("r{n}").parse().unwrap();
            Arc::new(Envelope::new(
                id,
                Timestamp::EPOCH,
                "http://h/",
                Source::default(),
                &b"{}"[..],
            ))
        };
        Batch::new((0..count).map(envelope).collect()).unwrap()
    }

    fn judge(count: usize, status: u16, body: &str) -> Result<Vec<Outcome>, TransportError> {
        let status = StatusCode::from_u16(status).unwrap();
        reply(&batch(count), status, &HeaderMap::new(), body.as_bytes())
    }

    fn answer(n: usize) -> serde_json::Value {
        serde_json::json!({
            "success": true, "requestId": format!("r{n}"), "digest": batch(1).envelopes()[0].header.digest,
            "eventId": uuid::Uuid::nil(), "status": "SUCCESS", "duplicate": false, "cached": false,
            "conversationId": null, "messageId": null, "toolUseId": null,
        })
    }

    #[test]
    fn a_2xx_alone_is_no_receipt() {
        let mut other_digest = answer(0);
        other_digest["digest"] = serde_json::json!(arrakis_core::digest::Digest::of(b"other"));
        let bodies = [
            "",
            "OK",
            "<html>Log in</html>",
            "{}",
            &answer(1).to_string(),
            &other_digest.to_string(),
        ];
        for body in bodies {
            for status in [200, 202, 204] {
                let error = judge(1, status, body).unwrap_err();
                assert_eq!(error.fault(), Fault::Configuration, "{status} {body}");
            }
        }
        for results in [serde_json::json!([]), serde_json::json!([answer(7), {}])] {
            let body = serde_json::json!({ "success": true, "results": results }).to_string();
            assert_eq!(judge(2, 200, &body).unwrap_err().fault(), Fault::Configuration, "{body}");
        }
        let accepted = judge(1, 200, &answer(0).to_string()).unwrap();
        assert!(matches!(accepted[..], [Outcome::Accepted(_)]));
    }

    #[test]
    fn every_status_has_its_class() {
        let class = |count, status| judge(count, status, "oops").unwrap_err();
        for status in [301, 302, 307, 308, 401, 403, 404, 405, 408, 409, 410, 418, 451] {
            assert_eq!(class(1, status).fault(), Fault::Configuration, "{status}");
        }
        for status in [429, 502, 503, 504] {
            assert_eq!(class(1, status).fault(), Fault::Receiver, "{status}");
        }
        for status in [500, 501, 505, 507, 599] {
            assert_eq!(class(1, status).fault(), Fault::Event, "{status}");
        }
        for status in [400, 413, 422] {
            assert_eq!(class(1, status).fault(), Fault::Configuration, "a proxy's {status}");
            assert!(class(2, status).is_worth_halving(), "{status}");
        }
    }

    #[test]
    fn an_event_is_refused_only_by_our_own_word_about_it() {
        let error = |id| {
            serde_json::json!({
                "success": false, "error": { "code": "id_conflict", "message": "no" }, "requestId": id,
            })
        };
        let refused = judge(1, 422, &error("r0").to_string()).unwrap();
        assert!(matches!(&refused[..], [Outcome::Refused(reason)] if reason.code == "id_conflict"));
        assert!(judge(1, 422, &error("r9").to_string()).is_err());
    }

    #[test]
    fn each_event_of_a_batch_has_its_own_outcome() {
        let error = serde_json::json!({
            "success": false, "error": { "code": "invalid", "message": "no" }, "requestId": "r1",
        });
        let body = serde_json::json!({ "success": true, "results": [answer(0), error, answer(7)] });
        let outcomes = judge(4, 200, &body.to_string()).unwrap();
        assert!(matches!(
            outcomes[..],
            [Outcome::Accepted(_), Outcome::Refused(_), Outcome::TryAgain(_), Outcome::TryAgain(_)]
        ));
    }

    #[test]
    fn retry_after_is_read_in_both_forms_and_has_a_limit() {
        let now = "2026-11-24T10:00:00Z".parse().unwrap();
        let wait = |text: &str| {
            let headers = [(RETRY_AFTER, text.parse().unwrap())].into_iter().collect();
            retry_after(&headers, now).map(|wait| wait.as_secs())
        };
        assert_eq!(wait("7"), Some(7));
        assert_eq!(wait("90000"), Some(3600));
        assert_eq!(wait("Tue, 24 Nov 2026 10:01:30 GMT"), Some(90));
        assert_eq!(wait("Mon, 23 Nov 2026 10:01:30 GMT"), Some(0));
        assert_eq!(wait("soon"), None);
        assert_eq!(wait("-3"), None);
    }
}
