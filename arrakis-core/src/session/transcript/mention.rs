//! What an event says about transcripts.

use serde::Deserialize;

use super::{TranscriptAgent, TranscriptFile};
use crate::base::envelope::Envelope;
use crate::base::limits::{INDEXED_TEXT_MAX_BYTES, PATH_MAX_BYTES, SESSION_ID_MAX_BYTES};
use crate::session::hook::{Field, object};

/// The transcripts that an event names. Their [`identity`](TranscriptFile::identity) is empty: an event
/// knows no more than where they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mention {
    /// That of its session.
    pub session: TranscriptFile,
    /// That of the subagent which has stopped.
    pub subagent: Option<TranscriptFile>,
}

impl Mention {
    /// What `envelope` names; nothing where it names no session and path, or is no JSON object. What is
    /// longer than anything of its kind counts as not named: it would be kept for long.
    #[must_use]
    pub fn of(envelope: &Envelope) -> Option<Self> {
        #[derive(Deserialize)]
        struct Named<'a> {
            #[serde(borrow, default)]
            session_id: Field<'a>,
            #[serde(borrow, default)]
            transcript_path: Field<'a>,
            #[serde(borrow, default)]
            cwd: Field<'a>,
            #[serde(borrow, default)]
            agent_id: Field<'a>,
            #[serde(borrow, default)]
            agent_type: Field<'a>,
            #[serde(borrow, default)]
            agent_transcript_path: Field<'a>,
        }
        let text = |field: Field<'_>, max: usize| {
            field.text().filter(|text| text.len() <= max).map(std::borrow::Cow::into_owned)
        };
        let named: Named<'_> = object(&envelope.payload).ok()?;
        let session = TranscriptFile {
            session_id: text(named.session_id, SESSION_ID_MAX_BYTES)?,
            path: text(named.transcript_path, PATH_MAX_BYTES)?,
            cwd: text(named.cwd, PATH_MAX_BYTES),
            agent: None,
            identity: String::new(),
        };
        let subagent = text(named.agent_transcript_path, PATH_MAX_BYTES)
            .zip(text(named.agent_id, SESSION_ID_MAX_BYTES));
        let subagent = subagent.map(|(path, id)| TranscriptFile {
            path,
            agent: Some(TranscriptAgent {
                id,
                agent_type: text(named.agent_type, INDEXED_TEXT_MAX_BYTES),
                tool_use_id: None,
            }),
            ..session.clone()
        });
        Some(Self { session, subagent })
    }

    /// Whether the transcripts have gained something worth reading with an event of this type: the
    /// model has ended a turn, or nothing will come any more.
    #[must_use]
    pub fn is_due(event_type: Option<&str>) -> bool {
        matches!(event_type, Some("Stop" | "StopFailure" | "SubagentStop" | "SessionEnd"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;
    use crate::base::envelope::Source;

    fn mention(payload: &'static str) -> Option<Mention> {
        let id = "r".parse().unwrap();
        let envelope =
            Envelope::new(id, Timestamp::EPOCH, "http://h/", Source::default(), payload.as_bytes());
        Mention::of(&envelope)
    }

    #[test]
    fn an_event_names_its_session_s_transcript_and_that_of_a_subagent() {
        let found = mention(
            r#"{"session_id":"s","transcript_path":"/t/s.jsonl","cwd":"/p","agent_id":"a",
                "agent_type":"Explore","agent_transcript_path":"/t/s/subagents/agent-a.jsonl"}"#,
        )
        .unwrap();
        assert_eq!((found.session.path.as_str(), &found.session.agent), ("/t/s.jsonl", &None));
        assert_eq!(found.session.cwd.as_deref(), Some("/p"));
        let subagent = found.subagent.unwrap();
        assert_eq!(subagent.path, "/t/s/subagents/agent-a.jsonl");
        assert_eq!(subagent.session_id, "s");
        let agent = subagent.agent.unwrap();
        assert_eq!((agent.id.as_str(), agent.agent_type.as_deref()), ("a", Some("Explore")));
    }

    #[test]
    fn anything_else_names_none() {
        for payload in [
            "",
            "[]",
            r#"{"session_id":"s"}"#,
            r#"{"session_id":"s","transcript_path":""}"#,
            r#"{"session_id":7,"transcript_path":"/t"}"#,
        ] {
            assert_eq!(mention(payload), None, "{payload}");
        }
        let long = |name: &str, bytes: usize| {
            let mut named = serde_json::json!({"session_id": "s", "transcript_path": "/t"});
            named[name] = "x".repeat(bytes).into();
            mention(named.to_string().leak())
        };
        assert!(long("transcript_path", PATH_MAX_BYTES).is_some());
        assert_eq!(long("transcript_path", PATH_MAX_BYTES + 1), None);
        assert_eq!(long("session_id", SESSION_ID_MAX_BYTES + 1), None);
        assert_eq!(long("cwd", PATH_MAX_BYTES + 1).unwrap().session.cwd, None);
        let tool = mention(r#"{"session_id":"s","transcript_path":"/t","agent_id":"a"}"#).unwrap();
        assert_eq!(tool.subagent, None, "a tool of a subagent names no transcript of its own");
        assert!(Mention::is_due(Some("Stop")) && !Mention::is_due(Some("PostToolUse")));
    }
}
