//! How a conversation reads: its threads in order, whose words a text is, and what a tool use was. A terminal, a document
//! and a page show the same, each in its own way; what stands in a text they make safe themselves.

pub mod spoken;
pub mod thread;
pub mod tool;
pub mod words;
