//! The Python that chat templates expect around Jinja, as Hugging Face's own library offers it. What can take more memory than it was
//! given asks for fuel first.

mod arguments;
mod filters;
mod formats;
mod json;
mod methods;
mod numbers;
mod objects;
mod operators;
mod text;

pub(crate) use json::{from_list, from_map};

use arguments::{bind, text};
use minijinja::value::{Rest, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, Value};

/// The template's own words for why it does not accept the messages.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refusal(pub(crate) String);

/// Adds filters, tests, functions, methods and operators.
pub(crate) fn install(environment: &mut Environment) {
    environment.set_formatter(self::text::write);
    environment.set_unknown_method_callback(methods::call);
    environment.add_filter("tojson", json::tojson);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    filters::install(environment);
    objects::install(environment);
    operators::install(environment);
}

fn raise_exception(arguments: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [message] = bind("raise_exception", ["message"], &arguments.into_values())?;
    let message = message.ok_or_else(|| Error::new(ErrorKind::MissingArgument, "raise_exception needs a message"))?;
    Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Refusal(message.to_string())))
}

/// The local time in a `strftime` format.
fn strftime_now(arguments: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let [format] = bind("strftime_now", ["format"], &arguments.into_values())?;
    strftime(&jiff::ZonedDateTime::now(), text("strftime_now", format.as_ref())?)
}

fn strftime(time: &jiff::ZonedDateTime, format: &str) -> Result<String, Error> {
    jiff::fmt::strtime::format(format, time)
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("strftime_now({format:?}): {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strftime_knows_the_formats_of_templates() {
        let time: jiff::ZonedDateTime = "2024-07-26T15:04:05+00:00[UTC]".parse().unwrap();
        assert_eq!(strftime(&time, "%d %b %Y").unwrap(), "26 Jul 2024");
        assert_eq!(strftime(&time, "%B %d, %Y %H:%M:%S").unwrap(), "July 26, 2024 15:04:05");
        assert_eq!(strftime(&time, "%Y-%m-%d %A").unwrap(), "2024-07-26 Friday");
        assert!(strftime(&time, "%!").is_err());
    }
}
