//! What a search asks for, and what it finds.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use super::list::{directory, is_within};
use crate::base::clock::Timestamp;
use crate::base::id;
use crate::base::limits::{INDEXED_TEXT_MAX_BYTES, PROJECT_DIR_MAX_BYTES, SEARCH_PAGE_BYTES, cut};
use crate::session::conversation::{Conversation, Role, ToolStatus};
use crate::session::search::document::{model_terms, thread};
use crate::session::search::{
    FilterTerm, IndexTerm, InvalidSearch, SearchDocument, SearchQuery, Snippet,
};

/// Which messages and tool uses to find. Every given field must match; what a field asks that a message
/// cannot have (a tool) finds tool uses only, and the reverse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchFilter {
    /// The workspace.
    pub workspace: String,
    /// What it holds, as a [`SearchQuery`] is written; a text that is none finds nothing.
    pub text: Option<String>,
    /// The session.
    pub session_id: Option<String>,
    /// The directory that the conversation was last in: this one, or one below it.
    pub project: Option<String>,
    /// Not before this.
    pub since: Option<Timestamp>,
    /// Before this.
    pub until: Option<Timestamp>,
    /// Who speaks.
    pub role: Option<Role>,
    /// The tool, by its whole name.
    pub tool_name: Option<String>,
    /// How far the tool use has come.
    pub outcome: Option<ToolStatus>,
    /// Words of the model's name, such as `opus` or `claude-opus-5-5`.
    pub model: Option<String>,
    /// Whether it is in a subagent's thread.
    pub is_subagent: Option<bool>,
}

impl SearchFilter {
    /// Everything in a workspace.
    #[must_use]
    pub fn new(workspace: &str) -> Self {
        Self {
            workspace: workspace.to_owned(),
            text: None,
            session_id: None,
            project: None,
            since: None,
            until: None,
            role: None,
            tool_name: None,
            outcome: None,
            model: None,
            is_subagent: None,
        }
    }

    /// What is asked of the text.
    ///
    /// # Errors
    ///
    /// There is a text, but it is nothing that can be searched for.
    pub fn query(&self) -> Result<Option<SearchQuery>, InvalidSearch> {
        self.text.as_deref().map(str::parse).transpose()
    }

    /// What an index must hold ([`SearchDocument::terms`]) of all that is found, as far as a text has it by
    /// itself; none where nothing can be found.
    #[must_use]
    pub fn terms(&self) -> Option<BTreeSet<IndexTerm>> {
        self.terms_with(self.query().ok()?.as_ref())
    }

    fn terms_with(&self, query: Option<&SearchQuery>) -> Option<BTreeSet<IndexTerm>> {
        let is_message = self.role.is_some();
        let is_tool_use = self.tool_name.is_some() || self.outcome.is_some();
        if is_message && is_tool_use {
            return None;
        }
        let mut terms = BTreeSet::new();
        if let Some(model) = &self.model {
            terms.extend(model_terms(model));
            if terms.is_empty() {
                return None;
            }
        }
        terms.extend(self.role.map(|role| FilterTerm::Role.word(role.as_str())));
        terms.extend(self.tool_name.as_ref().map(|tool| FilterTerm::Tool.word(tool)));
        terms.extend(self.outcome.map(|outcome| FilterTerm::Outcome.word(outcome.as_str())));
        terms.extend(self.is_subagent.map(|is| FilterTerm::Thread.word(thread(is))));
        terms.insert(match &self.session_id {
            Some(session) => {
                let conversation = id::conversation_id(&self.workspace, session);
                FilterTerm::Conversation.word(&conversation.to_string())
            }
            None => FilterTerm::Workspace.word(&self.workspace),
        });
        let words = query.map(SearchQuery::terms).unwrap_or_default();
        Some(words.into_iter().chain(terms.into_iter().map(IndexTerm::Whole)).collect())
    }

    /// Whether a conversation is of the project asked for, if one is.
    #[must_use]
    pub fn admits_project(&self, conversation: &Conversation) -> bool {
        let Some(project) = &self.project else { return true };
        let path = conversation.project_path.as_ref().map(|path| path.value.as_str());
        path.is_some_and(|path| is_within(path, project))
    }

    /// The directory asked for, without what ends it.
    #[must_use]
    pub fn directory(&self) -> Option<&str> {
        self.project.as_deref().map(directory)
    }

    /// What is found where `document` of `conversation` is what is asked for. An index may be behind, so
    /// what it finds is looked at once more. A hit is small, however large the document is: names are cut at
    /// [`INDEXED_TEXT_MAX_BYTES`], and a path is cut at [`PROJECT_DIR_MAX_BYTES`].
    #[must_use]
    pub fn hit(
        &self,
        document: SearchDocument<'_>,
        conversation: &Conversation,
    ) -> Option<SearchHit> {
        let query = self.query().ok()?;
        let terms = self.terms_with(query.as_ref())?;
        let query = query.unwrap_or_default();
        let at = document.at();
        let fits = conversation.workspace == self.workspace
            && self.session_id.as_ref().is_none_or(|id| *id == conversation.session_id)
            && self.since.is_none_or(|since| since <= at)
            && self.until.is_none_or(|until| at < until)
            && self.admits_project(conversation);
        if !fits {
            return None;
        }
        let held = document.terms(&conversation.workspace);
        let texts = document.texts();
        let is_found = terms.iter().all(|term| term.is_in(&held))
            && (query.is_of_words() || query.is_in(texts.iter().map(|text| &**text)));
        if !is_found {
            return None;
        }
        let name = |text: &str| cut(text, INDEXED_TEXT_MAX_BYTES).to_owned();
        Some(SearchHit {
            id: document.id(),
            conversation_id: conversation.id,
            session_id: name(&conversation.session_id),
            title: conversation.title.as_ref().map(|title| name(&title.value)),
            project_path: conversation
                .project_path
                .as_ref()
                .map(|path| cut(&path.value, PROJECT_DIR_MAX_BYTES).to_owned()),
            at,
            agent_id: document.agent_id().map(name),
            model: document.model().map(name),
            what: match document {
                SearchDocument::Message(message) => HitKind::Message { role: message.role },
                SearchDocument::ToolUse { tool_use, .. } => HitKind::ToolUse {
                    tool_name: name(&tool_use.tool_name),
                    outcome: tool_use.status(),
                },
            },
            snippet: Snippet::of(&texts, &query),
        })
    }
}

/// A message or a tool use that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SearchHit {
    /// The id of the message or the tool use.
    pub id: Uuid,
    /// What it is.
    #[serde(flatten)]
    pub what: HitKind,
    /// When it was said or asked for.
    pub at: Timestamp,
    /// The conversation.
    pub conversation_id: Uuid,
    /// The conversation's session.
    pub session_id: String,
    /// The conversation's title.
    pub title: Option<String>,
    /// The directory that the conversation was last in.
    pub project_path: Option<String>,
    /// The subagent whose thread it belongs to.
    pub agent_id: Option<String>,
    /// The model that wrote it, or asked for it.
    pub model: Option<String>,
    /// What is around the first match.
    pub snippet: Snippet,
}

impl SearchHit {
    /// The place of this hit: a search goes on behind it.
    #[must_use]
    pub fn cursor(&self) -> SearchCursor {
        SearchCursor { at: self.at, id: self.id, place: 0 }
    }

    /// About how much of an answer it takes, in bytes.
    fn bytes(&self) -> usize {
        let texts = [&self.title, &self.project_path, &self.agent_id, &self.model];
        let texts = texts.into_iter().flatten().map(String::len).sum::<usize>();
        let kind = match &self.what {
            HitKind::ToolUse { tool_name, .. } => tool_name.len(),
            HitKind::Message { .. } => 0,
        };
        // Names of fields, ids and times.
        let rest = 256 + 32 * self.snippet.0.len();
        let snippet = self.snippet.0.iter().map(|part| part.text.len()).sum::<usize>();
        rest + self.session_id.len() + texts + kind + snippet
    }
}

/// What was found, and what only this kind has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum HitKind {
    /// A message.
    Message {
        /// Who speaks.
        role: Role,
    },
    /// A tool use.
    ToolUse {
        /// The tool.
        tool_name: String,
        /// How far it has come.
        outcome: ToolStatus,
    },
}

/// A place among everything that can be found: a time, and what tells apart several of the same time. It
/// stays where it is, whatever is stored meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SearchCursor {
    /// The time.
    pub at: Timestamp,
    /// The message or the tool use.
    pub id: Uuid,
    /// The place among those of the same millisecond, in a store that keeps them in an order of its own; 0 in
    /// one that keeps them in the order of their ids.
    pub place: u32,
}

/// The text is no cursor of a search.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no cursor of a search: take it from the page before")]
pub struct InvalidSearchCursor;

impl fmt::Display for SearchCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.at.as_micros(), self.id.simple())?;
        if self.place > 0 { write!(f, ".{}", self.place) } else { Ok(()) }
    }
}

impl FromStr for SearchCursor {
    type Err = InvalidSearchCursor;

    fn from_str(text: &str) -> Result<Self, InvalidSearchCursor> {
        let (at, rest) = text.split_once('.').ok_or(InvalidSearchCursor)?;
        let (id, place) = rest.split_once('.').unwrap_or((rest, "0"));
        let at = at.parse().map_err(|_| InvalidSearchCursor)?;
        let id = id.parse().map_err(|_| InvalidSearchCursor)?;
        let place = place.parse().map_err(|_| InvalidSearchCursor)?;
        Ok(Self { at: Timestamp::from_micros(at), id, place })
    }
}

impl Serialize for SearchCursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SearchCursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A part of what a search finds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SearchPage {
    /// What was found, newest first.
    pub hits: Vec<SearchHit>,
    /// Where to go on, if there is more.
    pub next: Option<SearchCursor>,
}

/// Makes a page of hits that come in order, so that a store holds no more of them than the page does.
#[derive(Debug)]
pub struct SearchPageBuilder {
    hits: Vec<SearchHit>,
    last: Option<SearchCursor>,
    limit: usize,
    bytes: usize,
    has_more: bool,
}

impl SearchPageBuilder {
    /// An empty page of up to `limit` hits. It ends before that where they hold more than
    /// [`SEARCH_PAGE_BYTES`]; one hit is always taken.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { hits: Vec::new(), last: None, limit, bytes: 0, has_more: false }
    }

    /// Adds the next hit, whose place is `cursor`; returns whether the page takes more.
    pub fn push(&mut self, hit: SearchHit, cursor: SearchCursor) -> bool {
        let bytes = self.bytes.saturating_add(hit.bytes());
        let is_full =
            self.hits.len() >= self.limit || (!self.hits.is_empty() && bytes > SEARCH_PAGE_BYTES);
        if self.has_more || is_full {
            self.has_more = true;
            return false;
        }
        (self.bytes, self.last) = (bytes, Some(cursor));
        self.hits.push(hit);
        true
    }

    /// The page. It says where to go on if a hit did not fit.
    #[must_use]
    pub fn finish(self) -> SearchPage {
        SearchPage { hits: self.hits, next: self.last.filter(|_| self.has_more) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::conversation::{Stamp, Stamped};

    #[test]
    fn a_cursor_comes_back_from_its_text() {
        for (at, place) in [(-5, 0), (0, 7), (1_764_000_000_123_456, u32::MAX)] {
            let cursor = SearchCursor { at: Timestamp::from_micros(at), id: Uuid::max(), place };
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        let id = Uuid::nil();
        for text in ["", ".", "1", "x.y", "1.ffff", &format!("1.{id}.x"), &format!("1.{id}.1.2")] {
            assert_eq!(text.parse::<SearchCursor>(), Err(InvalidSearchCursor), "{text}");
        }
    }

    #[test]
    fn a_project_is_a_directory_or_one_below() {
        let stamp = Stamp { at: Timestamp::EPOCH, request_id: "r".parse().unwrap() };
        let mut conversation = Conversation::new("main", "s", &stamp);
        let mut filter = SearchFilter::new("main");
        assert!(filter.admits_project(&conversation));
        filter.project = Some("/a/b/".to_owned());
        assert!(!filter.admits_project(&conversation), "it is not known where it is");
        for (path, is_below) in [("/a/b", true), ("/a/b/c", true), ("/a/bc", false), ("/a", false)]
        {
            conversation.project_path = Some(Stamped::new(&stamp, path.to_owned()));
            assert_eq!(filter.admits_project(&conversation), is_below, "{path}");
        }
        filter.project = Some("/".to_owned());
        assert!(filter.admits_project(&conversation));
    }

    #[test]
    fn what_contradicts_itself_or_has_no_word_finds_nothing() {
        let all = SearchFilter::new("main");
        assert!(all.terms().is_some());
        let text = SearchFilter { text: Some("-- ,".to_owned()), ..all.clone() };
        let model = SearchFilter { model: Some("-".to_owned()), ..all.clone() };
        let both =
            SearchFilter { role: Some(Role::User), tool_name: Some("Bash".to_owned()), ..all };
        assert_eq!([text, model, both].map(|filter| filter.terms()), [None, None, None]);
    }
}
