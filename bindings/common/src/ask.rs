//! Arguments of a generation, checked.

use crate::args::{Args, mistyped, whole};
use crate::error::Error;
use mlx_serving_engine::{MAX_ALTERNATIVES, Request, Sampling};
use mlx_serving_runtime::{Card, Conversation, Input, Message, Parameters, Role};
use serde_json::{Map, Value};
use std::time::Duration;

/// Most tokens that lie unread of an answer that is read piece by piece, before the engine waits for its reader. Enough that a reader
/// which comes every few steps never holds the engine up; few enough that an answer nobody reads costs little. Not measured.
pub(crate) const READ_AHEAD: usize = 64;

/// A generation's arguments.
#[derive(Debug)]
pub(crate) struct Ask {
    /// Name of the model; the only one that there is where none is named.
    pub model: Option<String>,
    pub input: Input,
    pub timeout: Option<Duration>,
    pub terms: Terms,
}

/// Everything of a request but its prompt.
#[derive(Debug)]
pub(crate) struct Terms {
    sampling: Overrides,
    parameters: Parameters,
    ignore_eos: bool,
    logprobs: Option<usize>,
    begins_text: bool,
}

/// Sampling parameters that were given; the model's own stand for the rest.
#[derive(Debug, Default)]
struct Overrides {
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<u64>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    seed: Option<u64>,
    logit_bias: Vec<(u32, f32)>,
}

impl Ask {
    /// Reads and checks all arguments, as far as they can be without the model.
    pub(crate) fn parse(args: &Value) -> Result<Self, Error> {
        let mut args = Args::of(args)?;
        let model = args.text("model")?.map(str::to_owned);
        let prompt = args.take("prompt").map(prompt).transpose()?;
        let messages = args.take("messages").map(messages).transpose()?;
        let special = args.flag("add_special_tokens")?;
        let variables = args.take("chat_template_kwargs").map(variables).transpose()?;
        let sampling = Overrides {
            temperature: args.number("temperature")?,
            top_p: args.number("top_p")?,
            top_k: args.whole("top_k", 0..=u64::from(u32::MAX))?,
            min_p: args.number("min_p")?,
            repetition_penalty: args.number("repetition_penalty")?,
            presence_penalty: args.number("presence_penalty")?,
            frequency_penalty: args.number("frequency_penalty")?,
            seed: args.whole("seed", 0..=u64::MAX)?,
            logit_bias: args.take("logit_bias").map(biases).transpose()?.unwrap_or_default(),
        };
        let parameters = Parameters {
            max_tokens: args.whole("max_tokens", 1..=u64::from(u32::MAX))?.map(|n| n as usize),
            stop: stops(args.texts("stop")?)?,
            ..Parameters::default()
        };
        let ignore_eos = args.flag("ignore_eos")?.unwrap_or(false);
        let logprobs = args.take("logprobs").map(logprobs).transpose()?.flatten();
        let timeout = args.whole("timeout_ms", 1..=u64::from(u32::MAX))?.map(Duration::from_millis);
        args.finish()?;
        let input = match (prompt, messages) {
            (Some(Prompt::Text(text)), None) => Input::Text { text, special: special.unwrap_or(true) },
            (Some(Prompt::Ids(ids)), None) => Input::Ids(ids),
            (None, Some(messages)) => {
                let conversation = Conversation { variables, ..Conversation::new(messages) };
                Input::Conversation { conversation, special: special.unwrap_or(false) }
            }
            (None, None) => return Err(Error::value("prompt", "give a `prompt`, or `messages`")),
            (Some(_), Some(_)) => return Err(Error::value("messages", "give a `prompt` or `messages`, not both")),
        };
        // Ranges that hold for every model; what is outside a vocabulary is known later.
        sampling.over(&Sampling::default()).validate(usize::MAX)?;
        let begins_text = matches!(input, Input::Conversation { .. });
        let terms = Terms { sampling, parameters, ignore_eos, logprobs, begins_text };
        Ok(Self { model, input, timeout, terms })
    }

    /// The text's length, by which is told whether encoding it takes long.
    pub(crate) fn bytes(&self) -> usize {
        match &self.input {
            Input::Text { text, .. } => text.len(),
            Input::Ids(_) => 0,
            Input::Conversation { conversation, .. } => conversation.messages.iter().map(|m| m.content.len()).sum(),
        }
    }
}

impl Terms {
    /// The request to a model, once its input is encoded.
    pub(crate) fn request(&self, card: &Card, prompt: Vec<u32>) -> Request {
        Request {
            sampling: self.sampling.over(&card.defaults),
            max_tokens: Some(self.parameters.max_tokens(prompt.len(), card.info.max_context)),
            stop: self.parameters.stop.clone(),
            ignore_eos: self.ignore_eos,
            logprobs: self.logprobs,
            read_ahead: Some(READ_AHEAD),
            begins_text: self.begins_text,
            prompt,
            ..Request::default()
        }
    }
}

impl Overrides {
    fn over(&self, defaults: &Sampling) -> Sampling {
        Sampling {
            temperature: self.temperature.unwrap_or(defaults.temperature),
            top_p: self.top_p.unwrap_or(defaults.top_p),
            top_k: self.top_k.map_or(defaults.top_k, |k| k as u32),
            min_p: self.min_p.unwrap_or(defaults.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(defaults.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(defaults.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(defaults.frequency_penalty),
            seed: self.seed,
            logit_bias: self.logit_bias.clone(),
        }
    }
}

enum Prompt {
    Text(String),
    Ids(Vec<u32>),
}

fn prompt(value: &Value) -> Result<Prompt, Error> {
    match value {
        Value::String(text) => Ok(Prompt::Text(text.clone())),
        Value::Array(_) => Ok(Prompt::Ids(ids("prompt", value)?)),
        other => Err(mistyped("prompt", "text or a list of token ids", other)),
    }
}

/// A list of token ids.
pub(crate) fn ids(name: &str, value: &Value) -> Result<Vec<u32>, Error> {
    let list = value.as_array().ok_or_else(|| mistyped(name, "a list of token ids", value))?;
    list.iter().map(|id| Ok(whole(name, id, 0..=u64::from(u32::MAX))? as u32)).collect()
}

fn messages(value: &Value) -> Result<Vec<Message>, Error> {
    const WANTED: &str = "a list of messages, each with a role and a content";
    let list = value.as_array().ok_or_else(|| mistyped("messages", WANTED, value))?;
    if list.is_empty() {
        return Err(Error::value("messages", format!("`messages` takes {WANTED}; it is empty")));
    }
    list.iter().enumerate().map(|(i, item)| message(i, item)).collect()
}

fn message(index: usize, value: &Value) -> Result<Message, Error> {
    let at = format!("messages[{index}]");
    let named = |error: Error| {
        let within = error.param.as_deref().unwrap_or_default();
        let message = error.message.replace(&format!("`{within}`"), &format!("`{at}.{within}`"));
        Error { param: Some(format!("{at}.{within}")), message, ..error }
    };
    if !value.is_object() {
        return Err(mistyped(&at, "an object with a role and a content", value));
    }
    let read = || {
        let mut args = Args::of(value)?;
        let role = args.text("role")?;
        let content = args.text("content")?;
        let name = args.text("name")?.map(str::to_owned);
        args.finish()?;
        let role = match role {
            Some("system" | "developer") => Role::System,
            Some("user") => Role::User,
            Some("assistant") => Role::Assistant,
            Some(other) => {
                return Err(Error::value(
                    "role",
                    format!("`role` takes system, developer, user or assistant; it is {other:?}"),
                ));
            }
            None => return Err(Error::value("role", "`role` is missing; it is system, developer, user or assistant")),
        };
        let content = match content {
            Some(content) => content.to_owned(),
            None if role == Role::Assistant => String::new(),
            None => return Err(Error::value("content", "`content` is missing; it is the message's text")),
        };
        Ok(Message { name, ..Message::new(role, content) })
    };
    read().map_err(named)
}

fn stops(stops: Vec<String>) -> Result<Vec<String>, Error> {
    match stops.iter().any(String::is_empty) {
        true => {
            Err(Error::value("stop", "`stop` has an empty text, which would end every answer at once; leave it out"))
        }
        false => Ok(stops),
    }
}

fn variables(value: &Value) -> Result<Map<String, Value>, Error> {
    let map = value.as_object().cloned();
    map.ok_or_else(|| mistyped("chat_template_kwargs", "an object with variables of the chat template", value))
}

fn biases(value: &Value) -> Result<Vec<(u32, f32)>, Error> {
    const WANTED: &str = "an object that gives token ids a number from -100 to 100";
    let map = value.as_object().ok_or_else(|| mistyped("logit_bias", WANTED, value))?;
    let read = |(id, bias): (&String, &Value)| {
        let bias = bias.as_f64().ok_or_else(|| mistyped("logit_bias", WANTED, bias))?;
        let unread = || Error::value("logit_bias", format!("`logit_bias` takes {WANTED}; {id:?} is not a token id"));
        Ok((id.parse().map_err(|_| unread())?, bias as f32))
    };
    map.iter().map(read).collect()
}

/// Alternatives to report beside each token: true for none but the token itself, a number for as many.
fn logprobs(value: &Value) -> Result<Option<usize>, Error> {
    match value {
        Value::Bool(wanted) => Ok(wanted.then_some(0)),
        number if number.is_number() => Ok(Some(whole("logprobs", number, 0..=MAX_ALTERNATIVES as u64)? as usize)),
        other => Err(mistyped("logprobs", "true, false or a number of alternatives", other)),
    }
}
