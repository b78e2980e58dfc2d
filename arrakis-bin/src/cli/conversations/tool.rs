//! What a tool use was, as core reads it, made safe for a terminal.

use arrakis_core::record::reading::tool;
use arrakis_core::session::conversation::ToolUse;

pub(in crate::cli) use arrakis_core::record::reading::tool::{
    Body, Input, Line, Mark, Row, amount, body, coloured_output, input, kept_elsewhere, outcome,
};

use crate::cli::output::ansi::without_colours;
use crate::cli::output::text;

/// The name of the tool; that of a server of MCP stands before its tool's.
pub(in crate::cli) fn name(tool_use: &ToolUse) -> String {
    text::one_line(&tool::name(tool_use))
}

/// What the tool use is about, in a line; empty where nothing tells.
pub(in crate::cli) fn argument(tool_use: &ToolUse) -> String {
    text::one_line(&tool::argument(tool_use))
}

/// What a tool gave back, without colours.
pub(in crate::cli) fn output(tool_use: &ToolUse) -> String {
    without_colours(&coloured_output(tool_use))
}
