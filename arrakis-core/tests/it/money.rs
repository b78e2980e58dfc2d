//! What conversations cost, from the usage that transcripts tell of.

use arrakis_core::record::store::ConversationDetail;
use arrakis_core::session::usage::{Usage, Usd};
use arrakis_core::testkit::recorded::fault;
use arrakis_core::testkit::sessions::{Session, assert_same, conversation_of};
use serde_json::{Value, json};

/// The only session of a case, in whatever order its lines come.
fn read(session: &Session) -> ConversationDetail {
    let expected = session.expected("main");
    for seed in 0..20 {
        let found = conversation_of(&session.shuffled("main", seed));
        assert_same(&found, &expected, &format!("seed {seed}"));
    }
    expected
}

fn case(name: &str) -> ConversationDetail {
    let [session] = &fault(name)[..] else { panic!("{name} has one session") };
    read(session)
}

/// A session with one message of the model.
fn message(model: &str, at: &str, usage: &Value) -> ConversationDetail {
    let line = json!({"type": "assistant", "uuid": "u", "timestamp": at, "message": {"id": "m",
        "model": model, "content": [{"type": "text", "text": "yew"}], "usage": usage}});
    read(&Session::new("s", Vec::new(), line.to_string().into_bytes()))
}

#[test]
fn an_advisors_tokens_and_words_are_its_own_models() {
    let found = case("advisor-tokens-and-words");
    assert_eq!(found.usage.cost, Usd::from_dollars(0.748_914).unwrap());
    assert!(!found.usage.has_unknown_price);
    let advisor = found.usage.models["claude-opus-5-5"].usage;
    assert_eq!((advisor.input_tokens, advisor.output_tokens), (150_000, 7000));
    let own = found.usage.models["claude-sonnet-5-5"].usage;
    assert_eq!((own.cache_read_tokens, own.output_tokens), (20_000, 491));
    let advice = found.messages.iter().find(|one| one.content.value.contains("xylograph"));
    assert_eq!(advice.and_then(|one| one.model.as_deref()), Some("claude-opus-5-5"));
}

#[test]
fn a_prompt_that_the_api_compacts_first_costs_that_too() {
    let usage = json!({"input_tokens": 23_000, "output_tokens": 1000, "iterations": [
        {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3500},
        {"type": "message", "input_tokens": 23_000, "output_tokens": 1000}]});
    let found = message("claude-opus-4-8", "2026-11-24T00:00:00Z", &usage);
    let expected = Usage { input_tokens: 203_000, output_tokens: 4500, ..Usage::default() };
    assert_eq!(found.usage.total, expected);
    assert_eq!(found.usage.cost, Usd::from_dollars(1.1275).unwrap());
}

#[test]
fn fast_mode_and_inference_in_the_us_have_their_price_and_others_are_incomplete() {
    let found = case("fast-mode");
    assert_eq!(found.usage.cost, Usd::from_dollars(15.0).unwrap());
    assert_eq!(found.conversation.model.unwrap().value, "claude-opus-4-8");

    let at = "2026-11-24T00:00:00Z";
    let million = |more: &Value| {
        let mut usage = json!({"input_tokens": 1_000_000});
        usage.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        usage
    };
    let us = message("claude-opus-4-8", at, &million(&json!({"inference_geo": "us"})));
    assert_eq!(us.usage.cost, Usd::from_dollars(5.5).unwrap());
    let usual = json!({"inference_geo": "global", "speed": "standard", "iterations": null});
    let usual = message("claude-opus-4-8", at, &million(&usual));
    assert_eq!(usual.usage.cost, Usd::from_dollars(5.0).unwrap());
    assert!(!usual.usage.has_unknown_price);
    let unknown = message("claude-haiku-4-5", at, &million(&json!({"speed": "fast"})));
    assert!(unknown.usage.has_unknown_price);
    assert!(message("claude-opus-99", at, &million(&json!({}))).usage.has_unknown_price);
}

#[test]
fn a_long_prompt_has_the_price_of_its_day() {
    let usage = json!({"input_tokens": 300_000, "output_tokens": 1000});
    let cost = |at| message("claude-opus-4-6", at, &usage).usage.cost;
    assert_eq!(cost("2026-03-12T10:00:00Z"), Usd::from_dollars(3.0375).unwrap());
    assert_eq!(cost("2026-03-14T10:00:00Z"), Usd::from_dollars(1.525).unwrap());
}

#[test]
fn what_an_old_client_says_that_a_message_cost_stands_beside_ours() {
    let line = json!({"type": "assistant", "uuid": "u", "timestamp": "2025-05-01T10:00:00Z", "costUSD": 0.25,
        "message": {"id": "m", "model": "claude-3-7-sonnet-20250219",
            "content": [{"type": "text", "text": "yew"}], "usage": {"input_tokens": 1000}}});
    let found = read(&Session::new("s", Vec::new(), line.to_string().into_bytes()));
    assert_eq!(found.usage.client_cost, Usd::from_dollars(0.25));
    assert_eq!(found.usage.cost, Usd::from_dollars(0.003).unwrap());
}

#[test]
fn searches_of_the_web_cost() {
    let found = case("server-tools-unread");
    assert_eq!(found.usage.total.web_searches, 3);
    assert_eq!(found.usage.cost, Usd::from_dollars(0.030_14).unwrap());
}

#[test]
fn answers_to_several_prompts_count_though_they_have_one_id() {
    let sessions = fault("shared-message-id");
    let read = |id: &str| {
        read(sessions.iter().find(|session| session.session_id.starts_with(id)).unwrap())
    };
    let same = read("a0000015");
    assert_eq!((same.messages.len(), same.usage.total.input_tokens), (6, 300));
    assert_eq!(same.usage.total.output_tokens, 30);
    let ids: std::collections::BTreeSet<_> =
        same.messages.iter().filter_map(|one| one.api_id.as_deref()).collect();
    let expected = ["", " (2)", " (3)"].map(|end| format!("msg_constant req_msg_constant{end}"));
    assert_eq!(ids, expected.iter().map(String::as_str).collect());
    assert_eq!(read("ae000004").usage.total.input_tokens, 6115);
}

#[test]
fn what_a_side_question_repeats_of_the_main_thread_counts_once_though_its_requests_have_other_ids()
{
    let found = read(&fault("sidechain-replay-steals-main-thread").remove(0));
    let said = |agent: Option<&str>| -> Vec<&str> {
        let of_thread = found.messages.iter().filter(|one| one.agent_id.as_deref() == agent);
        of_thread.map(|one| one.content.value.as_str()).collect()
    };
    let main =
        ["Describe the mill.", "The mill has two wheels.", "", "The mill is described in mill.md."];
    assert_eq!(said(None), main);
    let side = said(Some("aaside_question-9f3c"));
    assert!(side.len() == 2 && side[1] == "Nobody knows.", "{side:?}");
    assert_eq!(found.tool_uses.len(), 1);
    assert_eq!(found.tool_uses[0].agent_id, None);
    let tokens = |usage: Usage| (usage.input_tokens, usage.output_tokens);
    assert_eq!(tokens(found.usage.subagents), (700, 7));
    assert_eq!(tokens(found.usage.total), (1400, 47));
}
