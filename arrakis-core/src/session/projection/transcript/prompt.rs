//! Lines with prompts: what the person says, and what the client says in their name.

use super::content::{self, Part, spoken};
use super::line::{ApiMessage, Line, QueuedCommand};
use super::{Place, Reader, block_count};
use crate::base::id;
use crate::session::conversation::{Blocks, Message, MessageOrigin, Notice, Role, Stamp};
use crate::session::projection::{prompt_title, speaker};

/// What a line tells of a prompt beside its words.
#[derive(Default)]
struct Beside {
    notice: Option<Notice>,
    block_count: Option<u32>,
}

impl Reader<'_> {
    /// What stands in the person's name, and the results of tools.
    pub(super) fn user(&mut self, line: &Line<'_>, place: &Place) {
        let Some(message) = line.message.object::<ApiMessage<'_>>() else { return };
        let notice = line.notice().max(content::notice(message.content));
        let parts = spoken(message.content);
        let results = parts.iter().filter(|part| matches!(part, Part::ToolResult(_))).count();
        for part in &parts {
            if let Part::ToolResult(result) = part {
                // What the tool itself gave back stands beside the line's result.
                let structure = line.tool_use_result.json().filter(|_| results == 1);
                self.tool_result(line, result, structure, place);
            }
        }
        let is_main_thread = place.agent_id.is_none();
        let is_of_person = line.is_of_person(content::speakers(&parts), is_main_thread);
        if !is_of_person {
            if self.image_source(&parts, place) {
                return;
            }
            let blocks = self.blocks(0, parts, place);
            return self.message(Role::System, MessageOrigin::Transcript, notice, blocks, place);
        }
        let block_count = block_count(0, &parts);
        let blocks = self.blocks(0, of_person(parts), place);
        let origin = match line.prompt_source.text().as_deref() {
            Some("queued") => MessageOrigin::Queued,
            _ => MessageOrigin::Transcript,
        };
        let beside = Beside { notice: notice.filter(|one| *one == Notice::Command), block_count };
        self.prompt(origin, line, blocks, beside, place);
    }

    /// A prompt that was handed over within a turn. It stands where it was sent.
    pub(super) fn queued_command(&mut self, line: &Line<'_>, mut place: Place) {
        let Some(command) = line.attachment.object::<QueuedCommand<'_>>() else { return };
        place.stamp.at = command.sent_at().unwrap_or(place.stamp.at);
        let notice = content::notice(command.prompt);
        let parts = spoken(command.prompt);
        if command.is_of_person(content::speakers(&parts)) {
            let blocks = self.blocks(0, of_person(parts), &place);
            self.prompt(MessageOrigin::Queued, line, blocks, Beside::default(), &place);
        } else {
            let blocks = self.blocks(0, parts, &place);
            self.message(Role::System, MessageOrigin::Queued, notice, blocks, &place);
        }
        self.touch(line, &place);
    }

    /// A prompt that was put into the queue, or taken out of it.
    pub(super) fn waiting(&mut self, line: &Line<'_>, origin: MessageOrigin, place: &Place) {
        let parts = spoken(line.content);
        // A command that waits becomes a turn of its own, maybe in another session, and leaves its line there.
        let is_other = |part: &Part<'_>| match part {
            Part::Client(_) => true,
            Part::Text(text) => speaker::is_command(text),
            _ => false,
        };
        if !parts.iter().any(is_other) {
            let blocks = self.blocks(0, parts, place);
            self.message(Role::User, origin, None, blocks, place);
        }
    }

    /// A prompt that a hook has kept from the model: what `UserPromptSubmit` told was never said.
    pub(super) fn blocked(&mut self, prompt: String, place: &Place) {
        // The line itself is a message of the client.
        let request_id = id::slice_id(&["blocked", place.stamp.request_id.as_str()]);
        let stamp = Stamp { request_id, ..place.stamp.clone() };
        let place = Place { stamp, prompt_id: None, ..place.clone() };
        let blocks = self.blocks(0, vec![Part::Text(prompt.into())], &place);
        self.message(Role::User, MessageOrigin::Withdrawn, None, blocks, &place);
    }

    /// What the person says in the main thread, or the main thread to a subagent.
    fn prompt(
        &mut self,
        origin: MessageOrigin,
        line: &Line<'_>,
        blocks: Blocks,
        beside: Beside,
        place: &Place,
    ) {
        if blocks.is_empty() {
            return;
        }
        // A prompt that is handed over within a turn has the number of the running one.
        let is_user = line.named().line_type.text().as_deref() == Some("user");
        let prompt_index = line.prompt_index().filter(|_| is_user);
        if place.agent_id.is_none() {
            let mut conversation = self.conversation(place);
            conversation.alive = Some(place.stamp.clone());
            // The title of a fork is what was first said in it.
            if !place.standing.copied {
                let titled = |text| prompt_title(text, prompt_index, &place.stamp);
                conversation.title = blocks.texts().find_map(titled);
            }
            self.add_conversation(conversation);
        }
        let message = self.message_of(Role::User, origin, blocks, place);
        let sent_at = line.sent_at();
        let Beside { notice, block_count } = beside;
        self.add_message(Message { sent_at, prompt_index, notice, block_count, ..message });
    }
}

/// The parts of a message of the person. What the client wrote among them is named only.
fn of_person(parts: Vec<Part<'_>>) -> Vec<Part<'_>> {
    let named = |part| match part {
        Part::Client(text) => {
            Part::Other(text.lines().next().unwrap_or_default().to_owned().into())
        }
        other => other,
    };
    parts.into_iter().map(named).collect()
}
