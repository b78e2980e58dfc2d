//! What a conversation is called.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::Stamp;

/// Who gave a title. Each later one outranks those before it.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum TitleSource {
    /// The first prompt of the person that is no command.
    #[default]
    Prompt,
    /// The client, which summed the conversation up.
    Client,
    /// The person in the client, as a hook says.
    Hook,
    /// The person in the client, as the transcript says.
    Custom,
    /// The person in Arrakis.
    Renamed,
}

/// A title: of two, that of the higher source stays. Of two prompts the one with the lower number stays, of one number
/// the later one, as it has replaced the other, and without numbers the earlier one. Of other titles the later one
/// stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Title {
    /// Who gave it.
    #[serde(default)]
    pub source: TitleSource,
    /// The event or line that says it. A line without a time has that of the epoch and as many milliseconds as
    /// there are bytes before it in its file.
    pub stamp: Stamp,
    /// The title.
    pub value: String,
    /// Which prompt of the session it is from, where the transcript says that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_index: Option<u32>,
}

impl Title {
    /// A title that the event or line of `stamp` says.
    #[must_use]
    pub fn new(source: TitleSource, stamp: &Stamp, value: String) -> Self {
        Self { source, stamp: stamp.clone(), value, prompt_index: None }
    }

    /// Joins what another event says.
    pub(super) fn merge(mine: &mut Option<Self>, other: Option<Self>) {
        let Some(other) = other else { return };
        if mine.as_ref().is_none_or(|mine| other.cmp_worth(mine).is_gt()) {
            *mine = Some(other);
        }
    }

    fn cmp_worth(&self, other: &Self) -> Ordering {
        let by_index = match (self.prompt_index, other.prompt_index) {
            (Some(mine), Some(other)) => other.cmp(&mine),
            (mine, other) => mine.is_some().cmp(&other.is_some()),
        };
        let by_stamp = (&self.stamp, &self.value).cmp(&(&other.stamp, &other.value));
        let is_first_best = self.source == TitleSource::Prompt && self.prompt_index.is_none();
        let by_stamp = if is_first_best { by_stamp.reverse() } else { by_stamp };
        self.source.cmp(&other.source).then(by_index).then(by_stamp)
    }
}
