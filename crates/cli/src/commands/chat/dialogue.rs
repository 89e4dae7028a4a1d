//! The turns of a conversation, and which of them the model still gets.

use mlx_serving_runtime::{Message, Role};
use serde_json::json;
use std::fmt::Write as _;
use std::path::Path;

/// A question with its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Turn {
    pub question: String,
    pub answer: String,
}

/// A conversation. When it outgrows the model's context, the model gets the newest turns only; all are kept for [`Dialogue::document`].
#[derive(Debug, Default)]
pub(super) struct Dialogue {
    /// Message before all others.
    pub system: Option<String>,
    turns: Vec<Turn>,
    /// First turn that the model still gets.
    first: usize,
}

impl Dialogue {
    /// A conversation in which nothing was said.
    pub(super) fn new(system: Option<String>) -> Self {
        Self { system, turns: Vec::new(), first: 0 }
    }

    /// Adds what was said.
    pub(super) fn add(&mut self, turn: Turn) {
        self.turns.push(turn);
    }

    /// Takes the last turn back.
    pub(super) fn take_last(&mut self) -> Option<Turn> {
        let last = self.turns.pop();
        self.first = self.first.min(self.turns.len());
        last
    }

    /// Forgets all turns.
    pub(super) fn clear(&mut self) {
        self.turns.clear();
        self.first = 0;
    }

    /// The messages that the model gets with this question.
    pub(super) fn messages(&self, question: &str) -> Vec<Message> {
        self.messages_from(self.first, question)
    }

    /// Makes room: lets the model have fewer old turns, if with them less than `room` tokens of the context would be left for the answer
    /// to `question`. Then it goes down to half the context, so that the prompts of several questions begin alike and share what is
    /// computed. `count` has the tokens of a prompt, `None` where they are more than the context. Returns how many turns went.
    ///
    /// # Errors
    /// Those of `count`.
    pub(super) fn make_room<E>(
        &mut self,
        question: &str,
        context: usize,
        room: usize,
        mut count: impl FnMut(Vec<Message>) -> Result<Option<usize>, E>,
    ) -> Result<usize, E> {
        let mut within = |first: usize, limit: usize| {
            let tokens = count(self.messages_from(first, question))?;
            Ok(tokens.is_some_and(|tokens| tokens <= limit))
        };
        if within(self.first, context.saturating_sub(room))? {
            return Ok(0);
        }
        // Fewer turns have fewer tokens: the first that will do is found by halving.
        let (mut low, mut high) = (self.first, self.turns.len());
        while low < high {
            let middle = low.midpoint(high);
            match within(middle, context / 2)? {
                true => high = middle,
                false => low = middle + 1,
            }
        }
        let before = std::mem::replace(&mut self.first, low);
        Ok(low - before)
    }

    /// Lets the model have this many old turns again.
    pub(super) fn give_back(&mut self, turns: usize) {
        self.first = self.first.saturating_sub(turns);
    }

    /// All that was said, as the file's name asks: JSON as the server takes it, or Markdown.
    pub(super) fn document(&self, model: &str, path: &Path) -> String {
        let mut messages = self.messages_from(0, "");
        messages.pop();
        if path.extension().is_some_and(|end| end.eq_ignore_ascii_case("json")) {
            let message = |m: &Message| json!({ "role": m.role.as_str(), "content": m.content });
            let messages: Vec<_> = messages.iter().map(message).collect();
            return format!("{:#}\n", json!({ "model": model, "messages": messages }));
        }
        let mut text = format!("# A conversation with {model}\n");
        for message in messages {
            // A string takes all.
            let _ = write!(text, "\n## {}\n\n{}\n", message.role.as_str(), message.content.trim_end());
        }
        text
    }

    /// Old turns that the model does not get any more.
    pub(super) fn left_out(&self) -> usize {
        self.first
    }

    /// Turns that were kept.
    pub(super) fn turns(&self) -> usize {
        self.turns.len()
    }

    fn messages_from(&self, first: usize, question: &str) -> Vec<Message> {
        let system = self.system.iter().map(|text| Message::new(Role::System, text));
        let turns = self.turns[first..]
            .iter()
            .flat_map(|turn| [Message::new(Role::User, &turn.question), Message::new(Role::Assistant, &turn.answer)]);
        system.chain(turns).chain([Message::new(Role::User, question)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One token a letter, none beyond the context of 100.
    fn count(messages: Vec<Message>) -> Result<Option<usize>, ()> {
        let tokens = messages.iter().map(|m| m.content.len()).sum();
        Ok(Some(tokens).filter(|&tokens| tokens <= 100))
    }

    fn dialogue(turns: usize) -> Dialogue {
        let mut dialogue = Dialogue::new(Some("s".repeat(10)));
        (0..turns).for_each(|_| dialogue.add(Turn { question: "q".repeat(5), answer: "a".repeat(5) }));
        dialogue
    }

    #[test]
    fn old_turns_go_when_the_answer_has_no_room_and_the_system_prompt_stays() {
        let mut talk = dialogue(6);
        assert_eq!(talk.make_room("12345", 100, 25, count), Ok(0), "75 tokens and 25 of room");
        talk.add(Turn { question: "q".repeat(5), answer: "a".repeat(5) });
        assert_eq!(talk.make_room("12345", 100, 25, count), Ok(4), "down to half");
        let messages = talk.messages("12345");
        assert_eq!((messages.len(), talk.left_out()), (1 + 2 * 3 + 1, 4));
        assert_eq!((messages[0].role, messages[7].content.as_str()), (Role::System, "12345"));
        assert_eq!(talk.make_room("12345", 100, 25, count), Ok(0));
        assert!(talk.document("m", Path::new("x.md")).matches("## user").count() == 7, "nothing is lost for the file");
    }

    #[test]
    fn a_question_that_leaves_room_to_no_other_turn_goes_alone() {
        let mut talk = dialogue(3);
        assert_eq!(talk.make_room(&"x".repeat(80), 100, 25, count), Ok(3));
        talk.give_back(3);
        assert_eq!(talk.messages("x").len(), 8);
    }

    #[test]
    fn taking_the_last_turn_back_never_leaves_the_window_behind_the_end() {
        let mut talk = dialogue(2);
        assert_eq!(talk.make_room(&"x".repeat(80), 100, 25, count), Ok(2));
        assert!(talk.take_last().is_some());
        assert_eq!(talk.messages("x").len(), 2);
    }

    #[test]
    fn a_document_is_json_or_markdown() {
        let talk = dialogue(1);
        let json: serde_json::Value = serde_json::from_str(&talk.document("m", Path::new("a.JSON"))).unwrap();
        assert_eq!(json["messages"][2], json!({ "role": "assistant", "content": "aaaaa" }));
        let text = talk.document("m", Path::new("a"));
        assert_eq!(
            text,
            "# A conversation with m\n\n## system\n\nssssssssss\n\n## user\n\nqqqqq\n\n## assistant\n\naaaaa\n"
        );
    }
}
