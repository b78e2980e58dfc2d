//! What people do to a spool: inspect it, try events again, verify, repair, export and import.

pub mod action;
pub mod entry;
mod ids;
pub mod inspect;
pub mod repair;
pub mod transfer;
pub mod verify;
