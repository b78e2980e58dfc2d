//! `arrakis install` and `arrakis uninstall` against settings files of many kinds.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::support::{Bench, bench};
use arrakis_bin::claude_settings::edit;
use arrakis_bin::claude_settings::{
    EditError, Obstacle, Scope, SettingsError, SettingsFiles, obstacles,
};
use arrakis_bin::cli::install::{self, InstallArgs, Surroundings, hook_beside};
use arrakis_bin::cli::uninstall::{self, UninstallArgs};
use arrakis_core::session::hook::HOOK_EVENTS;
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

const HOOK: &str = "/opt/arrakis/bin/arrakis-hook";

/// A user with a home, a project and an installed hook.
struct Machine {
    dir: TempDir,
    surroundings: Surroundings,
    bench: Bench,
}

impl Machine {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["home", "project", "bin"] {
            fs::create_dir(path(name)).unwrap();
        }
        fs::write(path("bin/arrakis-hook"), "").unwrap();
        fs::set_permissions(path("bin/arrakis-hook"), PermissionsExt::from_mode(0o755)).unwrap();
        let settings = SettingsFiles::new(&path("home"), None, &path("project"));
        let (hook, default_home) = (path("bin/arrakis-hook"), path("home/.arrakis"));
        let bench = bench(&default_home);
        let surroundings = Surroundings { settings, hook, default_home };
        Self { dir, surroundings, bench }
    }

    fn file(&self, scope: Scope) -> &Path {
        self.surroundings.settings.path(scope)
    }

    fn hook(&self) -> String {
        self.surroundings.hook.to_str().unwrap().to_owned()
    }

    fn write(&self, scope: Scope, text: &str) {
        fs::create_dir_all(self.file(scope).parent().unwrap()).unwrap();
        fs::write(self.file(scope), text).unwrap();
    }

    fn read(&self, scope: Scope) -> String {
        fs::read_to_string(self.file(scope)).unwrap()
    }

    fn install(&mut self, project: bool) -> anyhow::Result<String> {
        let args = InstallArgs { project, dry_run: false };
        install::run(&args, &self.surroundings, &mut self.bench.context)?;
        assert_eq!(self.bench.err.take(), "");
        Ok(self.bench.out.take())
    }

    fn uninstall(&mut self, project: bool) -> anyhow::Result<String> {
        let args = UninstallArgs { project, dry_run: false };
        uninstall::run(&args, &self.surroundings, &mut self.bench.context)?;
        Ok(self.bench.out.take())
    }

    fn backups(&self) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = fs::read_dir(self.file(Scope::User).parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_str().unwrap().contains("arrakis-"))
            .collect();
        found.sort();
        found
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_fresh_file_registers_every_event_but_one() {
    let mut machine = Machine::new();
    let told = machine.install(false).unwrap();
    let settings: Value = serde_json::from_str(&machine.read(Scope::User)).unwrap();
    let hooks = settings["hooks"].as_object().unwrap();
    assert_eq!(hooks.len(), HOOK_EVENTS.len() - 1);
    assert!(!hooks.contains_key("WorktreeCreate"));
    let handler = json!({ "type": "command", "command": machine.hook(), "args": [], "timeout": 5 });
    for (event, groups) in hooks {
        assert_eq!(groups[0]["hooks"], json!([handler]), "{event}");
        assert_eq!(groups.as_array().unwrap().len(), 1, "{event}");
    }
    assert_eq!(hooks["PreToolUse"][0]["matcher"], "*");
    assert_eq!(hooks["UserPromptSubmit"][0].get("matcher"), None);
    // The client would take the matcher of this event for the name of a file to watch.
    assert_eq!(hooks["FileChanged"][0].get("matcher"), None);
    assert_eq!(mode(machine.file(Scope::User)), 0o600);
    assert_eq!(mode(machine.file(Scope::User).parent().unwrap()), 0o700);
    assert!(machine.backups().is_empty());
    let registered = format!("Registered arrakis-hook for {} events in ", HOOK_EVENTS.len() - 1);
    assert!(told.contains(&registered), "{told}");
    assert!(told.contains("arrakis up"), "{told}");
}

#[test]
fn the_second_run_changes_nothing() {
    let mut machine = Machine::new();
    machine.write(Scope::User, "{\"model\": \"opus\"}\n");
    machine.install(false).unwrap();
    let (text, backups) = (machine.read(Scope::User), machine.backups());
    assert_eq!(backups.len(), 1);
    let told = machine.install(false).unwrap();
    assert!(told.contains("already; nothing to change"), "{told}");
    assert_eq!(machine.read(Scope::User), text);
    assert_eq!(machine.backups(), backups);
}

#[test]
fn other_hooks_comments_and_formatting_stay() {
    let before = r#"{
	// chosen by hand
	"model": "opus",
	"hooks": {
		"Stop": [
			{ "hooks": [{ "type": "command", "command": "say done" }] }, // keep
		],
	},
	"env": { "A": "1" },
}
"#;
    let after = edit::register(before, HOOK).unwrap().text;
    let stop = r#"		"Stop": [
			{ "hooks": [{ "type": "command", "command": "say done" }] }, // keep
			{
				"hooks": [
					{
						"type": "command",
						"command": "/opt/arrakis/bin/arrakis-hook",
						"args": [],
						"timeout": 5,
					},
				],
			},
		],
"#;
    assert!(after.contains(stop), "{after}");
    assert!(after.starts_with("{\n\t// chosen by hand\n\t\"model\": \"opus\",\n\t\"hooks\": {\n"));
    assert!(after.ends_with("\t},\n\t\"env\": { \"A\": \"1\" },\n}\n"), "{after}");
    assert_eq!(edit::unregister(&after, None).unwrap().text, before);
}

#[test]
fn a_backup_holds_the_old_bytes_and_is_no_more_readable_than_the_file() {
    let mut machine = Machine::new();
    let before = "{\r\n    \"a\": 1\r\n}";
    machine.write(Scope::User, before);
    fs::set_permissions(machine.file(Scope::User), PermissionsExt::from_mode(0o640)).unwrap();
    let told = machine.install(false).unwrap();
    let backups = machine.backups();
    assert_eq!(backups.len(), 1, "{backups:?}");
    let backup = &backups[0];
    assert!(
        backup.to_str().unwrap().ends_with("settings.json.arrakis-backup-20261124T120000.000000Z")
    );
    assert_eq!(fs::read_to_string(backup).unwrap(), before);
    assert_eq!((mode(backup), mode(machine.file(Scope::User))), (0o640, 0o640));
    assert!(told.contains(backup.to_str().unwrap()), "{told}");
    let after = machine.read(Scope::User);
    assert_eq!(after.matches('\n').count(), after.matches("\r\n").count());
    assert!(after.contains("\r\n    \"hooks\": {\r\n        \"PreToolUse\""), "{after}");
}

#[test]
fn a_stale_path_is_brought_up_to_date_in_place() {
    let mut machine = Machine::new();
    machine.write(
        Scope::User,
        r#"{ "hooks": {
  "Stop": [{ "hooks": [{ "type": "command", "command": "/old/arrakis-hook", "args": [], "timeout": 9 }] }],
  "SessionEnd": [{ "hooks": [{ "type": "command", "command": "'/old dir/arrakis-hook' --x" }] }],
  "WorktreeCreate": [{ "hooks": [{ "type": "command", "command": "/old/arrakis-hook", "args": [] }] }],
  "Notification": [{ "hooks": [{ "type": "command", "command": "echo /x/arrakis-hook" }] }]
} }"#,
    );
    let told = machine.install(false).unwrap();
    assert!(told.contains("Renewed arrakis-hook for 2 events"), "{told}");
    assert!(told.contains("Removed arrakis-hook for 1 event "), "{told}");
    let settings: Value = serde_json::from_str(&machine.read(Scope::User)).unwrap();
    let hooks = &settings["hooks"];
    let hook = machine.hook();
    let (stop, end) = (&hooks["Stop"][0]["hooks"][0], &hooks["SessionEnd"][0]["hooks"][0]);
    assert_eq!(stop, &json!({ "type": "command", "command": hook, "args": [], "timeout": 9 }));
    assert_eq!(end, &json!({ "type": "command", "command": hook, "args": [] }));
    assert_eq!(hooks["Stop"].as_array().unwrap().len(), 1);
    assert_eq!(hooks.get("WorktreeCreate"), None);
    assert_eq!(hooks["Notification"][0]["hooks"][0]["command"], "echo /x/arrakis-hook");
    assert_eq!(hooks["Notification"].as_array().unwrap().len(), 2);
    assert!(!edit::register(&machine.read(Scope::User), &hook).unwrap().is_change());
}

#[test]
fn a_narrowed_registration_gets_a_general_one_beside_it() {
    let text = r#"{ "hooks": { "PreToolUse": [ { "matcher": "Bash", "hooks": [
        { "type": "command", "command": "/opt/arrakis/bin/arrakis-hook", "args": [] } ] } ] } }"#;
    let edit = edit::register(text, HOOK).unwrap();
    let settings: Value = serde_json::from_str(&edit.text).unwrap();
    let matchers: Vec<&Value> = settings["hooks"]["PreToolUse"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| &group["matcher"])
        .collect();
    assert_eq!(matchers, ["Bash", "*"]);
}

#[test]
fn what_cannot_be_edited_safely_is_left_untouched() {
    let wrong = |path: &str, expected| EditError::WrongType { path: path.to_owned(), expected };
    let twice = |path: &str| EditError::Twice { path: path.to_owned() };
    for (text, expected) in [
        ("[]", wrong("the file's content", "an object")),
        ("null", wrong("the file's content", "an object")),
        (r#"{"hooks": []}"#, wrong("hooks", "an object")),
        (r#"{"hooks": null}"#, wrong("hooks", "an object")),
        (r#"{"hooks": {"Stop": {}}}"#, wrong("hooks.Stop", "a list")),
        (r#"{"hooks": {}, "hooks": {}}"#, twice("hooks")),
        (r#"{"hooks": {"Stop": [], "St\u006fp": []}}"#, twice("hooks.Stop")),
    ] {
        assert_eq!(edit::register(text, HOOK).unwrap_err(), expected, "{text}");
    }
    let mut machine = Machine::new();
    for (text, at) in [
        ("{\n  \"a\": 1,\n  \"b\" 2\n}", "line 3, column 7"),
        ("{\"a\": 'x'}", "line 1, column 7"),
        ("{\"a\": 1} {", "line 1, column 10"),
        ("{\"a\": ", "line 1, column 7"),
    ] {
        machine.write(Scope::User, text);
        let error = format!("{:#}", machine.install(false).unwrap_err());
        assert!(error.contains(at) && error.contains("settings.json"), "{text}: {error}");
        let error = format!("{:#}", machine.uninstall(false).unwrap_err());
        assert!(error.contains(at), "{text}: {error}");
        assert_eq!(machine.read(Scope::User), text);
        assert!(machine.backups().is_empty());
    }
    fs::write(machine.file(Scope::User), b"{\"a\": \"\xff\"}").unwrap();
    let error = format!("{:#}", machine.install(false).unwrap_err());
    assert!(error.contains("not UTF-8: byte 7"), "{error}");
}

#[test]
fn a_second_scope_is_refused_with_the_remedy() {
    for (first, second) in [(Scope::User, Scope::Project), (Scope::Project, Scope::User)] {
        let mut machine = Machine::new();
        machine.install(first == Scope::Project).unwrap();
        let error = machine.install(second == Scope::Project).unwrap_err();
        let SettingsError::RegisteredElsewhere { path, command, remedy } =
            error.downcast::<SettingsError>().unwrap()
        else {
            panic!("another error");
        };
        assert_eq!((path.as_path(), &command), (machine.file(first), &machine.hook()));
        let expected = if first == Scope::Project {
            "arrakis uninstall --project"
        } else {
            "arrakis uninstall"
        };
        assert_eq!(remedy, expected);
        assert!(!machine.file(second).exists());
        machine.uninstall(first == Scope::Project).unwrap();
        machine.install(second == Scope::Project).unwrap();
    }
    let mut machine = Machine::new();
    let local = edit::register("", "/elsewhere/arrakis-hook").unwrap().text;
    machine.write(Scope::Local, &local);
    assert!(machine.install(true).is_err());
    machine.uninstall(true).unwrap();
    machine.install(true).unwrap();
}

#[test]
fn the_home_directory_as_project_is_one_scope() {
    let mut machine = Machine::new();
    let home = machine.dir.path().join("home");
    machine.surroundings.settings = SettingsFiles::new(&home, None, &home);
    machine.install(false).unwrap();
    assert!(machine.install(false).unwrap().contains("nothing to change"));
    assert!(machine.install(true).unwrap().contains("nothing to change"));
}

#[test]
fn a_broken_file_of_another_scope_is_a_warning() {
    let mut machine = Machine::new();
    machine.write(Scope::Project, "{");
    let told = machine.install(false).unwrap();
    assert!(told.contains("warning: ") && told.contains("line 1, column 1"), "{told}");
    assert_eq!(machine.read(Scope::Project), "{");
}

#[test]
fn a_home_that_the_hook_does_not_find_by_itself_is_told() {
    let mut machine = Machine::new();
    assert!(!machine.install(false).unwrap().contains("warning"));
    machine.bench.context.home = "/elsewhere".into();
    assert!(machine.install(false).unwrap().contains("ARRAKIS_HOME=/elsewhere"));
}

#[test]
fn a_hook_that_cleaning_a_build_removes_is_told() {
    let mut machine = Machine::new();
    fs::write(machine.dir.path().join("CACHEDIR.TAG"), "").unwrap();
    assert!(machine.install(false).unwrap().contains("cargo install --locked --path arrakis-bin"));
}

#[test]
fn disabled_hooks_are_told() {
    let mut machine = Machine::new();
    machine.write(Scope::User, r#"{"disableAllHooks": true}"#);
    assert!(machine.install(false).unwrap().contains("warning: \"disableAllHooks\" is true"));
}

#[test]
fn a_symbolic_link_is_written_through() {
    let mut machine = Machine::new();
    let dotfiles = machine.dir.path().join("dotfiles.json");
    fs::write(&dotfiles, "{}\n").unwrap();
    fs::create_dir(machine.file(Scope::User).parent().unwrap()).unwrap();
    symlink(&dotfiles, machine.file(Scope::User)).unwrap();
    machine.install(false).unwrap();
    assert!(machine.file(Scope::User).is_symlink());
    assert!(fs::read_to_string(&dotfiles).unwrap().contains("arrakis-hook"));
    assert_eq!(machine.backups().len(), 1);
    machine.uninstall(false).unwrap();
    assert_eq!(fs::read_to_string(&dotfiles).unwrap(), "{}\n");
    assert!(machine.file(Scope::User).is_symlink());

    fs::remove_file(&dotfiles).unwrap();
    let error = format!("{:#}", machine.install(false).unwrap_err());
    assert!(error.contains("leads nowhere"), "{error}");
}

#[test]
fn uninstall_restores_the_bytes() {
    for before in [
        "",
        "\n",
        "{}",
        "{ }\n",
        "{\"hooks\":{}}",
        "{\"hooks\": {\"Stop\": []}}\n",
        "{\"a\":1,\"hooks\":{\"Stop\":[{\"hooks\":[]}]},\"b\":[1,2]}",
        "\u{feff}{\n  \"a\": 1\n}\n",
        "// only a comment\n",
        "{\n\n\n  \"a\": 1,\n\n\n}\n\n\n",
    ] {
        let mut machine = Machine::new();
        machine.write(Scope::User, before);
        machine.install(false).unwrap();
        assert_ne!(machine.read(Scope::User), before);
        machine.uninstall(false).unwrap();
        assert_eq!(machine.read(Scope::User), before);
    }
}

#[test]
fn uninstall_keeps_what_was_changed_since() {
    let mut machine = Machine::new();
    machine.write(Scope::User, "{\n  \"a\": 1\n}\n");
    machine.install(false).unwrap();
    let text = machine.read(Scope::User).replace("\"a\": 1", "// new\n  \"a\": 2");
    machine.write(Scope::User, &text);
    machine.uninstall(false).unwrap();
    assert_eq!(machine.read(Scope::User), "{\n  // new\n  \"a\": 2\n}\n");
    let told = machine.uninstall(false).unwrap();
    assert!(told.contains("not registered"), "{told}");
}

#[test]
fn a_dry_run_changes_nothing() {
    let mut machine = Machine::new();
    let args = InstallArgs { project: false, dry_run: true };
    machine.bench.context.json = true;
    install::run(&args, &machine.surroundings, &mut machine.bench.context).unwrap();
    let told: Value = serde_json::from_str(&machine.bench.out.take()).unwrap();
    assert_eq!(told["changed"], true);
    assert_eq!(told["dryRun"], true);
    assert_eq!(told["scope"], "user");
    assert_eq!(told["hook"], machine.hook());
    assert_eq!(told["added"].as_array().unwrap().len(), HOOK_EVENTS.len() - 1);
    assert_eq!(told["backup"], Value::Null);
    assert!(!machine.file(Scope::User).parent().unwrap().exists());
}

#[test]
fn a_missing_hook_is_an_error() {
    let mut machine = Machine::new();
    fs::set_permissions(&machine.surroundings.hook, PermissionsExt::from_mode(0o644)).unwrap();
    let error = machine.install(false).unwrap_err().to_string();
    assert!(error.contains("is not executable"), "{error}");
    fs::remove_file(&machine.surroundings.hook).unwrap();
    let error = machine.install(false).unwrap_err().to_string();
    assert!(error.contains("there is no hook at"), "{error}");
    assert!(!machine.file(Scope::User).exists());
}

#[test]
fn the_hook_is_named_as_the_program_was_called() {
    let dir = TempDir::new().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let path = |name: &str| root.join(name);
    for name in ["v1", "bin", "other"] {
        fs::create_dir(path(name)).unwrap();
    }
    for program in ["arrakis", "arrakis-hook"] {
        fs::write(path("v1").join(program), "").unwrap();
        symlink(path("v1").join(program), path("bin").join(program)).unwrap();
    }
    fs::write(path("other/arrakis"), "").unwrap();
    let exe = path("v1/arrakis");
    let search = std::env::join_paths([path("other"), path("bin")]).unwrap();
    let found = |called: &str| hook_beside(called.as_ref(), &search, &root, &exe);
    assert_eq!(found("arrakis"), path("bin/arrakis-hook"));
    assert_eq!(found("bin/arrakis"), path("bin/arrakis-hook"));
    assert_eq!(found("a name that leads nowhere"), path("v1/arrakis-hook"));
    fs::remove_file(path("bin/arrakis-hook")).unwrap();
    assert_eq!(found("arrakis"), path("v1/arrakis-hook"));
}

#[test]
fn claude_config_dir_moves_the_users_file() {
    let (home, cwd) = (Path::new("/home/u"), Path::new("/p"));
    let user = |dir: Option<&str>| {
        let files = SettingsFiles::new(home, dir.map(str::as_ref), cwd);
        files.path(Scope::User).to_owned()
    };
    assert_eq!(user(None), Path::new("/home/u/.claude/settings.json"));
    assert_eq!(user(Some("")), Path::new("/home/u/.claude/settings.json"));
    assert_eq!(user(Some("/c")), Path::new("/c/settings.json"));
    assert_eq!(user(Some("c")), Path::new("/p/c/settings.json"));
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,6}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn group() -> impl Strategy<Value = Value> {
    let command = prop_oneof![
        Just("echo hi".to_owned()),
        Just("arrakis-hooks".to_owned()),
        Just("/x/arrakis-hook.sh".to_owned()),
        ".{0,12}".prop_filter("ours", |command| !command.contains("arrakis-hook")),
    ];
    let handler = command.prop_map(|command| json!({ "type": "command", "command": command }));
    let handlers = prop::collection::vec(prop_oneof![3 => handler, 1 => json_value()], 0..3);
    let matcher = prop_oneof![Just(json!("*")), Just(json!("Bash")), json_value()];
    let whole = (matcher, handlers)
        .prop_map(|(matcher, hooks)| json!({ "matcher": matcher, "hooks": hooks }));
    prop_oneof![4 => whole, 1 => json_value()]
}

fn settings() -> impl Strategy<Value = Value> {
    let event = prop_oneof![
        4 => prop::sample::select(HOOK_EVENTS.to_vec()).prop_map(str::to_owned),
        1 => "[A-Z][a-z]{3,8}",
    ];
    let hooks = prop::collection::btree_map(event, prop::collection::vec(group(), 0..3), 0..4)
        .prop_map(|hooks| json!(hooks));
    let rest = prop::collection::btree_map("[a-z]{1,4}|.{1,6}", json_value(), 0..4);
    (rest, prop::option::of(hooks)).prop_map(|(rest, hooks)| {
        let mut settings: serde_json::Map<String, Value> = rest.into_iter().collect();
        settings.remove("hooks");
        settings.extend(hooks.map(|hooks| ("hooks".to_owned(), hooks)));
        Value::Object(settings)
    })
}

/// The text of `value` in one of several formattings.
fn format(value: &Value, style: usize) -> String {
    use serde::Serialize;
    let indent: &[u8] = [&b""[..], b"  ", b"    ", b"\t"][style % 4];
    if indent.is_empty() {
        return value.to_string();
    }
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent);
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, formatter)).unwrap();
    let mut text = String::from_utf8(text).unwrap();
    if style & 4 != 0 {
        text.push('\n');
    }
    if style & 8 != 0 { text.replace('\n', "\r\n") } else { text }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn install_adds_only_ours_and_uninstall_removes_only_ours(
        value in settings(),
        style in 0_usize..16,
        keep_backup in any::<bool>(),
    ) {
        let before = format(&value, style);
        let installed = edit::register(&before, HOOK).unwrap();
        prop_assert_eq!(installed.added.len(), HOOK_EVENTS.len() - 1);

        // Everything that was there is there still, in its place.
        let after: Value = serde_json::from_str(&installed.text).unwrap();
        for (key, old) in value.as_object().unwrap().iter().filter(|(key, _)| *key != "hooks") {
            prop_assert_eq!(&after[key], old);
        }
        for (event, groups) in value["hooks"].as_object().into_iter().flatten() {
            let groups = groups.as_array().unwrap();
            prop_assert_eq!(&after["hooks"][event].as_array().unwrap()[..groups.len()], &groups[..]);
        }
        prop_assert!(!edit::register(&installed.text, HOOK).unwrap().is_change());
        prop_assert_eq!(edit::registrations(&installed.text).unwrap(), [HOOK]);

        let known = keep_backup.then_some(before.as_str());
        let restored = edit::unregister(&installed.text, known).unwrap();
        prop_assert_eq!(edit::registrations(&restored.text).unwrap(), Vec::<String>::new());
        if keep_backup {
            prop_assert_eq!(&restored.text, &before);
        } else {
            let restored: Value = serde_json::from_str(&restored.text).unwrap();
            prop_assert_eq!(without_empty(restored), without_empty(value));
        }
    }

    #[test]
    fn any_text_is_input(text in "\\PC{0,80}|[{}\\[\\]\",:a-z0-9/\\* \n]{0,60}") {
        let registered = edit::register(&text, HOOK);
        let unregistered = edit::unregister(&text, Some(&text));
        if let Ok(edit) = registered {
            prop_assert!(unregistered.is_ok());
            prop_assert!(!edit::register(&edit.text, HOOK).unwrap().is_change(), "{}", edit.text);
        }
    }
}

/// What cannot be told apart without a backup: an empty list of groups, or none.
fn without_empty(mut settings: Value) -> Value {
    if let Some(hooks) = settings.get_mut("hooks").and_then(Value::as_object_mut) {
        hooks.retain(|event, groups| {
            !(HOOK_EVENTS.contains(&event.as_str()) && groups == &json!([]))
        });
        if hooks.is_empty() {
            settings.as_object_mut().unwrap().remove("hooks");
        }
    }
    settings
}

/// What keeps the hook of a machine from working.
fn found(machine: &Machine) -> Vec<Obstacle> {
    let settings = machine.surroundings.settings.clone();
    let settings = settings.with_managed(machine.dir.path().join("managed-settings.json"));
    obstacles(&settings, &machine.surroundings.default_home)
}

#[test]
fn a_registration_that_cannot_work_is_known() {
    let mut machine = Machine::new();
    machine.install(false).unwrap();
    let installed = machine.read(Scope::User);
    assert_eq!(found(&machine), []);

    let disabled = r#"{"disableAllHooks": true}"#;
    for scope in [Scope::Project, Scope::Local] {
        machine.write(scope, disabled);
        assert_eq!(found(&machine), [Obstacle::Disabled(machine.file(scope).to_owned())]);
        machine.write(scope, "{}");
    }
    machine.write(Scope::User, &installed.replacen('{', r#"{"disableAllHooks": true, "#, 1));
    assert_eq!(found(&machine), [Obstacle::Disabled(machine.file(Scope::User).to_owned())]);
    machine.write(Scope::User, &installed);

    let managed = machine.dir.path().join("managed-settings.json");
    fs::write(&managed, disabled).unwrap();
    assert_eq!(found(&machine), [Obstacle::Disabled(managed.clone())]);
    fs::write(&managed, r#"{"allowManagedHooksOnly": true}"#).unwrap();
    assert_eq!(found(&machine), [Obstacle::ManagedOnly(managed.clone())]);
    fs::remove_file(&managed).unwrap();

    let mut only_stop: Value = serde_json::from_str(&installed).unwrap();
    only_stop["hooks"].as_object_mut().unwrap().retain(|name, _| name == "Stop");
    machine.write(Scope::User, &only_stop.to_string());
    let [Obstacle::Missing(_, missing)] = &found(&machine)[..] else { panic!("some are missing") };
    assert_eq!(missing.len(), edit::registered_events().count() - 1);
    assert!(missing.contains(&"UserPromptSubmit") && !missing.contains(&"Stop"));
    machine.write(Scope::User, &installed);

    machine.write(Scope::Local, r#"{"env": {"ARRAKIS_HOME": "/elsewhere"}}"#);
    let other = (machine.file(Scope::Local).to_owned(), PathBuf::from("/elsewhere"));
    assert_eq!(found(&machine), [Obstacle::OtherHome(other.0, other.1)]);
    machine.write(Scope::Local, "{}");

    fs::remove_file(machine.hook()).unwrap();
    assert_eq!(found(&machine), [Obstacle::Gone(machine.hook().into())]);
}
