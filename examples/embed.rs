//! Embeds the store side: admits two events and reads the conversation that they are.
//!
//! `cargo run -p arrakis-examples --bin embed`

#![allow(clippy::print_stdout, reason = "it shows what it read")]

use std::error::Error;
use std::sync::Arc;

use arrakis_core::base::clock::{Clock, SystemClock};
use arrakis_core::base::digest::Digest;
use arrakis_core::base::envelope::{Form, Removed};
use arrakis_core::base::id::{RequestId, uuid_v7};
use arrakis_core::record::ingest::{Incoming, Reception, admit};
use arrakis_core::record::store::{DEFAULT_WORKSPACE, EventReader, EventStore, MemoryStore};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let store = MemoryStore::new(Arc::new(SystemClock));
    let payloads = [
        r#"{"session_id":"demo","hook_event_name":"UserPromptSubmit","prompt":"What is spice?"}"#,
        r#"{"session_id":"demo","hook_event_name":"Stop","last_assistant_message":"It must flow."}"#,
    ];
    for payload in payloads {
        let now = SystemClock.now();
        let incoming = Incoming {
            form: Form::Raw,
            request_id: RequestId::mint(now, rand::random()),
            digest: Digest::of(payload.as_bytes()),
            body: payload.into(),
            header: None,
            redacted: Removed::default(),
        };
        let reception = Reception {
            event_id: uuid_v7(now, rand::random()),
            received_at: now,
            workspace: DEFAULT_WORKSPACE.to_owned(),
            headers: Default::default(),
            ip_address: None,
        };
        let admissions = store.record(vec![admit(incoming, reception)]).await?;
        println!("{} {:?}", admissions[0].status, admissions[0].kind);
    }
    let conversation = store.conversation(DEFAULT_WORKSPACE, "demo").await?;
    for message in conversation.into_iter().flat_map(|conversation| conversation.messages) {
        println!("{:>9}: {}", message.role.as_str(), message.content.value);
    }
    Ok(())
}
