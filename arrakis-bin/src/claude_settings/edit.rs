//! Edits the text of a settings file, and nothing of it that is not ours.
//!
//! A registration is one group per event:
//!
//! ```json
//! { "hooks": { "Stop": [ { "hooks": [
//!     { "type": "command", "command": "/abs/arrakis-hook", "args": [], "timeout": 5 } ] } ] } }
//! ```
//!
//! * `args` makes the client start the program itself, without a shell.
//! * The command is the same everywhere: the client runs identical commands once per event.
//! * `"matcher": "*"` stands where the event has something to match. A group without one runs on
//!   every occurrence too; `FileChanged` needs that form, for it would take `*` for a file's name.
//!
//! The text is edited as a concrete syntax tree, so comments, order and indentation stay.

use std::path::{Path, PathBuf};

use arrakis_core::session::hook::HOOK_EVENTS;
use jsonc_parser::cst::{CstInputValue, CstNode, CstObject, CstObjectProp};

use super::document::{Document, EditError, property, string, wrong};

/// The file name by which a registered command is known to be ours.
pub const HOOK_PROGRAM: &str = "arrakis-hook";

/// How long the client lets the hook run, in seconds. The hook's own deadline is one second.
pub const HOOK_TIMEOUT_S: u32 = 5;

/// A hook of `WorktreeCreate` has to create the worktree itself, so registering one would replace
/// the client's own way of doing it.
const NOT_REGISTERED: &str = "WorktreeCreate";

/// The events whose groups select by a matcher, as Claude Code's hooks reference lists them.
const MATCHED_EVENTS: [&str; 21] = [
    "ConfigChange",
    "Elicitation",
    "ElicitationResult",
    "InstructionsLoaded",
    "Notification",
    "PermissionDenied",
    "PermissionRequest",
    "PostCompact",
    "PostModelSwitch",
    "PostToolUse",
    "PostToolUseFailure",
    "PreCompact",
    "PreModelSwitch",
    "PreToolUse",
    "SessionEnd",
    "SessionStart",
    "Setup",
    "StopFailure",
    "SubagentStart",
    "SubagentStop",
    "UserPromptExpansion",
];

/// The text after an edit, and what the edit did, by event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The whole text.
    pub text: String,
    /// The events that got a registration.
    pub added: Vec<String>,
    /// The events whose registration was brought up to date.
    pub updated: Vec<String>,
    /// The events that lost their registration.
    pub removed: Vec<String>,
}

impl Edit {
    /// Whether it did anything.
    #[must_use]
    pub fn is_change(&self) -> bool {
        !(self.added.is_empty() && self.updated.is_empty() && self.removed.is_empty())
    }
}

/// The events that are registered: all that the client has, but one.
pub fn registered_events() -> impl Iterator<Item = &'static str> {
    HOOK_EVENTS.into_iter().filter(|event| *event != NOT_REGISTERED)
}

/// Registers `command`, the absolute path of the hook, for every event. Registrations that are
/// there already keep their place and get this path.
///
/// # Errors
///
/// The text is not a settings file that can be edited safely.
pub fn register(text: &str, command: &str) -> Result<Edit, EditError> {
    let document = Document::parse(text)?;
    let mut edit = Edit::of(text);
    let root = document.tree.object_value_or_set();
    let hooks = match property(&root, "hooks") {
        Some(prop) => prop.object_value().ok_or_else(|| wrong("hooks", "an object"))?,
        None => root.object_value_or_set("hooks"),
    };
    for event in events(&hooks) {
        let mut changed = false;
        if event.name == NOT_REGISTERED {
            if event.unregister(true) {
                edit.removed.push(event.name);
            }
            continue;
        }
        for (_, handler) in event.our_handlers() {
            changed |= bring_up_to_date(&handler, command);
        }
        if changed {
            edit.updated.push(event.name);
        }
    }
    for name in registered_events() {
        let event = match property(&hooks, name) {
            Some(prop) => prop,
            None => hooks.append(name, CstInputValue::Array(Vec::new())),
        };
        let groups =
            event.array_value().ok_or_else(|| wrong(&format!("hooks.{name}"), "a list"))?;
        let event = Event { name: name.to_owned(), prop: event };
        let registered = event
            .our_handlers()
            .iter()
            .any(|(group, handler)| matches_all(group) && property(handler, "if").is_none());
        if !registered {
            groups.append(registration(name, command));
            edit.added.push(event.name);
        }
    }
    edit.finish(&document);
    Ok(edit)
}

/// Removes every registration of ours, and what it leaves empty. `before` is the text as it was
/// before the first registration, where known: what was empty in it stays, and where the result
/// means the same as `before`, it is `before`.
///
/// # Errors
///
/// The text is not a settings file that can be edited safely.
pub fn unregister(text: &str, before: Option<&str>) -> Result<Edit, EditError> {
    let document = Document::parse(text)?;
    let mut edit = Edit::of(text);
    let before = before.and_then(|before| Some((before, Document::parse(before).ok()?)));
    let hooks_before = before.as_ref().and_then(|(_, before)| before.hooks());
    let stood_before = |event: &str| hooks_before.as_ref().is_some_and(|h| h.get(event).is_some());
    let Some(root) = document.tree.object_value() else { return Ok(edit) };
    let Some(hooks_prop) = property(&root, "hooks") else { return Ok(edit) };
    let Some(hooks) = hooks_prop.object_value() else { return Ok(edit) };
    for event in events(&hooks) {
        if event.unregister(!stood_before(&event.name)) {
            edit.removed.push(event.name);
        }
    }
    if !edit.is_change() {
        return Ok(edit);
    }
    if hooks.properties().is_empty() && hooks_before.is_none() {
        hooks_prop.remove();
    }
    edit.finish(&document);
    if let Some((before, parsed)) = before
        && parsed.says_the_same_as(&document)
    {
        before.clone_into(&mut edit.text);
    }
    Ok(edit)
}

/// The commands by which the text registers our hook; each once.
///
/// # Errors
///
/// The text is not a settings file.
pub fn registrations(text: &str) -> Result<Vec<String>, EditError> {
    let document = Document::parse(text)?;
    let mut commands: Vec<String> = Vec::new();
    for event in document.hooks().iter().flat_map(events) {
        for (_, handler) in event.our_handlers() {
            let command = string(&handler, "command").unwrap_or_default();
            if !commands.contains(&command) {
                commands.push(command);
            }
        }
    }
    Ok(commands)
}

/// The events that should be registered, and for whose every occurrence the text registers no hook of ours.
///
/// # Errors
///
/// The text is not a settings file.
pub fn missing_events(text: &str) -> Result<Vec<&'static str>, EditError> {
    let document = Document::parse(text)?;
    let is_whole = |event: &Event| event.our_handlers().iter().any(|(group, _)| matches_all(group));
    let hooks = document.hooks();
    let whole = hooks.iter().flat_map(events).filter(is_whole);
    let whole: Vec<String> = whole.map(|event| event.name).collect();
    Ok(registered_events().filter(|name| !whole.iter().any(|known| known == name)).collect())
}

/// Whether the setting `name` is true.
#[must_use]
pub fn is_true(text: &str, name: &str) -> bool {
    let root = Document::parse(text).ok().and_then(|document| document.tree.object_value());
    let value = root.and_then(|root| property(&root, name)?.value());
    value.and_then(|value| value.as_boolean_lit()).is_some_and(|value| value.value())
}

/// The home of Arrakis that the text has the client give to hooks.
#[must_use]
pub fn home(text: &str) -> Option<PathBuf> {
    let root = Document::parse(text).ok()?.tree.object_value()?;
    let env = property(&root, "env")?.object_value()?;
    string(&env, "ARRAKIS_HOME").filter(|home| !home.is_empty()).map(PathBuf::from)
}

impl Edit {
    fn of(text: &str) -> Self {
        Self { text: text.to_owned(), added: vec![], updated: vec![], removed: vec![] }
    }

    /// Takes the document's text, if the edit changed it.
    fn finish(&mut self, document: &Document) {
        if !self.is_change() {
            return;
        }
        let mark = if document.byte_order_mark { "\u{feff}" } else { "" };
        let end = if document.is_blank { "\n" } else { "" };
        self.text = format!("{mark}{}{end}", document.tree);
    }
}

/// One property of `hooks`: an event and its groups.
struct Event {
    name: String,
    prop: CstObjectProp,
}

impl Event {
    /// Our handlers, each with its group.
    fn our_handlers(&self) -> Vec<(CstObject, CstObject)> {
        let groups = self.prop.array_value().map(|groups| groups.elements()).unwrap_or_default();
        let mut found = Vec::new();
        for group in groups.iter().filter_map(CstNode::as_object) {
            let handlers = property(&group, "hooks").and_then(|handlers| handlers.array_value());
            let handlers = handlers.map(|handlers| handlers.elements()).unwrap_or_default();
            let ours = handlers.iter().filter_map(CstNode::as_object).filter(is_ours);
            found.extend(ours.map(|handler| (group.clone(), handler)));
        }
        found
    }

    /// Removes our handlers, and the groups that this empties. Returns whether there were any.
    fn unregister(&self, drop_empty: bool) -> bool {
        let ours = self.our_handlers();
        for (group, handler) in &ours {
            handler.clone().remove();
            let left = property(group, "hooks").and_then(|handlers| handlers.array_value());
            if left.is_some_and(|left| left.elements().is_empty()) {
                group.clone().remove();
            }
        }
        let left = self.prop.array_value().map_or(0, |groups| groups.elements().len());
        if !ours.is_empty() && left == 0 && drop_empty {
            self.prop.clone().remove();
        }
        !ours.is_empty()
    }
}

fn events(hooks: &CstObject) -> Vec<Event> {
    let named = |prop: CstObjectProp| Some(Event { name: prop.decoded_name()?, prop });
    hooks.properties().into_iter().filter_map(named).collect()
}

fn is_ours(handler: &CstObject) -> bool {
    let command = string(handler, "command").unwrap_or_default();
    let program = match property(handler, "args").and_then(|args| args.array_value()) {
        Some(_) => command.as_str(),
        None => first_word(&command),
    };
    let file_name = Path::new(program).file_name().and_then(|name| name.to_str());
    string(handler, "type").as_deref() == Some("command") && file_name == Some(HOOK_PROGRAM)
}

/// The program that a shell would start for `command`, as far as quotes go.
fn first_word(command: &str) -> &str {
    let command = command.trim_start();
    for quote in ['"', '\''] {
        if let Some(quoted) = command.strip_prefix(quote) {
            return quoted.split(quote).next().unwrap_or_default();
        }
    }
    command.split_whitespace().next().unwrap_or_default()
}

fn matches_all(group: &CstObject) -> bool {
    match property(group, "matcher") {
        None => true,
        Some(_) => matches!(string(group, "matcher").as_deref(), Some("" | "*")),
    }
}

/// Makes a handler of ours start `command` without a shell. Returns whether it did not already.
fn bring_up_to_date(handler: &CstObject, command: &str) -> bool {
    let stale = string(handler, "command").as_deref() != Some(command);
    if stale && let Some(prop) = property(handler, "command") {
        prop.set_value(command.into());
    }
    let by_shell = property(handler, "args").is_none();
    if by_shell {
        let after_command = property(handler, "command").map_or(0, |p| p.property_index() + 1);
        handler.insert(after_command, "args", CstInputValue::Array(Vec::new()));
    }
    stale || by_shell
}

fn registration(event: &str, command: &str) -> CstInputValue {
    let entry = |name: &str, value: CstInputValue| (name.to_owned(), value);
    let handler = CstInputValue::Object(vec![
        entry("type", "command".into()),
        entry("command", command.into()),
        entry("args", CstInputValue::Array(Vec::new())),
        entry("timeout", HOOK_TIMEOUT_S.into()),
    ]);
    let mut group = vec![entry("hooks", CstInputValue::Array(vec![handler]))];
    if MATCHED_EVENTS.contains(&event) {
        group.insert(0, entry("matcher", "*".into()));
    }
    CstInputValue::Object(group)
}
