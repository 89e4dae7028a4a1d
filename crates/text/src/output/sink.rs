//! Where the parts of an answer go.

use super::json::Json;
use super::segment::Segment;
use super::step::Step;
use super::stop::StopMatcher;
use super::surrogates::Surrogates;

/// Collects segments. Stop strings are looked for in content, between calls and reasoning: no match spans either.
#[derive(Debug, Clone)]
pub(super) struct Sink {
    stops: StopMatcher,
    /// Content that the stop strings have not seen yet.
    content: String,
    segments: Vec<Segment>,
    stopped: bool,
    /// Index of the stop string that was found.
    stop: Option<usize>,
    /// Calls so far, and parts of them.
    calls: usize,
    parts: usize,
    /// Arguments of the last call, and whether they are whole.
    arguments: Json,
    surrogates: Surrogates,
    whole: bool,
}

impl Sink {
    pub(super) fn new(stops: StopMatcher) -> Self {
        Self {
            stops,
            content: String::new(),
            segments: Vec::new(),
            stopped: false,
            stop: None,
            calls: 0,
            parts: 0,
            arguments: Json::default(),
            surrogates: Surrogates::default(),
            whole: false,
        }
    }

    pub(super) fn content(&mut self, c: char) {
        self.content.push(c);
    }

    pub(super) fn contents(&mut self, text: &str) {
        self.content.push_str(text);
    }

    /// Content that is matched and not shown: a special token's.
    pub(super) fn hidden(&mut self, text: &str) {
        self.flush();
        if !self.stopped {
            let step = self.stops.push_hidden(text);
            self.add(Segment::Content(step.emit));
            self.found(step.stopped);
        }
    }

    pub(super) fn reasoning(&mut self, c: char) {
        self.other(Segment::Reasoning(c.into()));
    }

    pub(super) fn call(&mut self, name: String) {
        (self.calls, self.parts) = (self.calls + 1, self.parts + 1);
        (self.arguments, self.whole) = (Json::default(), false);
        self.other(Segment::Call { name });
    }

    pub(super) fn arguments(&mut self, json: &str) {
        if !json.is_empty() {
            self.parts += 1;
            self.whole = self.whole || json.chars().any(|c| self.arguments.push(c) == Ok(Step::Done));
            let mut text = String::with_capacity(json.len());
            json.chars().for_each(|c| self.surrogates.push(c, &mut text));
            self.end_content();
            self.add(Segment::Arguments(text));
        }
    }

    /// Markup that cannot be read.
    pub(super) fn malformed(&mut self, text: &str) {
        if !text.is_empty() {
            self.other(Segment::Malformed(text.to_owned()));
        }
    }

    /// The last call breaks off behind this markup of it, unless it is whole.
    pub(super) fn break_off(&mut self, markup: String) {
        if !(self.whole || markup.is_empty()) {
            self.other(Segment::Unfinished(markup));
        }
    }

    /// Calls that have gone out, whole or in part.
    pub(super) fn calls(&self) -> usize {
        self.calls
    }

    /// Parts of calls that have gone out.
    pub(super) fn parts(&self) -> usize {
        self.parts
    }

    /// True once a stop string was found.
    pub(super) fn stopped(&self) -> bool {
        self.stopped
    }

    /// The index of the stop string that was found.
    pub(super) fn stop(&self) -> Option<usize> {
        self.stop
    }

    /// Segments since the last time.
    pub(super) fn take(&mut self) -> Vec<Segment> {
        self.flush();
        std::mem::take(&mut self.segments)
    }

    /// The last segments: nothing comes any more.
    pub(super) fn finish(&mut self) -> Vec<Segment> {
        self.end_content();
        self.stopped = true;
        self.take()
    }

    /// What is not content ends the content before it.
    fn other(&mut self, segment: Segment) {
        self.end_content();
        let held = self.surrogates.finish();
        self.add(Segment::Arguments(held));
        self.add(segment);
    }

    fn end_content(&mut self) {
        self.flush();
        if !self.stopped {
            let rest = self.stops.finish();
            self.add(Segment::Content(rest));
        }
    }

    fn flush(&mut self) {
        let content = std::mem::take(&mut self.content);
        if !self.stopped && !content.is_empty() {
            let step = self.stops.push(&content);
            self.add(Segment::Content(step.emit));
            self.found(step.stopped);
        }
    }

    fn found(&mut self, stop: Option<usize>) {
        (self.stopped, self.stop) = (stop.is_some(), stop);
    }

    fn add(&mut self, segment: Segment) {
        if self.stopped {
            return;
        }
        match (self.segments.last_mut(), segment) {
            (Some(Segment::Content(to)), Segment::Content(text))
            | (Some(Segment::Reasoning(to)), Segment::Reasoning(text))
            | (Some(Segment::Arguments(to)), Segment::Arguments(text))
            | (Some(Segment::Malformed(to)), Segment::Malformed(text)) => *to += &text,
            (_, Segment::Content(text) | Segment::Arguments(text)) if text.is_empty() => {}
            (_, segment) => self.segments.push(segment),
        }
    }
}
