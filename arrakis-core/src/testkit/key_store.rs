//! The conformance suite of [`KeyStore`].

use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::base::clock::Timestamp;
use crate::record::key::{ApiKey, Scope};
use crate::record::store::KeyStore;

/// An empty store of keys.
pub trait KeyStoreFixture: Send + Sync {
    /// The store.
    fn keys(&self) -> Arc<dyn KeyStore>;
}

/// Makes one `#[tokio::test]` of each case of the suite; `$make` is an async function without
/// arguments that returns a fresh [`KeyStoreFixture`].
#[macro_export]
macro_rules! key_store_conformance {
    ($make:path) => {
        $crate::key_store_conformance!(@cases $make:
            a_key_is_found_by_its_id_as_it_was_created,
            keys_are_listed_oldest_first,
            a_revoked_key_is_found_marked_and_revoking_twice_is_as_good_as_once,
            a_key_knows_when_it_was_last_used,
        );
    };
    (@cases $make:path: $($case:ident,)*) => {
        $(
            #[tokio::test]
            async fn $case() {
                $crate::testkit::key_store::$case(&$make().await).await;
            }
        )*
    };
}

fn key(n: i64) -> ApiKey {
    let mut rng = StdRng::seed_from_u64(n.unsigned_abs());
    let at = Timestamp::from_millis(1_800_000_000_000 + n);
    ApiKey::generate(&format!("it's \"key\" {n}"), Scope::Read, "team", at, &mut rng).1
}

/// Every field comes back, the hash too.
pub async fn a_key_is_found_by_its_id_as_it_was_created(fixture: &impl KeyStoreFixture) {
    let keys = fixture.keys();
    keys.create_key(key(1)).await.expect("create");
    assert_eq!(keys.key(&key(1).id).await.expect("read"), Some(key(1)));
    assert_eq!(keys.key("none").await.expect("read"), None);
}

/// A list is in the order of creation.
pub async fn keys_are_listed_oldest_first(fixture: &impl KeyStoreFixture) {
    let keys = fixture.keys();
    for n in [2, 1, 3] {
        keys.create_key(key(n)).await.expect("create");
    }
    assert_eq!(keys.keys().await.expect("list"), [key(1), key(2), key(3)]);
}

/// A revoked key stays known, with the time of its first revocation.
pub async fn a_revoked_key_is_found_marked_and_revoking_twice_is_as_good_as_once(
    fixture: &impl KeyStoreFixture,
) {
    let keys = fixture.keys();
    keys.create_key(key(1)).await.expect("create");
    let now = Timestamp::from_millis(1_800_000_009_000);
    assert!(keys.revoke_key(&key(1).id, now).await.expect("revoke"));
    let later = now.plus(Duration::from_secs(1));
    assert!(keys.revoke_key(&key(1).id, later).await.expect("revoke"));
    let revoked = keys.key(&key(1).id).await.expect("read").expect("it is there");
    assert_eq!(revoked.revoked_at, Some(now));
    assert!(!keys.revoke_key("none", now).await.expect("revoke"));
}

/// The latest use counts, in whichever order servers tell of them.
pub async fn a_key_knows_when_it_was_last_used(fixture: &impl KeyStoreFixture) {
    let keys = fixture.keys();
    for n in [1, 2, 3] {
        keys.create_key(key(n)).await.expect("create");
    }
    let at = |minute: i64| Timestamp::from_millis(1_800_000_000_000 + minute * 60_000);
    let use_of = |n: i64, minute: i64| (key(n).id, at(minute));
    keys.note_key_uses(vec![use_of(1, 7), use_of(2, 5)]).await.expect("note");
    let none = ("none".to_owned(), at(9));
    keys.note_key_uses(vec![none, use_of(1, 6), use_of(2, 8)]).await.expect("note");
    keys.note_key_uses(Vec::new()).await.expect("note");
    let used: Vec<_> =
        keys.keys().await.expect("list").into_iter().map(|key| key.last_used_at).collect();
    assert_eq!(used, [Some(at(7)), Some(at(8)), None]);
}
