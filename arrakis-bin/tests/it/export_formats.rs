//! `arrakis export` as tables and documents, and which conversations it takes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::support::{Bench, bench, store_of};
use arrakis_bin::cli::{Cli, Command, export};
use arrakis_core::record::store::{Archive, EventReader, MemoryStore};
use arrakis_core::testkit::recorded::{recorded, recording};
use arrakis_core::testkit::sessions::Session;
use clap::Parser;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Somebody who exports what a store has of some sessions.
struct Exporter {
    store: Arc<MemoryStore>,
    bench: Bench,
    home: TempDir,
}

impl Exporter {
    async fn of(sessions: &[Session]) -> Self {
        let store = store_of(sessions).await;
        let home = TempDir::new().unwrap();
        Self { store, bench: bench(home.path()), home }
    }

    async fn try_run(&mut self, arguments: &str) -> anyhow::Result<String> {
        let cli = Cli::try_parse_from(format!("arrakis export {arguments}").split_whitespace())?;
        self.bench.context.json = cli.json;
        let Command::Export(args) = &cli.command else { panic!("{arguments}") };
        let reader: Arc<dyn EventReader> = self.store.clone();
        let archive: Arc<dyn Archive> = self.store.clone();
        export::run(args, &reader, &archive, &mut self.bench.context).await?;
        assert!(self.bench.err.take().ends_with("exported.\n") || cli.json);
        Ok(self.bench.out.take())
    }

    async fn run(&mut self, arguments: &str) -> String {
        self.try_run(arguments).await.unwrap()
    }

    async fn error(&mut self, arguments: &str) -> String {
        self.try_run(arguments).await.unwrap_err().to_string()
    }

    /// The rows of a table, by the names of their columns.
    async fn table(&mut self, arguments: &str) -> Vec<std::collections::HashMap<String, String>> {
        let text = self.run(&format!("--format csv {arguments}")).await;
        assert!(text.ends_with("\r\n"), "lines end as RFC 4180 says");
        let mut rows = csv::Reader::from_reader(text.as_bytes());
        rows.deserialize().collect::<Result<_, _>>().unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }
}

/// A session with one prompt at some project.
fn prompt(session: &str, project: &str, prompt: &str) -> Session {
    let hook = json!({ "session_id": session, "hook_event_name": "UserPromptSubmit", "cwd": project,
        "prompt": prompt, "prompt_id": "p" });
    // The name becomes a part of request ids.
    let name: String = session.bytes().map(|byte| format!("{byte:02x}")).collect();
    Session::new(&name, vec![hook.to_string().into_bytes()], Vec::new())
}

#[tokio::test]
async fn only_what_is_selected_is_exported() {
    let sessions = [prompt("a1", "/p", "x"), prompt("a2", "/p/q", "y"), prompt("b", "/pq", "z")];
    let mut exporter = Exporter::of(&sessions).await;
    let mut ids = async |arguments: &str| {
        let rows = exporter.table(&format!("--table conversations {arguments}")).await;
        let mut ids: Vec<_> = rows.into_iter().map(|row| row["session_id"].clone()).collect();
        ids.sort();
        ids.join(" ")
    };
    assert_eq!(ids("--all").await, "a1 a2 b");
    assert_eq!(ids("a1 b").await, "a1 b");
    assert_eq!(ids("--project /p").await, "a1 a2");
    assert_eq!(ids("a1 b --project /pq").await, "b");
    assert_eq!(ids("--since 2026-11-24").await, "a1 a2 b");
    assert_eq!(ids("--since 2026-11-25").await, "");
    assert_eq!(ids("--until 2026-11-24").await, "");
    assert_eq!(ids("--until 2026-11-25").await, "a1 a2 b");
    assert_eq!(ids("--all --workspace other").await, "");
    assert!(exporter.error("").await.starts_with("say which: "));
    assert!(exporter.error("a").await.starts_with("2 conversations begin with a; say which:"));
    assert!(exporter.error("c").await.contains("no conversation c"));
}

#[tokio::test]
async fn a_file_is_there_once_it_is_whole_and_for_its_owner() {
    let mut exporter = Exporter::of(&[prompt("s", "/p", "x")]).await;
    let path = exporter.path("out.csv");
    let arguments = format!("--all --format csv --output {}", path.display());
    let summary: Value =
        serde_json::from_str(&exporter.run(&format!("{arguments} --json")).await).unwrap();
    assert_eq!((&summary["rows"], &summary["conversations"]), (&json!(1), &json!(1)));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(exporter.error(&arguments).await.contains("is there already"));
    exporter.run(&format!("{arguments} --overwrite")).await;
    assert!(
        exporter.error("--all --output /no/such/directory/x").await.starts_with("cannot write")
    );
    let left: Vec<_> = fs::read_dir(exporter.home.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "nothing is left beside the file: {left:?}");
}

#[tokio::test]
async fn tables_have_a_row_for_each_thing_and_no_formulas() {
    let sessions = recorded();
    let mut exporter = Exporter::of(&sessions).await;
    let messages = exporter.table("--all").await;
    assert_eq!(messages.len(), 48);
    let answer =
        messages.iter().find(|row| row["content"].starts_with("Running a command.")).unwrap();
    assert_eq!(answer["content"], "Running a command.\nSecond line of text.");
    assert_eq!((&answer["role"][..], &answer["tool_uses"][..]), ("assistant", "1"));
    assert_eq!((&answer["input_tokens"][..], &answer["output_tokens"][..]), ("1000", "42"));
    let tools = exporter.table("--all --table tools").await;
    assert_eq!(tools.len(), 26);
    let bash = tools.iter().find(|row| row["parameters"].contains("echo hi")).unwrap();
    assert_eq!(
        (&bash["tool_name"][..], &bash["status"][..], &bash["duration"][..]),
        ("Bash", "succeeded", "30")
    );
    assert!(bash["response"].contains("\"stdout\":\"hi\""));
    let conversations = exporter.table("--all --table conversations").await;
    assert_eq!(conversations.len(), sessions.len());
    assert!(conversations.iter().all(|row| row["cost"].parse::<f64>().unwrap() > 0.0));
    let events = exporter.table("--all --table events --type Stop").await;
    assert!(events.len() > 5 && events.iter().all(|row| row["event_type"] == "Stop"));

    let evil = ["'=1", "=cmd|' /C calc'!A0", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", "＝1"];
    let sessions: Vec<_> =
        (0..).zip(evil).map(|(n, text)| prompt(&format!("=s{n}"), "/p", text)).collect();
    let mut exporter = Exporter::of(&sessions).await;
    let rows = exporter.table("--all").await;
    assert!(rows.iter().all(|row| row["session_id"].starts_with("'=s")));
    let guarded = evil.map(|text| format!("'{text}"));
    assert!(guarded.iter().all(|text| rows.iter().any(|row| row["content"] == *text)), "{rows:?}");
}

#[tokio::test]
async fn a_document_reads_from_top_to_bottom() {
    let mut exporter = Exporter::of(&recorded()).await;
    let document = exporter.run("3c150d3c --format markdown").await;
    let day = "2026-11-24";
    let (_, talk) = document.split_once("**You**").unwrap();
    let expected = format!(
        " · {day} 00:55:28

@@play agent

<details>
<summary><b>Agent</b> helper · ok, 286 ms, 3 lines</summary>

- description: `helper`
- prompt: `@@play sub`
- run\\_in\\_background: `false`
- subagent\\_type: `general-purpose`

Output:

```
<tools-used-before-summary>Bash</tools-used-before-summary>

Done with sub.
```

</details>

<details>
<summary>subagent general-purpose afda2e27b6ed714bc</summary>

**Task** · {day} 00:55:28

@@play sub

**Claude** · {day} 00:55:28

I am the subagent.

<details>
<summary><b>Bash</b> echo from-subagent # mock step · ok, 25 ms, 1 line</summary>

- command: `echo from-subagent`
- description: `mock step`

Output:

```
from-subagent
```

</details>

**Claude** · {day} 00:55:28

Done with sub.

</details>

**Claude** · {day} 00:55:28

Done with agent.

"
    );
    assert_eq!(talk, expected);
    assert!(document.starts_with("# @@play agent\n\n- **Session:** `3c150d3c-"), "{document}");
    assert!(document.contains("- **Tokens:** 5280 in (1200 from the cache), 168 out\n"));

    let directory = exporter.path("documents");
    let all = format!("--all --format markdown --output {}/", directory.display());
    exporter.run(&all).await;
    let mut names: Vec<_> = fs::read_dir(&directory)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names.len(), 7);
    let name = &names[3];
    assert_eq!(name, &format!("{day}-3c150d3c-db13-4f61-a50b-1445b3409e6e.md"));
    assert_eq!(fs::read_to_string(directory.join(name)).unwrap(), document);
}

#[tokio::test]
async fn nothing_in_a_conversation_is_live_in_its_document() {
    let evil = "</details></summary>```\n````\n<script>x</script>\n![i](http://t/) [l](javascript:x)\n\n# h\n\u{1b}[2J";
    let tool = json!({ "session_id": "../s", "hook_event_name": "PostToolUse", "tool_name": evil, "tool_use_id": "t",
        "tool_input": { "command": evil, evil: evil, "old_string": evil, "new_string": "n" },
        "tool_response": evil, "agent_id": evil, "agent_type": evil });
    let mut session = prompt("../s", evil, evil);
    session.hooks.push(tool.to_string().into_bytes());
    session.hooks.push(
        json!({ "session_id": "../s", "hook_event_name": "Notification", "message": evil })
            .to_string()
            .into_bytes(),
    );
    let mut exporter = Exporter::of(&[session]).await;
    let document = exporter.run("--all --format markdown").await;
    let mut html = String::new();
    for event in pulldown_cmark::Parser::new(&document) {
        match event {
            pulldown_cmark::Event::Html(text) | pulldown_cmark::Event::InlineHtml(text) => {
                html.push_str(&text);
            }
            pulldown_cmark::Event::Start(
                pulldown_cmark::Tag::Image { .. } | pulldown_cmark::Tag::Link { .. },
            ) => {
                panic!("something is loaded or followed in {document}");
            }
            _ => {}
        }
    }
    // All tags are ours, and each that opens is closed.
    for tag in html.split('<').skip(1) {
        let tag = tag.split('>').next().unwrap();
        assert!(["details", "summary", "b", "/details", "/summary", "/b"].contains(&tag), "{html}");
    }
    assert_eq!(html.matches("<details>").count(), html.matches("</details>").count());
    assert!(!document.contains('\u{1b}'));
    let directory = exporter.path("documents");
    exporter.run(&format!("--all --format markdown --output {}/", directory.display())).await;
    let names: Vec<_> =
        fs::read_dir(&directory).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert!(names.len() == 1 && names[0].to_str().unwrap().contains("-s-"), "{names:?}");
}

#[tokio::test]
async fn images_are_files_beside_the_document() {
    use base64::Engine as _;
    let png = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR4nGP4z8CAFWEXHbQSACj/P8Fu7N9hAAAAAElFTkSuQmCC";
    let bytes = base64::engine::general_purpose::STANDARD.decode(png).unwrap();
    let session = "988e4f98-931c-4264-a189-bfcdfe9a90d7";
    let mut exporter = Exporter::of(&recording("16-mentions-images-pastes")).await;
    let directory = exporter.path("documents");
    exporter.run(&format!("--all --format markdown --output {}/", directory.display())).await;
    let name = format!("2026-11-24-{session}");
    let image = format!("{name}.files/c4a79811-cfd9-4f43-b6ee-e42e0a5af861-1.png");
    assert_eq!(fs::read(directory.join(&image)).unwrap(), bytes);
    let document = fs::read_to_string(directory.join(format!("{name}.md"))).unwrap();
    assert!(document.contains(&format!("\n[image, image/png]({image})\n")), "{document}");
    assert!(document.contains("*read notes.md (3 lines)*"), "{document}");
    assert!(
        document.contains("pasted line 29") && !document.contains("pasted_content"),
        "{document}"
    );
    let mode = fs::metadata(directory.join(&image)).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "only its owner may read it");

    let file = exporter.path("one_document.md");
    exporter.run(&format!("{session} --format markdown --output {}", file.display())).await;
    let document = fs::read_to_string(&file).unwrap();
    assert!(document.contains("](one_document.files/c4a79811"), "{document}");

    let document = exporter.run(&format!("{session} --format markdown")).await;
    assert!(document.contains("*image, image/png, in the event* `"), "{document}");
}

#[tokio::test]
async fn an_image_that_a_tool_gave_back_is_a_file_too() {
    let line = |kind: &str, n: usize, content: Value| {
        json!({ "type": kind, "uuid": format!("u{n}"), "timestamp": format!("2026-11-24T10:00:0{n}Z"),
            "sessionId": "s", "message": { "id": "m", "content": content, "model": "claude-opus-5-5" } })
        .to_string()
    };
    let call = json!([{ "type": "tool_use", "id": "t1", "name": "Read", "input": { "file_path": "a.png" } }]);
    let result = json!([{ "type": "tool_result", "tool_use_id": "t1", "content": [{ "type": "image",
        "source": { "type": "base64", "media_type": "image/png", "data": "AAAA" } }] }]);
    let lines = [line("assistant", 1, call), line("user", 2, result)].join("\n");
    let session = Session::new("s", Vec::new(), (lines + "\n").into_bytes());
    let mut exporter = Exporter::of(&[session]).await;
    let directory = exporter.path("documents");
    exporter.run(&format!("--all --format markdown --output {}/", directory.display())).await;
    let files = directory.join("2026-11-24-s.files");
    let image = fs::read_dir(&files).unwrap().next().unwrap().unwrap();
    assert_eq!(fs::read(image.path()).unwrap(), [0, 0, 0]);
    let document = fs::read_to_string(directory.join("2026-11-24-s.md")).unwrap();
    let link = format!("[file](2026-11-24-s.files/{})", image.file_name().to_string_lossy());
    assert!(document.contains(&link), "{document}");
    let document = exporter.run("s --format markdown").await;
    assert!(document.contains("*file, in the result as `--json` shows it*"), "{document}");
}
