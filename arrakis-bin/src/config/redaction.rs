//! What is taken out of payloads. Whatever cannot be read of it, or used, holds delivery.

use arrakis_core::base::limits::{
    REDACT_LITERAL_MAX_BYTES, REDACT_LITERALS_MAX, REDACT_PATTERN_MAX_BYTES, REDACT_RULES_MAX,
    RULE_NAME_MAX_BYTES,
};
use arrakis_core::session::redact::{RedactConfig, Redactor, UserRule};
use toml::Spanned;
use toml::de::DeValue;

use super::file::{Section, Unknown};
use super::problem::{ConfigProblem, Place};
use super::value::{Flag, Otherwise, Reader};

const NAMES: &[&str] = &["enabled", "rules"];
const RULE_NAMES: &[&str] = &["name", "pattern", "literals"];

/// Reads `[redact]`, and compiles what redacts by it, without the rules that cannot be used. `slip` is a table at the root whose name is nearly that.
pub(super) fn read(
    reader: &mut Reader<'_>,
    root: &Section<'_>,
    slip: Option<Unknown>,
) -> (RedactConfig, Redactor) {
    let mut holding = Vec::new();
    holding.extend(slip.map(|Unknown { place, wrong, .. }| (place, wrong)));
    let section = root.section("redact", "redact.", NAMES).unwrap_or_else(|place| {
        holding.push((place, "redact must be a table".to_owned()));
        root.empty("redact.", NAMES)
    });
    let mut unknown = section.unknown();
    let default = (true, Otherwise::Hold(true));
    let enabled = reader.setting(&section, &mut unknown, "enabled", &[], &Flag, default);
    holding.extend(unknown.into_iter().map(|Unknown { place, wrong, .. }| (place, wrong)));
    let (rules, places) = rules(&section, &mut holding);
    let config = RedactConfig { enabled, rules };
    let (redactor, unusable) = Redactor::new(config.clone());
    if !unusable.is_empty() {
        find_unusable(&config.rules, &places, &mut holding);
    }
    reader.problems.extend(holding.into_iter().map(|(place, wrong)| {
        if enabled {
            ConfigProblem::holding(place, wrong)
        } else {
            ConfigProblem::new(place, wrong, "nothing is redacted all the same")
        }
    }));
    (config, redactor)
}

/// The rules that can be read, and where each of them stands.
fn rules(section: &Section<'_>, holding: &mut Vec<(Place, String)>) -> (Vec<UserRule>, Vec<Place>) {
    let Some(value) = section.get("rules") else { return Default::default() };
    let Some(entries) = value.get_ref().as_array() else {
        let wrong = "redact.rules must be a list of tables: write [[redact.rules]]".to_owned();
        holding.push((section.place(value), wrong));
        return Default::default();
    };
    let (mut rules, mut places) = (Vec::new(), Vec::new());
    for (n, entry) in entries.iter().enumerate() {
        let place = section.place(entry);
        if n == REDACT_RULES_MAX {
            holding.push((place, format!("redact.rules has more than {REDACT_RULES_MAX} rules")));
            break;
        }
        match rule(section, entry, holding) {
            Ok(rule) => {
                rules.push(rule);
                places.push(place);
            }
            Err(wrong) => holding.push(wrong),
        }
    }
    (rules, places)
}

fn rule(
    section: &Section<'_>,
    entry: &Spanned<DeValue<'_>>,
    holding: &mut Vec<(Place, String)>,
) -> Result<UserRule, (Place, String)> {
    let place = || section.place(entry);
    let Some(table) = entry.get_ref().as_table() else {
        return Err((place(), "a rule of redact.rules must be a table".to_owned()));
    };
    let rule = section.inner(table, "redact.rules.", RULE_NAMES);
    let unknown = rule.unknown().into_iter();
    holding.extend(unknown.map(|Unknown { place, wrong, .. }| (place, wrong)));
    let text = |name: &'static str, max: usize| {
        let must_be = format!("{} must be a text of 1 to {max} bytes", rule.name_of(name));
        let Some(value) = rule.get(name) else { return Err((place(), must_be)) };
        let text = value.get_ref().as_str().filter(|text| (1..=max).contains(&text.len()));
        text.map(str::to_owned).ok_or_else(|| (rule.place(value), must_be))
    };
    Ok(UserRule {
        name: text("name", RULE_NAME_MAX_BYTES)?,
        pattern: text("pattern", REDACT_PATTERN_MAX_BYTES)?,
        literals: literals(&rule)?,
    })
}

/// The literals of a rule, all of them: without one, the rule would not run everywhere that it should.
fn literals(rule: &Section<'_>) -> Result<Vec<String>, (Place, String)> {
    let Some(value) = rule.get("literals") else { return Ok(Vec::new()) };
    let must_be = || {
        let wrong = format!(
            "redact.rules.literals must be a list of at most {REDACT_LITERALS_MAX} texts of 1 to \
             {REDACT_LITERAL_MAX_BYTES} bytes"
        );
        (rule.place(value), wrong)
    };
    let fits = |text: &&str| (1..=REDACT_LITERAL_MAX_BYTES).contains(&text.len());
    let literal =
        |entry: &Spanned<DeValue<'_>>| entry.get_ref().as_str().filter(fits).map(str::to_owned);
    let entries = value.get_ref().as_array();
    let entries = entries.filter(|entries| entries.len() <= REDACT_LITERALS_MAX);
    let literals = entries.and_then(|entries| entries.iter().map(literal).collect());
    literals.ok_or_else(must_be)
}

/// Names the rules that cannot be used, each with its place. Names need not be unique, so each rule is
/// compiled by itself.
fn find_unusable(rules: &[UserRule], places: &[Place], holding: &mut Vec<(Place, String)>) {
    for (rule, place) in rules.iter().zip(places) {
        let (_, problems) =
            Redactor::new(RedactConfig { enabled: true, rules: vec![rule.clone()] });
        holding.extend(problems.into_iter().map(|problem| (place.clone(), problem.to_string())));
    }
}
