//! Words in all scripts, phrases, and beginnings of words.

use super::super::read::index;
use super::super::{Arrivals, EventStoreFixture, hook};
use super::{found, text_filter};
use crate::record::store::EventStore;

/// Prompts in languages with and without spaces.
const PROMPTS: [&str; 8] = [
    "请帮我修复用户登录失败的问题，然后运行测试",
    "ユーザー認証のﾃｽﾄを追加してください",
    "사용자 로그인을 수정해 주세요",
    "ช่วยแก้ไขปัญหาการเข้าสู่ระบบ",
    "O\u{308}ffne das Re\u{301}sume\u{301} von Zoe\u{308}, Straße 5",
    "हिन्दी में उत्तर दो",
    "Fix src/main.rs: the build, then serialize",
    "Then the main build",
];

/// Prompts, each in another script or form.
pub async fn a_search_finds_words_in_every_script_however_they_are_written(
    fixture: &impl EventStoreFixture,
) {
    let store = filled(fixture).await;
    for (text, expected) in [
        ("登录", "请帮我修复用户[登录]失败的问题，然后运行测试"),
        ("登录失败 测试", "请帮我修复用户[登录失败]的问题，然后运行[测试]"),
        ("失登", ""),
        ("用户失败", ""),
        ("修", "请帮我[修]复用户登录失败的问题，然后运行测试"),
        ("试", "请帮我修复用户登录失败的问题，然后运行测[试]"),
        ("認証 テスト", "ユーザー[認証]の[ﾃｽﾄ]を追加してください"),
        ("로그인", "사용자 [로그인]을 수정해 주세요"),
        ("\u{1105}\u{1169}\u{1100}\u{1173}", "사용자 [로그]인을 수정해 주세요"),
        ("เข้าสู่ระบบ", "ช่วยแก้ไขปัญหาการ[เข้าสู่ระบบ]"),
        ("Résumé", "O\u{308}ffne das [Re\u{301}sume\u{301}] von Zoe\u{308}, Straße 5"),
        ("ｒｅｓｕｍｅ zoë", "O\u{308}ffne das [Re\u{301}sume\u{301}] von [Zoe\u{308}], Straße 5"),
        ("STRASSE", "O\u{308}ffne das Re\u{301}sume\u{301} von Zoe\u{308}, [Straße] 5"),
        ("हिन्दी", "[हिन्दी] में उत्तर दो"),
        ("हिन", ""),
    ] {
        let expected =
            if expected.is_empty() { String::new() } else { format!("user: {expected}") };
        assert_eq!(found(&*store, text_filter(text)).await, expected, "{text}");
    }
}

/// What the words of a phrase have between them, what stands in another order, and what begins alike.
pub async fn a_search_finds_phrases_and_beginnings_of_words(fixture: &impl EventStoreFixture) {
    let store = filled(fixture).await;
    let (fix, then) =
        ("user: Fix src/main.rs: the build, then serialize", "user: Then the main build");
    for (text, expected) in [
        ("the build", format!("{then}; {fix}")),
        ("\"the build\"", fix.to_owned()),
        ("\"main rs the\"", fix.to_owned()),
        ("\"main build\"", then.to_owned()),
        ("\"build main\"", String::new()),
        ("\"the build\" ser*", fix.to_owned()),
        ("\"then seri*\"", fix.to_owned()),
        ("\"the seri*\"", String::new()),
        ("SERIAL*", fix.to_owned()),
        ("seria", String::new()),
        ("mai*", format!("{then}; {fix}")),
        ("ma*", String::new()),
        ("\"失败 的\"", format!("user: {}", PROMPTS[0])),
        ("*", String::new()),
        ("\"\"", String::new()),
    ] {
        let found = found(&*store, text_filter(text)).await;
        assert_eq!(super::unmarked(&found), expected, "{text}");
    }
    let marked = found(&*store, text_filter("\"main rs\" serial*")).await;
    assert_eq!(marked, "user: Fix src/[main.rs]: the build, then [serialize]");
}

async fn filled(fixture: &impl EventStoreFixture) -> std::sync::Arc<dyn EventStore> {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let prompt = |(n, text): (usize, &&str)| {
        let more = format!(r#","prompt":"{text}","prompt_id":"{n}""#);
        arrivals.next(&format!("e{n}"), hook("s", "UserPromptSubmit", &more))
    };
    let batch = PROMPTS.iter().enumerate().map(prompt).collect();
    store.record(batch).await.expect("record");
    index(&*store).await;
    store
}
