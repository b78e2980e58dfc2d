//! The events of Claude Code: what a hook is given on stdin, one JSON object each.
//!
//! The fields differ by event and grow with every release. So capture reads only the few that every
//! event carries ([`Preview`](crate::base::envelope::Preview)), and keeps the rest as it came; [`HookEvent`] is
//! what is known of each event, with room for the rest; and [`summary()`] says in one line what an event tells.

mod field;
#[macro_use]
mod object;
mod summary;
mod typed;

pub(crate) use field::{Field, object};
pub use summary::{key_argument, one_line, shows_by_itself, summary};
pub use typed::*;
