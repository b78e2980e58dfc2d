//! Sessions to search, and what to search for.

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};

use crate::base::clock::Timestamp;
use crate::record::store::SearchFilter;
use crate::session::conversation::{Role, ToolStatus};
use crate::testkit::sessions::Session;

const WORDS: [&str; 11] = [
    "alpha",
    "beta",
    "Gamma-ray",
    "delta",
    "épsilon",
    "zeta\n",
    "x1",
    "nul\0",
    "登录失败",
    "로그인을",
    "ทดสอบ",
];
/// What is asked for besides words.
const ASKED: [&str; 9] = [
    "\"alpha beta\"",
    "\"ray delta\"",
    "gam*",
    "delt*",
    "EPSI*",
    "登录",
    "败",
    "로그인",
    "\"ทดสอบ alp*\"",
];
const PROJECTS: [&str; 4] = ["/p", "/p/a", "/p/ab", "/q"];
const TOOLS: [&str; 3] = ["Bash", "Read", "mcp__x__y"];
const MODELS: [&str; 2] = ["claude-opus-5-5", "claude-haiku-5"];

pub(super) fn any_filter(random: &mut StdRng) -> SearchFilter {
    let mut filter = SearchFilter::new(["main", "other"].choose(random).expect("one"));
    let mut chance = |percent: u32| random.random_range(0..100) < percent;
    let asked = [70, 20, 30, 25, 25, 15, 15, 15, 20, 20].map(&mut chance);
    let [text, session, project, since, until, role, tool, outcome, model, thread] = asked;
    let one = |of: &[&str], random: &mut StdRng| of.choose(random).map(|one| (*one).to_owned());
    let mut moment =
        |asked: bool| asked.then(|| Timestamp::from_millis(AT + random.random_range(0..400)));
    (filter.since, filter.until) = (moment(since), moment(until));
    let phrase = one(&ASKED, random).filter(|_| random.random_range(0..3) == 0);
    let asked = text.then(|| phrase.unwrap_or_else(|| words(random)));
    filter.text = asked.filter(|text| !text.is_empty());
    filter.session_id = session.then(|| format!("made-{}", random.random_range(0..8)));
    filter.project = one(&["/p", "/p/a", "/q/", "/"], random).filter(|_| project);
    filter.role = role.then(|| [Role::User, Role::Assistant][random.random_range(0..2)]);
    filter.tool_name = one(&TOOLS, random).filter(|_| tool);
    let outcomes = [ToolStatus::Running, ToolStatus::Failed, ToolStatus::Succeeded];
    filter.outcome = outcome.then(|| outcomes[random.random_range(0..3)]);
    filter.model = one(&["opus", "claude", "claude-haiku-5", "5"], random).filter(|_| model);
    filter.is_subagent = thread.then(|| random.random_range(0..2) == 0);
    filter
}

fn words(random: &mut StdRng) -> String {
    let mut text = String::new();
    for _ in 0..random.random_range(0..3) {
        text.push_str(WORDS.choose(random).expect("one"));
        text.push(' ');
    }
    text
}

/// When the sessions here began: at the first hook of [`Session`].
pub(super) const AT: i64 = 1_795_481_720_000;

/// A session with words, tools, models and directories to tell apart.
pub(super) fn made(seed: u64, random: &mut StdRng) -> Session {
    let id = format!("made-{seed}");
    let (mut hooks, mut transcript, mut helper) = (Vec::new(), String::new(), String::new());
    for n in 0..random.random_range(3..12) {
        let cwd = PROJECTS.choose(random).expect("one");
        let mut tell = |event: &str, mut more: Value| {
            more["session_id"] = json!(id);
            more["cwd"] = json!(cwd);
            more["hook_event_name"] = json!(event);
            hooks.push(more.to_string().into_bytes());
        };
        tell("UserPromptSubmit", json!({"prompt": words(random), "prompt_id": format!("p{n}")}));
        let (tool, model) = (TOOLS.choose(random), MODELS.choose(random));
        let (input, said) = (json!({"b": words(random), "a": [n, words(random)]}), words(random));
        let call = json!({"tool_name": tool, "tool_use_id": format!("t{n}"), "tool_input": input});
        tell("PreToolUse", call.clone());
        if random.random_range(0..3) > 0 {
            let mut result = call;
            result["tool_response"] = json!({"stdout": words(random), "z": 1.0});
            tell(["PostToolUse", "PostToolUseFailure"][random.random_range(0..2)], result);
        }
        tell("Stop", json!({"last_assistant_message": said}));
        let blocks = [
            json!({"type": "thinking", "thinking": words(random)}),
            json!({"type": "text", "text": said}),
            json!({"type": "tool_use", "id": format!("t{n}"), "name": tool, "input": input}),
        ];
        let to = if random.random_range(0..4) == 0 { &mut helper } else { &mut transcript };
        for (index, block) in blocks.into_iter().enumerate() {
            let at = Timestamp::from_millis(AT + random.random_range(0..400));
            let line = json!({"type": "assistant", "uuid": format!("l{n}-{index}"),
                "timestamp": at, "cwd": cwd, "message": {"id": format!("m{n}"),
                "role": "assistant", "model": model, "content": [block]}});
            to.push_str(&format!("{line}\n"));
        }
    }
    let mut session = Session::new(&id, hooks, transcript.into_bytes());
    session.add_subagent("helper", &json!({"agentType": "helper"}), helper.into_bytes());
    session
}

/// A prompt, an answer, a tool that fails, and a subagent that thinks.
pub(super) fn session(id: &str) -> Session {
    let hook = |event: &str, mut more: Value| {
        more["session_id"] = json!(id);
        more["cwd"] = json!("/p/a");
        more["hook_event_name"] = json!(event);
        more.to_string().into_bytes()
    };
    let tool = json!({"tool_name": "Bash", "tool_use_id": "t1",
        "tool_input": {"command": "cargo build"}, "error": "error: a semicolon\nis missing"});
    let hooks =
        vec![hook("UserPromptSubmit", json!({"prompt": "Fix the build", "prompt_id": "p1"}))];
    let line = |uuid: &str, millis: i64, message: Value| {
        let at = Timestamp::from_millis(AT + millis);
        format!(
            "{}\n",
            json!({"type": "assistant", "uuid": uuid, "timestamp": at,
            "cwd": "/p/a", "message": message})
        )
    };
    let answer = |content: Value| json!({"id": "m1", "role": "assistant", "model": "claude-opus-5-5", "content": [content]});
    let transcript = [
        line("l1", 10, answer(json!({"type": "text", "text": "I shall build it."}))),
        line(
            "l2",
            30,
            answer(json!({"type": "tool_use", "id": "t1", "name": "Bash",
            "input": tool["tool_input"]})),
        ),
        format!(
            "{}\n",
            json!({"type": "user", "uuid": "l3",
            "timestamp": Timestamp::from_millis(AT + 40), "cwd": "/p/a",
            "message": {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1",
            "is_error": true, "content": tool["error"]}]}})
        ),
    ]
    .concat();
    let helper = line(
        "l4",
        5,
        json!({"id": "m2", "role": "assistant", "content":
        [{"type": "thinking", "thinking": "pondering"}]}),
    );
    let mut session = Session::new(id, hooks, transcript.into_bytes());
    session.add_subagent("a1", &json!({"agentType": "helper"}), helper.into_bytes());
    session
}
