//! What is asked.

use arrakis_core::record::store::{DEFAULT_WORKSPACE, SearchFilter};
use arrakis_core::session::conversation::{Role, ToolStatus};

use crate::data::{Data, OLD_PROJECT, RARE_EVERY, TOOLS, project, word};

/// Searches of one kind; each number is another of them.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) filter: fn(Data, u64) -> SearchFilter,
}

pub(crate) const KINDS: &[Kind] = &[
    Kind {
        name: "a rare word",
        filter: |data, n| text(&format!("needle{}", n * 7 % data.messages.div_ceil(RARE_EVERY))),
    },
    Kind { name: "a word that nobody said", filter: |_, n| text(&format!("nobody{n}")) },
    Kind { name: "a common word", filter: |_, n| text(&common(n)) },
    Kind { name: "a word of the middle", filter: |_, n| text(&middle(n)) },
    Kind {
        name: "two common words and one of the middle",
        filter: |_, n| text(&format!("{} {} {}", common(n), common(n + 1), middle(n))),
    },
    Kind {
        name: "two seldom words, hardly ever together",
        filter: |_, n| text(&format!("{} {}", word(2000 + n as usize), word(3000 + n as usize))),
    },
    Kind {
        name: "a common word in a large project",
        filter: |_, n| SearchFilter { project: Some(project(n % 8 + 10)), ..text(&common(n)) },
    },
    Kind {
        name: "a common word in a small project",
        filter: |_, n| SearchFilter { project: Some(project(0)), ..text(&common(n)) },
    },
    Kind {
        name: "a common word in a large project of the oldest month",
        filter: |_, n| SearchFilter { project: Some(OLD_PROJECT.to_owned()), ..text(&common(n)) },
    },
    Kind {
        name: "a seldom word in a large project",
        filter: |_, n| SearchFilter {
            project: Some(project(n % 8 + 10)),
            ..text(&word(5000 + n as usize))
        },
    },
    Kind {
        name: "a common word in a project that there is not",
        filter: |_, n| SearchFilter { project: Some(format!("/nowhere{n}")), ..text(&common(n)) },
    },
    Kind {
        name: "a common word in one session",
        filter: |data, n| SearchFilter {
            session_id: Some(format!("session-{}", n * 31 % data.conversations())),
            ..text(&common(n))
        },
    },
    Kind {
        name: "a common word, one tool",
        filter: |_, n| SearchFilter { tool_name: Some(tool(n)), ..text(&common(n)) },
    },
    Kind {
        name: "a common word, one tool, denied",
        filter: |_, n| SearchFilter {
            tool_name: Some(tool(n)),
            outcome: Some(ToolStatus::Denied),
            ..text(&common(n))
        },
    },
    Kind {
        name: "a common word, a tool that there is not",
        filter: |_, n| SearchFilter { tool_name: Some("Nothing".to_owned()), ..text(&common(n)) },
    },
    Kind {
        name: "a common word, running (nothing is)",
        filter: |_, n| SearchFilter { outcome: Some(ToolStatus::Running), ..text(&common(n)) },
    },
    Kind {
        name: "a common word, the model of the oldest month",
        filter: |_, n| SearchFilter { model: Some("first".to_owned()), ..text(&common(n)) },
    },
    Kind {
        name: "a common word, the model since",
        filter: |_, n| SearchFilter { model: Some("second".to_owned()), ..text(&common(n)) },
    },
    Kind {
        name: "a common word, one speaker",
        filter: |_, n| SearchFilter { role: Some(Role::User), ..text(&common(n)) },
    },
    Kind {
        name: "a common word before the second week",
        filter: |data, n| SearchFilter { until: Some(data.at(0.03)), ..text(&common(n)) },
    },
    Kind {
        name: "a common word of one month",
        filter: |data, n| SearchFilter {
            since: Some(data.at(0.5)),
            until: Some(data.at(0.58)),
            ..text(&common(n))
        },
    },
    Kind {
        name: "a common word, old model, since the last month (nothing)",
        filter: |data, n| SearchFilter {
            model: Some("first".to_owned()),
            since: Some(data.at(0.9)),
            ..text(&common(n))
        },
    },
    Kind {
        name: "no words: failures of one tool",
        filter: |_, n| SearchFilter {
            tool_name: Some(tool(n)),
            outcome: Some(ToolStatus::Failed),
            ..all()
        },
    },
    Kind {
        name: "no words: a small project",
        filter: |_, _| SearchFilter { project: Some(project(0)), ..all() },
    },
    Kind {
        name: "no words: the model of the oldest month",
        filter: |_, _| SearchFilter { model: Some("first".to_owned()), ..all() },
    },
];

fn all() -> SearchFilter {
    SearchFilter::new(DEFAULT_WORKSPACE)
}

fn text(text: &str) -> SearchFilter {
    SearchFilter { text: Some(text.to_owned()), ..all() }
}

/// In a fifth to nearly all of the messages.
fn common(n: u64) -> String {
    word(n as usize % 8)
}

/// In about one of a hundred messages.
fn middle(n: u64) -> String {
    word(300 + n as usize)
}

fn tool(n: u64) -> String {
    TOOLS[n as usize % TOOLS.len()].to_owned()
}
