//! How long things are kept. What cannot be read of it keeps everything that it may be about: what was deleted
//! does not come back.

use std::collections::BTreeMap;
use std::time::Duration;

use arrakis_core::base::limits::RETENTION_WORKSPACES_MAX;
use arrakis_core::record::retention::{Ages, RetentionPolicy};

use super::file::{Section, Unknown};
use super::problem::{ConfigProblem, Place};
use super::value::{Age, Otherwise, Reader};

pub(super) const NAMES: &[&str] = &["events", "conversations", "workspaces"];
const AGE_NAMES: &[&str] = &["events", "conversations"];

/// How long audit rows are kept where nothing is said: a year. Conversations, which have what they say, are kept.
const EVENTS: Duration = Duration::from_secs(365 * 24 * 3600);

/// Reads `[retention]`. Where that is no table, or `slip` is nearly its name, everything is kept.
pub(super) fn read(
    reader: &mut Reader<'_>,
    root: &Section<'_>,
    slip: Option<Unknown>,
) -> RetentionPolicy {
    let mut broken = Vec::new();
    broken.extend(slip.map(|Unknown { place, wrong, .. }| (place, wrong)));
    let section = root.section("retention", "retention.", NAMES).unwrap_or_else(|place| {
        broken.push((place, "retention must be a table".to_owned()));
        root.empty("retention.", NAMES)
    });
    let mut unknown = section.unknown();
    let default = Ages { events: Some(EVENTS), conversations: None };
    let default = ages(reader, &section, &mut unknown, default);
    let slip = unknown.iter().position(|unknown| unknown.near == Some("workspaces"));
    let slip = slip.map(|index| unknown.remove(index));
    broken.extend(slip.map(|Unknown { place, wrong, .. }| (place, wrong)));
    reader.tell(unknown);
    let workspaces = workspaces(reader, &section, default, &mut broken);
    let keeps_all = !broken.is_empty();
    let told = |(place, wrong)| ConfigProblem::new(place, wrong, "nothing is pruned");
    reader.problems.extend(broken.into_iter().map(told));
    if keeps_all { RetentionPolicy::default() } else { RetentionPolicy { default, workspaces } }
}

fn ages(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    unknown: &mut Vec<Unknown>,
    default: Ages,
) -> Ages {
    let mut age = |name, default| {
        let default = (default, Otherwise::Strict(None));
        reader.setting(section, unknown, name, &[], &Age, default)
    };
    let events = age("events", default.events);
    let conversations = age("conversations", default.conversations);
    Ages { events, conversations }
}

/// The workspaces with settings of their own; what they do not say is said for all.
fn workspaces(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    default: Ages,
    broken: &mut Vec<(Place, String)>,
) -> BTreeMap<String, Ages> {
    let Some(value) = section.get("workspaces") else { return BTreeMap::new() };
    let Some(entries) = value.get_ref().as_table() else {
        let wrong = "retention.workspaces must be a table of tables: write \
            [retention.workspaces.NAME]";
        broken.push((section.place(value), wrong.to_owned()));
        return BTreeMap::new();
    };
    if entries.len() > RETENTION_WORKSPACES_MAX {
        let wrong =
            format!("retention.workspaces has more than {RETENTION_WORKSPACES_MAX} workspaces");
        broken.push((section.place(value), wrong));
        return BTreeMap::new();
    }
    let mut workspaces = BTreeMap::new();
    for (name, value) in entries {
        let kept = match value.get_ref().as_table() {
            Some(table) => {
                let section = section.inner(table, "retention.workspaces.", AGE_NAMES);
                let mut unknown = section.unknown();
                let kept = ages(reader, &section, &mut unknown, default);
                reader.tell(unknown);
                kept
            }
            None => {
                let wrong = "a workspace of retention.workspaces must be a table".to_owned();
                let instead = "nothing of it is pruned";
                let place = section.place(value);
                reader.problems.push(ConfigProblem::new(place, wrong, instead));
                Ages::default()
            }
        };
        workspaces.insert(name.get_ref().to_string(), kept);
    }
    workspaces
}
