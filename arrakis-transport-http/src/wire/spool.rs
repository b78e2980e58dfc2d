//! Reports of spools: JSON, in a header of a delivery or as a body of its own.

use std::fmt::Write;

use arrakis_core::base::conservation::SpoolReport;
use arrakis_core::base::limits::SPOOL_REPORT_MAX_BYTES;

/// Writes a report as the value of a header: ASCII, at most [`SPOOL_REPORT_MAX_BYTES`]. What is long and not
/// needed is left out where it would not fit.
#[must_use]
pub fn encode_report(report: SpoolReport) -> String {
    let mut report = report.limited();
    let mut text = ascii_json(&report);
    if text.len() > SPOOL_REPORT_MAX_BYTES {
        report.receivers.clear();
        (report.host, report.user, report.home, report.version, report.last_error) =
            Default::default();
        text = ascii_json(&report);
    }
    text
}

/// Reads a report; `None` where there is none to be read.
#[must_use]
pub fn decode_report(bytes: &[u8]) -> Option<SpoolReport> {
    if bytes.len() > SPOOL_REPORT_MAX_BYTES {
        return None;
    }
    serde_json::from_slice(bytes).ok().map(SpoolReport::limited)
}

/// JSON in which every character outside ASCII is escaped.
fn ascii_json(report: &SpoolReport) -> String {
    // A report is made of numbers and texts: it always serializes.
    let json = serde_json::to_string(report).unwrap_or_default();
    let mut ascii = String::with_capacity(json.len());
    for character in json.chars() {
        if (' '..='~').contains(&character) {
            ascii.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Writing into a string does not fail.
            let _ = write!(ascii, "\\u{unit:04x}");
        }
    }
    ascii
}

#[cfg(test)]
mod tests {
    use arrakis_core::base::clock::Timestamp;
    use arrakis_core::base::conservation::{Balance, Counters, LastError, Present, Receiver};
    use uuid::Uuid;

    use super::*;

    fn report(text: &str) -> SpoolReport {
        let text = text.to_owned();
        let error = LastError { at: Timestamp::EPOCH, message: text.clone() };
        let receiver = Receiver {
            destination: text.clone(),
            state: text.clone(),
            last_failure: Some(error.clone()),
        };
        SpoolReport {
            spool_id: Uuid::from_u128(7),
            host: Some(text.clone()),
            user: Some(text.clone()),
            home: Some(text.clone()),
            version: Some(text),
            observed_at: Timestamp::from_millis(1_800_000_000_000),
            counters: Counters { captured: u64::MAX, delivered: 1, ..Counters::default() },
            present: Present { pending: 2, ..Present::default() },
            balance: Balance::Within { events: 3 },
            oldest_pending_age_ms: Some(4),
            full: false,
            receivers: vec![receiver; 9],
            last_error: Some(error),
        }
    }

    #[test]
    fn a_report_comes_back_from_a_header() {
        for text in ["host", "Zoë's \"machine\"\n\u{7f}", "\u{1f41b}", ""] {
            let encoded = encode_report(report(text));
            assert!(encoded.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{encoded}");
            assert_eq!(decode_report(encoded.as_bytes()), Some(report(text).limited()));
        }
    }

    #[test]
    fn however_long_its_texts_are_a_report_fits_and_keeps_its_counts() {
        for text in ["x".repeat(100_000), "\u{1f41b}".repeat(100_000), "\u{0}".repeat(100_000)] {
            let encoded = encode_report(report(&text));
            assert!(encoded.len() <= SPOOL_REPORT_MAX_BYTES, "{} bytes", encoded.len());
            let decoded = decode_report(encoded.as_bytes()).unwrap();
            assert_eq!(
                (decoded.counters, decoded.present),
                (report("").counters, report("").present)
            );
        }
    }

    #[test]
    fn what_is_no_report_is_none() {
        let long = format!("{}{}", encode_report(report("a")), " ".repeat(SPOOL_REPORT_MAX_BYTES));
        for garbage in ["", "{}", "null", "[1]", "{\"spoolId\":\"x\"}", "\u{0}", &long] {
            assert_eq!(decode_report(garbage.as_bytes()), None, "{garbage}");
        }
        assert_eq!(decode_report(b"\xff\xfe"), None);
    }
}
