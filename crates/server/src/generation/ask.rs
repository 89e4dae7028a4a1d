//! Answers that a client asks for, in no dialect.

use crate::admission::Work;
use crate::error::ApiError;
use mlx_serving_engine::{EngineError, Request, Sampling};
use mlx_serving_runtime::{Generate, Input, Prepared, PromptError, Structure};
use mlx_serving_text::TemplateError;

/// Answers that a client asks for. Its values are ones that requests may have; what depends on the prompts is checked on the way to the
/// engine, and by the engine itself.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    /// Prompts, answered in order.
    pub inputs: Vec<Input>,
    /// Answers to each of them.
    pub choices: usize,
    /// Parameters by which tokens are chosen. Where there is a seed, each further choice has the next one.
    pub sampling: Sampling,
    /// Tokens of an answer at most.
    pub max_tokens: Option<usize>,
    /// The same where the client sets no limit, fewer if the context has less room; without it, all that there is room for.
    pub usual_tokens: Option<usize>,
    /// Answers end at any of these strings.
    pub stop: Vec<String>,
    /// Answers go on at the model's end tokens.
    pub ignore_eos: bool,
    /// Tell the log-probability of each token and of so many alternatives.
    pub logprobs: Option<usize>,
    /// Tell the same of the prompts' tokens.
    pub prompt_logprobs: Option<usize>,
    /// Form that the answers must have.
    pub structure: Option<Structure>,
    /// Tokens of reasoning at most.
    pub reasoning_budget: Option<usize>,
    /// Answers begin a text of their own.
    pub begins_text: bool,
    /// Answers are sent as they come.
    pub stream: bool,
    /// The client's names of parameters.
    pub names: Names,
}

impl Ask {
    /// Refuses more answers than can ever be under way, before anything is made of the prompts.
    ///
    /// # Errors
    /// 400 for the number of choices or the prompts.
    pub(crate) fn check_count(&self, max_live: usize) -> Result<(), ApiError> {
        let (prompts, count) = (self.inputs.len(), self.inputs.len() * self.choices);
        if count <= max_live {
            return Ok(());
        }
        let (n, prompt) = (self.names.of("n"), self.names.of("prompt"));
        let (param, asked) = match (prompts, self.choices) {
            (1, choices) => (n, format!("{n} is {choices}")),
            (_, 1) => (prompt, format!("{prompt} has {prompts} entries")),
            (_, choices) => (n, format!("{prompt} has {prompts} entries and {n} is {choices}")),
        };
        let message =
            format!("{asked}, which makes {count} answers; this server computes and queues at most {max_live}");
        Err(ApiError::invalid(param, message))
    }

    /// Answers make one call at most.
    pub(super) fn single_call(&self) -> bool {
        let single =
            |input: &Input| matches!(input, Input::Conversation { conversation, .. } if !conversation.parallel_calls);
        self.inputs.iter().any(single)
    }

    /// The prompts made ready, for as long as somebody waits.
    ///
    /// # Errors
    /// 400 for the prompts and the structure.
    pub(crate) fn prepare(&mut self, model: &dyn Generate, work: &Work) -> Result<Vec<Prepared>, ApiError> {
        let inputs = std::mem::take(&mut self.inputs).into_iter();
        inputs.map(|input| self.names.prepare(model, input, self.structure.as_ref(), work)).collect()
    }

    /// The engine's requests for one prompt, one for each choice, where a context holds so many tokens.
    pub(crate) fn requests(&self, prepared: Prepared, max_context: usize) -> Vec<Request> {
        let Prepared { ids: prompt, format, grammar } = prepared;
        let room = max_context.saturating_sub(prompt.len());
        let max_tokens = self.max_tokens.or_else(|| self.usual_tokens.map(|usual| usual.min(room)));
        let request = |(choice, prompt)| Request {
            prompt,
            sampling: Sampling {
                seed: self.sampling.seed.map(|seed| seed.wrapping_add(choice as u64)),
                ..self.sampling.clone()
            },
            max_tokens,
            stop: self.stop.clone(),
            ignore_eos: self.ignore_eos,
            logprobs: self.logprobs,
            prompt_logprobs: self.prompt_logprobs,
            embed: None,
            begins_text: self.begins_text,
            read_ahead: None,
            salt: 0,
            format: format.clone(),
            grammar: grammar.clone(),
            reasoning_budget: self.reasoning_budget,
        };
        // The last one takes the prompt itself.
        std::iter::repeat_n(prompt, self.choices).enumerate().map(request).collect()
    }
}

/// A client's names of the parameters that it does not name as the engine does: pairs of the engine's name and the client's. Beside the
/// engine's own there are `variables`, those of a conversation, `structure`, the form of an answer, `tools`, and `tools[].strict` and
/// `tools[].parameters`, those of one tool.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names(pub &'static [(&'static str, &'static str)]);

impl Names {
    /// The client's name of a parameter.
    pub(crate) fn of(self, param: &'static str) -> &'static str {
        self.0.iter().find(|(engines, _)| *engines == param).map_or(param, |(_, clients)| clients)
    }

    /// The client's name of a field of the tool of that index.
    fn of_tool(self, field: &'static str, index: usize) -> String {
        self.of(field).replacen("[]", &format!("[{index}]"), 1)
    }

    /// The engine's error in the client's names.
    pub(crate) fn error(self, error: EngineError) -> ApiError {
        let (param, message, refuse): (_, _, fn(&str, String) -> ApiError) = match error {
            EngineError::Invalid { param, message } => (param, message, |name, text| ApiError::invalid(name, text)),
            EngineError::ContextLength { param, message } => {
                (param, message, |name, text| ApiError::context_length(name, text))
            }
            error => return error.into(),
        };
        let name = self.of(param);
        match message.strip_prefix(param) {
            Some(rest) => refuse(name, format!("{name}{rest}")),
            None => refuse(name, message),
        }
    }

    /// The token ids of an input, for as long as somebody waits.
    ///
    /// # Errors
    /// 400 for the prompt, and 500 where the model's chat template is at fault.
    pub(crate) fn encode(self, model: &dyn Generate, input: Input, work: &Work) -> Result<Vec<u32>, ApiError> {
        self.prepare(model, input, None, work).map(|prepared| prepared.ids)
    }

    /// An input made ready for answers of this structure, for as long as somebody waits.
    ///
    /// # Errors
    /// 400 for the prompt and the structure, and 500 where the model's chat template is at fault.
    pub(crate) fn prepare(
        self,
        model: &dyn Generate,
        input: Input,
        structure: Option<&Structure>,
        work: &Work,
    ) -> Result<Prepared, ApiError> {
        let prepared = model.prepare(input, structure, &mut || work.goes_on());
        prepared.map_err(|error| self.unprepared(&error, structure.is_some()))
    }

    /// The error for an input that cannot be made ready for answers, `structured` if they were to have a structure.
    pub(crate) fn unprepared(self, error: &PromptError, structured: bool) -> ApiError {
        let (param, hint) = match error {
            PromptError::NoTemplate { .. } => ("prompt", "; use /v1/completions"),
            PromptError::NoTools | PromptError::Both => ("tools", ""),
            PromptError::NoCalls => ("tool_choice", ""),
            PromptError::NoStrictCalls { index, .. } => {
                return ApiError::invalid(self.of_tool("tools[].strict", *index), error.to_string());
            }
            PromptError::Tool { name, index, fault } => {
                let path = self.of_tool("tools[].parameters", *index);
                let message = format!("{path}, the schema of {name:?}, cannot be enforced: {fault}");
                return ApiError::invalid(path, message);
            }
            PromptError::Continuation { .. } => ("continue_final_message", ""),
            PromptError::TooLong { .. } => return ApiError::context_length(self.of("prompt"), error.to_string()),
            PromptError::Template(TemplateError::Reserved { .. } | TemplateError::Variables { .. }) => {
                ("variables", "")
            }
            PromptError::Structure(error) => {
                let name = self.of(if structured { "structure" } else { "tools" });
                return ApiError::invalid(name, format!("{name} cannot be enforced: {error}"));
            }
            PromptError::Template(error) if !error.is_client_error() => {
                return ApiError::internal(format!("{error}, or use /v1/completions")).coded("chat_template_error");
            }
            _ => ("prompt", ""),
        };
        ApiError::invalid(self.of(param), format!("{error}{hint}"))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One choice for one prompt.
    pub(crate) fn ask() -> Ask {
        Ask {
            inputs: vec![Input::Ids(vec![1])],
            choices: 1,
            sampling: Sampling::default(),
            max_tokens: None,
            usual_tokens: None,
            stop: vec![],
            ignore_eos: false,
            logprobs: None,
            prompt_logprobs: None,
            structure: None,
            reasoning_budget: None,
            begins_text: false,
            stream: false,
            names: Names(&[]),
        }
    }

    #[test]
    fn several_choices_have_seeds_of_their_own() {
        let ask = Ask { choices: 3, sampling: Sampling { seed: Some(u64::MAX), ..Sampling::default() }, ..ask() };
        let requests = ask.requests(vec![1].into(), 100);
        assert_eq!(requests.iter().map(|r| r.sampling.seed).collect::<Vec<_>>(), [Some(u64::MAX), Some(0), Some(1)]);
        assert!(requests.iter().all(|r| r.prompt == [1]));
    }

    #[test]
    fn a_limit_that_nobody_chose_gives_way_to_the_context() {
        let tokens = |ask: &Ask| ask.requests(vec![1; 90].into(), 100)[0].max_tokens;
        assert_eq!(tokens(&ask()), None);
        assert_eq!(tokens(&Ask { usual_tokens: Some(16), ..ask() }), Some(10));
        assert_eq!(tokens(&Ask { usual_tokens: Some(16), max_tokens: Some(20), ..ask() }), Some(20));
    }

    #[test]
    fn more_answers_than_can_ever_be_under_way_are_refused() {
        let asked = |choices, prompts| Ask { choices, inputs: vec![Input::Ids(vec![1]); prompts], ..ask() };
        assert!(asked(4, 8).check_count(32).is_ok());
        for (choices, prompts, param) in [(5, 1, "n"), (1, 64, "prompt"), (2, 3, "n")] {
            let error = asked(choices, prompts).check_count(4).unwrap_err().to_json();
            assert_eq!(error["error"]["param"], param, "{error}");
        }
    }

    #[test]
    fn the_engines_errors_have_the_clients_names() {
        let names = Names(&[("max_tokens", "limit"), ("prompt", "text")]);
        let error = |param, message: &str| {
            let error = names.error(EngineError::invalid(param, message)).to_json();
            let field = |name: &str| error["error"][name].as_str().unwrap().to_owned();
            (field("param"), field("message"))
        };
        let owned = |(a, b): (&str, &str)| (a.to_owned(), b.to_owned());
        assert_eq!(error("max_tokens", "max_tokens is 0"), owned(("limit", "limit is 0")));
        assert_eq!(error("prompt", "the prompt has no tokens"), owned(("text", "the prompt has no tokens")));
        assert_eq!(error("top_p", "top_p is 7"), owned(("top_p", "top_p is 7")));
    }
}
