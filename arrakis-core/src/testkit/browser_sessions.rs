//! The conformance suite of [`BrowserSessions`].

use std::sync::Arc;

use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::record::key::Scope;
use crate::record::store::{BrowserSession, BrowserSessions};

/// A store in which nobody is signed in.
pub trait BrowserSessionsFixture: Send + Sync {
    /// The store.
    fn sessions(&self) -> Arc<dyn BrowserSessions>;
}

/// Makes one `#[tokio::test]` of each case of the suite; `$make` is an async function without
/// arguments that returns a fresh [`BrowserSessionsFixture`].
#[macro_export]
macro_rules! browser_sessions_conformance {
    ($make:path) => {
        $crate::browser_sessions_conformance!(@cases $make:
            a_session_that_was_opened_is_found_by_its_hash_until_it_is_closed,
            a_session_that_is_opened_again_takes_its_own_place,
            workspaces_do_not_see_each_others_sessions,
            sessions_are_listed_by_when_they_were_last_used,
            a_session_knows_when_it_was_last_used_whichever_server_says_so_first,
            a_new_session_takes_the_place_of_the_one_not_used_for_longest,
            what_has_not_been_used_for_long_or_is_old_is_forgotten,
        );
    };
    (@cases $make:path: $($case:ident,)*) => {
        $(
            #[tokio::test]
            async fn $case() {
                $crate::testkit::browser_sessions::$case(&$make().await).await;
            }
        )*
    };
}

/// The time of this second, with a part of it that only microseconds hold.
fn at(second: i64) -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_001 + second * 1_000_000)
}

/// The hash of the `n`-th session. Hashes are in the order of their numbers.
fn hash(n: u8) -> Digest {
    let mut bytes = [0xfe; 32];
    bytes[0] = n;
    Digest::from_bytes(bytes)
}

/// A session that was signed in at this second, and not used since.
fn session(n: u8, workspace: &str, second: i64) -> BrowserSession {
    BrowserSession {
        hash: hash(n),
        key_id: format!("key{n}"),
        scope: Scope::Read,
        workspace: workspace.to_owned(),
        browser: format!("it's \"browser\" {n} of Zoë"),
        created_at: at(second),
        seen_at: at(second),
    }
}

/// The same, last used at another second.
fn seen(n: u8, workspace: &str, created: i64, seen: i64) -> BrowserSession {
    BrowserSession { seen_at: at(seen), ..session(n, workspace, created) }
}

async fn open(sessions: &dyn BrowserSessions, session: BrowserSession) {
    sessions.open_browser_session(session, 10).await.expect("open");
}

async fn hashes(sessions: &dyn BrowserSessions, workspace: &str) -> Vec<Digest> {
    let listed = sessions.browser_sessions(workspace).await.expect("list");
    listed.into_iter().map(|session| session.hash).collect()
}

/// Every field comes back: each scope, and that no key belongs to the session. Closing tells whether there was one.
pub async fn a_session_that_was_opened_is_found_by_its_hash_until_it_is_closed(
    fixture: &impl BrowserSessionsFixture,
) {
    let sessions = fixture.sessions();
    assert_eq!(sessions.browser_session(&hash(1)).await.expect("read"), None);
    let by_link = BrowserSession {
        key_id: String::new(),
        scope: Scope::Admin,
        browser: String::new(),
        ..seen(2, "main", 5, 7)
    };
    for one in [session(1, "main", 1), by_link.clone()] {
        open(&*sessions, one).await;
    }
    let find = async |n| sessions.browser_session(&hash(n)).await.expect("read");
    assert_eq!(find(1).await, Some(session(1, "main", 1)));
    assert_eq!(find(2).await, Some(by_link.clone()));
    assert!(sessions.close_browser_session(&hash(1)).await.expect("close"));
    assert!(!sessions.close_browser_session(&hash(1)).await.expect("close"));
    assert_eq!(find(1).await, None);
    assert_eq!(find(2).await, Some(by_link));
}

/// A store that opens a session again, because it could not learn whether it had done so, has it once.
pub async fn a_session_that_is_opened_again_takes_its_own_place(
    fixture: &impl BrowserSessionsFixture,
) {
    let sessions = fixture.sessions();
    open(&*sessions, session(1, "main", 1)).await;
    let again = BrowserSession { key_id: "other".to_owned(), ..seen(1, "main", 2, 3) };
    open(&*sessions, again.clone()).await;
    assert_eq!(sessions.browser_sessions("main").await.expect("list"), [again]);
}

/// Each has its own list, and its own bound.
pub async fn workspaces_do_not_see_each_others_sessions(fixture: &impl BrowserSessionsFixture) {
    let sessions = fixture.sessions();
    open(&*sessions, session(1, "main", 1)).await;
    open(&*sessions, session(2, "team", 2)).await;
    let bounded = sessions.open_browser_session(session(3, "team", 3), 1);
    bounded.await.expect("open");
    let list = async |workspace| sessions.browser_sessions(workspace).await.expect("list");
    assert_eq!(list("main").await, [session(1, "main", 1)]);
    assert_eq!(list("team").await, [session(3, "team", 3)]);
    assert_eq!(list("other").await, []);
}

/// Latest first; those of the same time in the order of their hashes.
pub async fn sessions_are_listed_by_when_they_were_last_used(
    fixture: &impl BrowserSessionsFixture,
) {
    let sessions = fixture.sessions();
    for one in [seen(4, "main", 4, 10), seen(1, "main", 1, 30), seen(2, "main", 2, 20)] {
        open(&*sessions, one).await;
    }
    open(&*sessions, seen(3, "main", 3, 10)).await;
    assert_eq!(hashes(&*sessions, "main").await, [1, 2, 3, 4].map(hash));
    sessions.note_browser_session(&hash(3), at(40)).await.expect("note");
    assert_eq!(hashes(&*sessions, "main").await, [3, 1, 2, 4].map(hash));
}

/// The latest use counts, in whichever order servers tell of it, and of a session that is gone nobody hears.
pub async fn a_session_knows_when_it_was_last_used_whichever_server_says_so_first(
    fixture: &impl BrowserSessionsFixture,
) {
    let sessions = fixture.sessions();
    open(&*sessions, session(1, "main", 1)).await;
    open(&*sessions, session(2, "main", 2)).await;
    for second in [60, 180, 120, 0] {
        sessions.note_browser_session(&hash(1), at(second)).await.expect("note");
    }
    sessions.note_browser_session(&hash(9), at(5)).await.expect("note");
    let listed = sessions.browser_sessions("main").await.expect("list");
    assert_eq!(listed, [seen(1, "main", 1, 180), session(2, "main", 2)]);
}

/// The bound holds, and what was used lately stays, however long ago it was signed in.
pub async fn a_new_session_takes_the_place_of_the_one_not_used_for_longest(
    fixture: &impl BrowserSessionsFixture,
) {
    let sessions = fixture.sessions();
    let open = async |session| sessions.open_browser_session(session, 3).await.expect("open");
    for (n, second) in [(1, 1), (2, 2), (3, 3)] {
        open(session(n, "main", second)).await;
    }
    sessions.note_browser_session(&hash(1), at(4)).await.expect("note");
    open(session(4, "main", 5)).await;
    assert_eq!(hashes(&*sessions, "main").await, [4, 1, 3].map(hash));
    assert_eq!(sessions.browser_session(&hash(2)).await.expect("read"), None);
    // Of two that were last used at the same time, the one with the lower hash goes.
    open(session(6, "main", 6)).await;
    open(session(5, "main", 6)).await;
    open(session(7, "main", 6)).await;
    open(session(8, "main", 7)).await;
    assert_eq!(hashes(&*sessions, "main").await, [8, 6, 7].map(hash));
}

/// Either is enough, and what is exactly as old as that is still kept.
pub async fn what_has_not_been_used_for_long_or_is_old_is_forgotten(
    fixture: &impl BrowserSessionsFixture,
) {
    let sessions = fixture.sessions();
    let idle = seen(1, "main", 50, 59);
    let old = seen(2, "main", 9, 99);
    let (kept, other) = (seen(3, "main", 10, 60), seen(4, "team", 30, 90));
    for one in [idle, old, kept, other, seen(5, "team", 1, 2)] {
        open(&*sessions, one).await;
    }
    let forget = async || sessions.forget_browser_sessions(at(60), at(10)).await.expect("forget");
    assert_eq!(forget().await, 3);
    assert_eq!(hashes(&*sessions, "main").await, [hash(3)]);
    assert_eq!(hashes(&*sessions, "team").await, [hash(4)]);
    assert_eq!(forget().await, 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::store::MemoryBrowserSessions;

    impl BrowserSessionsFixture for Arc<MemoryBrowserSessions> {
        fn sessions(&self) -> Arc<dyn BrowserSessions> {
            Self::clone(self)
        }
    }

    async fn make() -> Arc<MemoryBrowserSessions> {
        Arc::default()
    }

    browser_sessions_conformance!(make);
}
