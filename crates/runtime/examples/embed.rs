//! Opens the bundled model and streams an answer.

use mlx_serving_runtime::{
    Config, Conversation, Message, OpenOptions, Parameters, Role, Runtime, RuntimeError, Source,
};
use std::io::{self, Write as _};

fn main() -> Result<(), RuntimeError> {
    let runtime = Runtime::new(Config::default());
    let model = runtime.open(&Source::Bundled, OpenOptions::default())?;
    let question = Message::new(Role::User, "What is ownership?");
    let parameters = Parameters { max_tokens: Some(64), ..model.parameters() };
    let mut answer = model.chat(Conversation::new(vec![question]), &parameters)?;
    let mut out = io::stdout();
    for piece in &mut answer {
        // Nobody reads on where standard output is closed.
        if out.write_all(piece?.text.as_bytes()).and_then(|()| out.flush()).is_err() {
            break;
        }
    }
    let tokens = answer.finish().map_or(0, |finish| finish.usage.completion_tokens);
    eprintln!("\n{tokens} tokens");
    model.close();
    Ok(())
}
