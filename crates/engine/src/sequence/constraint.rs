//! A sequence's constraints: the grammar of its answer, and the budget of its reasoning.

use super::Terms;
use super::opening::Opening;
use crate::error::EngineError;
use crate::masks::board::{Made, Order};
use crate::masks::makers::{Job, Makers};
use crate::masks::rules::{Matching, Rules};
use crate::request::Request;
use mlx_serving_text::AnswerText;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

/// Constraints on which tokens come next: the rules of a grammar, from the first token after reasoning on, and a budget of
/// reasoning, at whose end the tokens that end it must come.
pub(super) struct Constraint {
    rules: Option<Arc<dyn Rules>>,
    makers: Rc<Makers>,
    /// Tokens of the prompt.
    prompt: usize,
    /// End tokens, where the answer shall not end as long as it can go on.
    avoid: Option<Arc<[u32]>>,
    /// End tokens, where an answer must not end in reasoning, because its rules are still to come.
    ends: Option<Arc<[u32]>>,
    /// Place at which reasoning may begin.
    opening: Opening,
    /// Reasoning may begin with the next token; as far as that depends on content, which counts from `fresh_from`.
    fresh: bool,
    fresh_from: usize,
    /// Tokens of reasoning that are left before its end is written; `None` for any number.
    budget: Option<usize>,
    /// The end of the reasoning that there is now is being written.
    ending: bool,
    end_of_reasoning: Vec<u32>,
    /// Place of the first token that the rules take; `None` while the answer reasons.
    begins: Option<usize>,
    /// State of the answer under its rules: away while a job has it, and begun anew where it does not come back.
    matcher: Option<Box<dyn Matching>>,
    /// Place of the first token that `matcher` has not taken.
    taken: usize,
    /// Orders of the masked tokens in flight with their places, oldest first. That of the token after the known ones is handed out.
    orders: VecDeque<(usize, Order)>,
    /// Tokens that must come after the known ones.
    forced: VecDeque<u32>,
    /// Forced tokens are appended without being sampled: nobody asks for their log-probabilities.
    appends: bool,
}

impl Constraint {
    /// The constraints of a request, if it has any. `text` is its answer before the first token.
    pub(super) fn new(
        rules: Option<Arc<dyn Rules>>,
        request: &Request,
        prompt: usize,
        text: &AnswerText,
        terms: &Terms,
    ) -> Option<Self> {
        let end_of_reasoning = request.format.end_of_reasoning(&terms.tokenizer);
        let budget = request.reasoning_budget.filter(|_| !end_of_reasoning.is_empty());
        if rules.is_none() && budget.is_none() {
            return None;
        }
        let mut constraint = Self {
            ends: rules.is_some().then(|| terms.eos.clone()),
            rules,
            makers: terms.makers.clone(),
            prompt,
            avoid: request.ignore_eos.then(|| terms.eos.clone()),
            opening: Opening::new(&request.format, &terms.tokenizer),
            fresh: true,
            fresh_from: prompt,
            budget,
            ending: false,
            end_of_reasoning,
            begins: (!text.reasons()).then_some(prompt),
            matcher: None,
            taken: 0,
            orders: VecDeque::new(),
            forced: VecDeque::new(),
            appends: request.logprobs.is_none(),
        };
        constraint.spend(0, &[]);
        Some(constraint)
    }

    /// The next token that is sampled needs a mask.
    pub(super) fn masks(&self) -> bool {
        self.rules.is_some() || self.begins.is_none()
    }

    /// It joins no step until the tokens in flight are known: then others follow that need not be sampled, or reasoning may have to end. How
    /// far steps run ahead therefore changes no answer.
    pub(super) fn holds(&self, pending: usize) -> bool {
        if pending == 0 {
            return false;
        }
        let spent = match (self.budget, self.begins) {
            (Some(left), None) => !self.ending && pending >= left,
            // The next token may begin reasoning.
            (Some(left), Some(_)) => self.fresh && pending > left,
            (None, _) => false,
        };
        spent || self.appends && self.forced.len() >= pending + 2
    }

    /// Takes the order for the token at `place`; `tokens` are those known.
    pub(super) fn accept(&mut self, order: Order, place: usize, tokens: &[u32]) {
        self.orders.push_back((place, order));
        if self.orders.len() == 1 {
            self.hand_out(tokens);
        }
    }

    /// Outcome of the oldest order, whose step has ended.
    ///
    /// # Errors
    /// There was no mask.
    pub(super) fn ordered(&mut self) -> Result<Made, EngineError> {
        let order = self.orders.pop_front();
        Ok(order.map(|(_, order)| order.take()).transpose()?.unwrap_or_default())
    }

    /// Takes what came with the mask of the token at `place`; true if that allowed only the end.
    pub(super) fn receive(&mut self, made: Made, place: usize, token: u32) -> bool {
        let Made { matcher, forced, only_ends } = made;
        if matcher.is_some() {
            (self.matcher, self.taken) = (matcher, place);
            self.forced = forced.into();
        }
        // Another token than the first came if it begins reasoning; then nothing is forced.
        if self.forced.pop_front() != Some(token) {
            self.forced.clear();
        }
        only_ends
    }

    /// Notes the newest of the tokens, after which the answer reasons or not.
    pub(super) fn note(&mut self, tokens: &[u32], reasons: bool) {
        match self.begins {
            Some(_) if reasons && self.opens(tokens) => {
                self.begins = None;
                self.spend(0, tokens);
            }
            None if reasons => self.spend(1, tokens),
            None => {
                // What is left of the end that is being written comes before the answer.
                let begins = tokens.len() + self.forced.len();
                (self.begins, self.fresh_from, self.ending) = (Some(begins), tokens.len(), false);
                self.fresh = self.rules.is_none();
            }
            Some(_) if !self.fresh => {}
            Some(_) if self.rules.is_some() => {
                self.fresh = !self.opening.next(&tokens[self.prompt..]).is_empty();
                if self.fresh {
                    // What the rules force is not all that may come.
                    self.forced.clear();
                }
            }
            Some(_) => self.fresh = self.opening.may_follow(&tokens[self.fresh_from..]),
        }
    }

    /// The newest token begins reasoning. A text under rules does so at its beginning only: elsewhere they say what it is.
    fn opens(&self, tokens: &[u32]) -> bool {
        match self.rules {
            Some(_) => self.fresh && self.opening.is_opened_by(&tokens[self.prompt..]),
            None => self.opening.is_completed(&tokens[self.prompt..]),
        }
    }

    /// Hands out the job for the token after `tokens`, if that is in flight and masked.
    pub(super) fn hand_out(&mut self, tokens: &[u32]) {
        let Some((_, order)) = self.orders.front().filter(|(place, _)| *place == tokens.len()) else { return };
        let begun = self.begins.filter(|begins| *begins <= tokens.len());
        let (Some(begins), Some(rules)) = (begun, &self.rules) else {
            let forced = self.forced.front().filter(|_| begun.is_none());
            let ends = self.ends.as_deref().filter(|_| begun.is_none());
            return order.fill(&mask_of(forced.copied(), ends.unwrap_or_default(), order.words()));
        };
        let fresh = self.fresh && begins == self.prompt;
        let admit = if fresh { self.opening.next(&tokens[self.prompt..]) } else { Vec::new() };
        let matcher = self.matcher.take();
        let from = if matcher.is_some() { self.taken.max(begins) } else { begins };
        self.makers.hand_out(Job {
            duty: order.duty(),
            matcher,
            rules: rules.clone(),
            take: tokens[from..].to_vec(),
            avoid: self.avoid.clone(),
            admit,
        });
    }

    /// The next token that must come and need not be sampled; to be asked when none is in flight.
    pub(super) fn forced(&mut self) -> Option<u32> {
        if self.appends { self.forced.pop_front() } else { None }
    }

    /// Gives up the tokens in flight.
    pub(super) fn reset(&mut self) {
        self.orders.clear();
    }

    /// Spends so much of the budget while the answer, whose newest token is the last of `tokens`, reasons. At its end the tokens that end
    /// reasoning must come, once, but for those with which the model has begun.
    fn spend(&mut self, spent: usize, tokens: &[u32]) {
        let Some(left) = self.budget.filter(|_| self.begins.is_none() && !self.ending) else { return };
        let left = left.saturating_sub(spent);
        (self.budget, self.ending) = (Some(left), left == 0);
        if self.ending {
            let end = &self.end_of_reasoning;
            let begun = (0..end.len()).rev().find(|&begun| tokens.ends_with(&end[..begun])).unwrap_or(0);
            self.forced = end[begun..].iter().copied().collect();
        }
    }
}

/// A mask of one token, or of all but `ends`.
fn mask_of(token: Option<u32>, ends: &[u32], words: usize) -> Vec<u32> {
    let bit = |token: u32| (token as usize / 32, 1 << (token % 32));
    let Some(token) = token else {
        let mut mask = vec![u32::MAX; words];
        for (word, bit) in ends.iter().map(|end| bit(*end)) {
            mask.get_mut(word).into_iter().for_each(|word| *word &= !bit);
        }
        return mask;
    };
    let (mut mask, (word, bit)) = (vec![0; words], bit(token));
    mask.get_mut(word).into_iter().for_each(|word| *word = bit);
    mask
}

#[cfg(test)]
mod tests;
