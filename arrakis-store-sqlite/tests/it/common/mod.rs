//! What the tests share: stores in temporary folders, and events.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrakis_core::base::clock::{ManualClock, Timestamp};
use arrakis_core::base::digest::Digest;
use arrakis_core::base::envelope::Form;
use arrakis_core::base::id;
use arrakis_core::record::store::{Arrival, DEFAULT_WORKSPACE, EventMetadata, Verdict};
use arrakis_core::session::conversation::{
    AnswerIds, Changes, Conversation, Message, MessageOrigin, Role, Stamp, Stamped, Title,
    TitleSource,
};
use arrakis_store_sqlite::{SqliteConfig, SqliteStore};
use bytes::Bytes;
use diesel::connection::SimpleConnection;
use diesel::{Connection, RunQueryDsl, SqliteConnection};
use tempfile::TempDir;

/// A store in a folder that goes with it.
pub(crate) struct Home {
    pub(crate) store: SqliteStore,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) folder: TempDir,
}

impl Home {
    /// A new store with settings that make no test wait.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(at(0)));
        let store = open(&folder.path().join("arrakis.db"), &clock);
        Self { store, clock, folder }
    }

    /// The database file.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("arrakis.db")
    }

    /// A connection beside the store's, as another process has one; the search index is attached.
    pub(crate) fn beside(&self) -> SqliteConnection {
        let mut conn = SqliteConnection::establish(self.path().to_str().unwrap()).unwrap();
        let index = self.index_path();
        conn.batch_execute(&format!("ATTACH DATABASE '{}' AS search_index", index.display()))
            .unwrap();
        conn
    }

    /// The file of the search index.
    pub(crate) fn index_path(&self) -> PathBuf {
        self.folder.path().join("arrakis.db-search")
    }

    /// Another store on the same file.
    pub(crate) fn again(&self) -> SqliteStore {
        open(&self.path(), &self.clock)
    }
}

/// Settings under which a locked database fails at once.
pub(crate) fn impatient() -> SqliteConfig {
    SqliteConfig { busy_timeout: Duration::ZERO, ..SqliteConfig::default() }
}

/// A store at `path`.
pub(crate) fn open(path: &Path, clock: &Arc<ManualClock>) -> SqliteStore {
    let clock: Arc<dyn arrakis_core::base::clock::Clock> = Arc::clone(clock) as _;
    SqliteStore::open(path, clock, SqliteConfig::default()).unwrap()
}

/// A moment, in seconds after the tests' beginning.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_764_000_000_000 + seconds * 1000)
}

/// An event as it arrives `seconds` after the tests' beginning; its body is JSON that names it.
pub(crate) fn arrival(request_id: &str, seconds: i64) -> Arrival {
    let body = format!(r#"{{"session_id":"s","hook_event_name":"Stop","id":"{request_id}"}}"#);
    let mut random = [0; 10];
    random.copy_from_slice(&Digest::of(request_id.as_bytes()).as_bytes()[..10]);
    with_body(
        Arrival {
            event_id: id::uuid_v7(at(seconds), random),
            request_id: request_id.parse().unwrap(),
            digest: Digest::of(b""),
            in_ledger: true,
            workspace: DEFAULT_WORKSPACE.to_owned(),
            event_type: "Stop".to_owned(),
            session_id: Some("s".to_owned()),
            received_at: at(seconds),
            body: Bytes::new(),
            headers: BTreeMap::from([("user-agent".to_owned(), "test \"quoted\"".to_owned())]),
            ip_address: Some("127.0.0.1".parse().unwrap()),
            metadata: EventMetadata { form: Some(Form::Raw), ..EventMetadata::default() },
        },
        body,
    )
}

/// The same arrival with another body, and its digest.
pub(crate) fn with_body(arrival: Arrival, body: impl Into<Bytes>) -> Arrival {
    let body = body.into();
    Arrival { digest: Digest::of(&body), body, ..arrival }
}

/// The same arrival under a row id of its own, as a repeat has one.
pub(crate) fn repeat(arrival: &Arrival, seconds: i64) -> Arrival {
    let mut random = [7; 10];
    let seed = format!("{}{seconds}", arrival.event_id);
    random.copy_from_slice(&Digest::of(seed.as_bytes()).as_bytes()[..10]);
    Arrival {
        event_id: id::uuid_v7(at(seconds), random),
        received_at: at(seconds),
        ..arrival.clone()
    }
}

/// The verdict that this arrival says `text` as a user's message of its session.
pub(crate) fn says(arrival: &Arrival, text: &str) -> Verdict {
    let stamp = Stamp { at: arrival.received_at, request_id: arrival.request_id.clone() };
    let session = arrival.session_id.as_deref().unwrap();
    let mut conversation = Conversation::new(&arrival.workspace, session, &stamp);
    conversation.title = Some(Title::new(TitleSource::Prompt, &stamp, text.to_owned()));
    let message = Message::new(
        conversation.id,
        None,
        Role::User,
        MessageOrigin::Prompt,
        Stamped::new(&stamp, text.to_owned()),
    );
    let answer = AnswerIds {
        conversation_id: Some(conversation.id),
        message_id: Some(message.id),
        tool_use_id: None,
    };
    Verdict::Apply(Changes {
        conversations: vec![conversation],
        messages: vec![message],
        answer,
        ..Changes::default()
    })
}

/// How many rows a table has.
pub(crate) fn count(conn: &mut SqliteConnection, table: &str) -> i64 {
    diesel::select(diesel::dsl::sql::<diesel::sql_types::BigInt>(&format!(
        "(SELECT count(*) FROM {table})"
    )))
    .get_result(conn)
    .unwrap()
}
