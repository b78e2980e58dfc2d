//! What a search may ask for besides words.

use crate::base::digest::Digest;

/// A property of what is searched. It is kept among the words, because a search for common words in one
/// session would look at the rows of every other session else. Two values may share a term, so what is
/// found by one is looked at once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterTerm {
    /// The workspace.
    Workspace,
    /// The type of an event.
    EventType,
    /// The session of an event.
    Session,
    /// The request id of an event.
    Request,
    /// The conversation of a message or a tool use.
    Conversation,
    /// Who speaks.
    Role,
    /// The tool.
    Tool,
    /// How far a tool use has come.
    Outcome,
    /// A word of the model's name.
    Model,
    /// Whether it is in a subagent's thread.
    Thread,
    /// The words of a message of the transcript: an event with the same words is not found beside it.
    Dedup,
}

impl FilterTerm {
    /// A word that no text has, because `§` is neither a letter nor a digit. Indexes hold it: it must not
    /// change.
    #[must_use]
    pub fn word(self, value: &str) -> String {
        let kind = match self {
            Self::Workspace => 'w',
            Self::EventType => 't',
            Self::Session => 's',
            Self::Request => 'r',
            Self::Conversation => 'c',
            Self::Role => 'p',
            Self::Tool => 'n',
            Self::Outcome => 'o',
            Self::Model => 'm',
            Self::Thread => 'h',
            Self::Dedup => 'x',
        };
        let digest = Digest::of(value.as_bytes());
        let [a, b, c, d, e, f, g, h, ..] = *digest.as_bytes();
        format!("§{kind}{:016x}", u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_stay_what_they_are_in_the_indexes() {
        assert_eq!(FilterTerm::Workspace.word("main"), "§w0d6e4079e36703eb");
        assert_ne!(FilterTerm::Session.word("main"), FilterTerm::Conversation.word("main"));
    }
}
