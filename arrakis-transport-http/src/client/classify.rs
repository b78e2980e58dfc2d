//! What a reply, or the lack of one, means.
//!
//! | what comes back | class | the event |
//! |---|---|---|
//! | 200-299 with Arrakis' receipt for its request id and digest | stored | is deleted |
//! | 200-299 without | configuration | waits, delivery is held |
//! | 400, 413, 422 with Arrakis' error about its request id | refused | fails a round |
//! | 400, 413, 422 for a batch | suspect | is tried in halves, until it is alone |
//! | 400, 413, 422 otherwise | configuration | waits, delivery is held |
//! | 429, 502-504 | away | waits; `Retry-After` is honoured up to 1 h |
//! | 500, 501, 505-599 | failed | is tried in halves; alone it fails a round, where the receiver takes others |
//! | 100-199, 300-399, 401-412, 414-421, 423-428, 430-499, 600-999 | configuration | waits, delivery is held |
//! | no such name, no route, connection refused, reset or closed | away | waits |
//! | TLS cannot be agreed on, or the certificate is not trusted | away | waits |
//! | half a reply, or one that is no HTTP | away | waits |
//! | no whole reply in time | away | is tried in parts; alone it waits |
//! | nothing was sent: there is no key, it may not go there, the URL is none, or the configuration holds delivery | configuration | waits, delivery is held |
//!
//! In a batch each event has a result of its own; one that is missing, or that names another id or
//! digest, means that the event is to be tried again. Where not one result names its event, whoever
//! answers is not Arrakis.

use std::time::Duration;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::envelope::Envelope;
use arrakis_core::base::limits::{RETRY_AFTER_MAX, cut};
use arrakis_core::delivery::transport::{Batch, Outcome, Reason, Receipt, TransportError};
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde::Deserialize;

use crate::wire::{Answer, ErrorAnswer, EventResult};

/// What became of the batch, by the reply to it.
pub(super) fn reply(
    batch: &Batch,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
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
            None => {
                Err(TransportError::Refused { answer: status_text(status), message: said(body) })
            }
        },
        429 | 502..=504 => Err(TransportError::Unavailable {
            answer: status_text(status),
            retry_after: retry_after(headers, now),
        }),
        500..=599 => {
            Err(TransportError::Failed { answer: status_text(status), message: said(body) })
        }
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

/// The status as messages name it.
fn status_text(status: StatusCode) -> Option<String> {
    Some(format!("HTTP {}", status.as_u16()))
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

/// The wait that `Retry-After` asks for, in seconds or until a date in any of HTTP's three forms; at
/// most an hour. What is neither asks for nothing.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        Timestamp::from(httpdate::parse_http_date(text).ok()?).since(now)
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrakis_core::base::envelope::Source;
    use arrakis_core::base::error::Retryable;
    use arrakis_core::delivery::transport::Fault;

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
        reply(&batch(count), status, &HeaderMap::new(), body.as_bytes(), Timestamp::EPOCH)
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
        other_digest["digest"] =
            serde_json::json!(arrakis_core::base::digest::Digest::of(b"other"));
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

    /// The rows of the table in `docs/delivery.md`, cell by cell.
    fn documented() -> Vec<[&'static str; 3]> {
        let docs = include_str!("../../../docs/delivery.md").lines();
        let table = docs.skip_while(|line| !line.starts_with("| what comes back |"));
        let rows = table.take_while(|line| line.starts_with('|')).skip(2);
        let cells = |row: &'static str| {
            let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
            cells.try_into().unwrap()
        };
        rows.map(cells).collect()
    }

    /// Whether the first cell of a row names a status, alone or in a range.
    fn names(row: &str, status: u16) -> bool {
        let words =
            row.split([' ', ',']).filter(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        let mut ranges = words.map(|word| word.split_once('-').unwrap_or((word, word)));
        let number = |text: &str| text.parse::<u16>().unwrap();
        ranges.any(|(first, last)| (number(first)..=number(last)).contains(&status))
    }

    fn class(result: &Result<Vec<Outcome>, TransportError>) -> &'static str {
        match result {
            Ok(outcomes) if matches!(outcomes[..], [Outcome::Refused(_)]) => "refused",
            Ok(_) => "stored",
            Err(TransportError::Refused { .. }) => "suspect",
            Err(TransportError::Unavailable { .. }) => "away",
            Err(TransportError::Failed { .. }) => "failed",
            Err(TransportError::Misconfigured { .. }) => "configuration",
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn the_table_here_is_that_of_the_documentation() {
        let here =
            include_str!("classify.rs").lines().filter_map(|line| line.strip_prefix("//! |"));
        let here: Vec<_> = here.skip(2).map(|row| row.trim_end_matches('|')).collect();
        let docs =
            documented().iter().map(|row| format!(" {} ", row.join(" | "))).collect::<Vec<_>>();
        assert_eq!(here, docs);
    }

    #[test]
    fn every_status_has_the_class_that_the_table_names() {
        let error = serde_json::json!({
            "success": false, "error": { "code": "invalid", "message": "no" }, "requestId": "r0",
        });
        let (ours, theirs) = ([answer(0).to_string(), error.to_string()], "<html>Proxy</html>");
        for status in 100..=999 {
            let rows: Vec<_> =
                documented().into_iter().filter(|[what, ..]| names(what, status)).collect();
            let expected = |words: &[&str]| {
                let row = rows.iter().find(|[what, ..]| words.iter().any(|w| what.contains(w)));
                row.or(rows.last().filter(|_| rows.len() == 1)).map(|[_, class, _]| *class)
            };
            let ours = &ours[usize::from(status >= 300)];
            let alone = expected(&["with Arrakis"]);
            assert_eq!(Some(class(&judge(1, status, ours))), alone, "{status} by Arrakis");
            let alone = expected(&["without", "otherwise"]);
            assert_eq!(Some(class(&judge(1, status, theirs))), alone, "{status} by a proxy");
            let batch = expected(&["without", "for a batch"]);
            assert_eq!(Some(class(&judge(2, status, theirs))), batch, "{status} for a batch");
        }
    }

    #[test]
    fn the_class_says_whose_fault_it_is() {
        for (status, fault, retryable) in [
            (404, Fault::Configuration, false),
            (503, Fault::Receiver, true),
            (500, Fault::Event, true),
            (413, Fault::Event, false),
        ] {
            let error = judge(2, status, "oops").unwrap_err();
            assert_eq!((error.fault(), error.is_retryable()), (fault, retryable), "{status}");
        }
    }

    #[test]
    fn an_error_says_what_the_receiver_answered() {
        for (status, text) in [
            (503, "the receiver is not available (HTTP 503)"),
            (500, "the receiver failed (HTTP 500): oops"),
            (413, "the receiver refused the request (HTTP 413): oops"),
        ] {
            assert_eq!(judge(2, status, "oops").unwrap_err().to_string(), text);
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
    fn retry_after_is_read_in_all_its_forms_and_has_a_limit() {
        let now: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
        let wait = |text: &str| {
            let headers = [(RETRY_AFTER, text.parse().unwrap())].into_iter().collect();
            retry_after(&headers, now).map(|wait| wait.as_secs())
        };
        assert_eq!(wait("0"), Some(0));
        assert_eq!(wait("7"), Some(7));
        assert_eq!(wait(" 007 "), Some(7));
        for long in ["3600", "3601", "90000", "18446744073709551616", &"9".repeat(100)] {
            assert_eq!(wait(long), Some(3600), "{long}");
        }
        assert_eq!(wait("Tue, 24 Nov 2026 10:01:30 GMT"), Some(90));
        assert_eq!(wait("Tuesday, 24-Nov-26 10:01:30 GMT"), Some(90));
        assert_eq!(wait("Tue Nov 24 10:01:30 2026"), Some(90));
        assert_eq!(wait("Tue Dec  1 10:01:30 2026"), Some(3600));
        assert_eq!(wait("Mon, 23 Nov 2026 10:01:30 GMT"), Some(0), "it has passed");
        for garbage in [
            "",
            "soon",
            "-3",
            "+3",
            "1.5",
            "3 s",
            "0x10",
            "٣",
            "1e3",
            "NaN",
            "Tue, 24 Nov 2026 10:01:30 +0000",
            "24 Nov 2026 10:01:30 GMT",
            "Tue, 99 Nov 2026 10:01:30 GMT",
            "2026-11-24T10:01:30Z",
            "Tue, 24 Nov 2026 10:01",
        ] {
            assert_eq!(wait(garbage), None, "{garbage}");
        }
    }
}
