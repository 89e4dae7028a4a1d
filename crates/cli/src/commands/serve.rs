//! `serve`: the HTTP server.

use crate::config::Server;
use crate::context::Context;
use crate::failure::Failure;
use crate::{descriptors, load, signals};
use mlx_serving_metal_layer::config::MetalOptimizations;
use mlx_serving_runtime::{Generate, OpenOptions, Runtime, RuntimeError, Source};
use mlx_serving_server::{AppState, Limits, Settings};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Time after which a thread that worked on bodies ends if there are no more: with it goes what the allocator kept for it.
const LAZY: Duration = Duration::from_secs(1);
/// Time to release models and their files at the end; a device that hangs must not hold it up.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);
/// The part of it that a model gets which is just being loaded: most have no file yet.
const LOADER: Duration = Duration::from_millis(300);

/// Serves as the configuration says, of which flags are part, under names that flags alone give.
pub(crate) fn run(context: &Context, names: &[String]) -> Result<(), Failure> {
    let server = &context.config.server;
    let (models, aliases) = renamed(named(sources(context))?, names)?;
    let template = template(context, &models)?;
    for warning in strangers(&context.config, &models) {
        tracing::warn!("{warning}");
    }
    let names = models.iter().map(|(name, _)| name.clone()).collect();
    let state = AppState::new(settings(server.clone(), names));
    if let [(name, _)] = &models[..] {
        aliases.into_iter().for_each(|alias| state.registry().alias(name, alias));
    }
    // One thread is enough to pass tokens on, and leaves the cores to the device.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_keep_alive(LAZY)
        .enable_all()
        .build()
        .map_err(|e| Failure::failed(format!("the runtime could not be started: {e}")))?;
    let address = (bare(&server.host), server.port);
    let models = Models { runtime: context.runtime(), named: models, template };
    let outcome = runtime.block_on(serve(context, address, state.clone(), models));
    exit_after_timeout();
    // Requests first, then models: an engine that nobody uses any more removes its files.
    runtime.shutdown_timeout(LOADER);
    state.close();
    drop(state);
    if outcome.is_ok() {
        tracing::info!("stopped");
    }
    outcome
}

/// A host without the brackets that addresses of IPv6 have in URLs.
pub(super) fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Ends the process if it has not ended by itself soon.
fn exit_after_timeout() {
    std::thread::spawn(|| {
        std::thread::sleep(EXIT_TIMEOUT);
        tracing::error!("a model could not be stopped in time; the process ends without it");
        std::process::exit(1);
    });
}

fn settings(server: Server, names: Vec<String>) -> Settings {
    let limits = &server.limits;
    Settings {
        wedged_after: Duration::from_secs(server.wedged_after_s),
        body_limit: server.body_limit_mb << 20,
        names,
        limits: Limits {
            connections: descriptors::connections(limits.connections),
            header: Duration::from_secs(limits.header_s),
            body: Duration::from_secs(limits.body_s),
            pause: Duration::from_secs(limits.pause_s),
            idle: Duration::from_secs(limits.idle_s),
            write: Duration::from_secs(limits.write_s),
            bodies: limits.bodies_mb << 20,
            answer: limits.answer_mb << 20,
            unread: limits.unread_mb << 20,
            stored_responses: limits.stored_responses,
            stored_bytes: limits.stored_responses_mb << 20,
        },
        allowed_hosts: server.allowed_hosts,
        cors_origins: server.cors_origins,
        strip_billing_header: server.strip_billing_header,
    }
}

/// Serves until a signal; the first lets accepted requests end, the second does not.
async fn serve(
    context: &Context,
    (host, port): (&str, u16),
    state: Arc<AppState>,
    models: Models,
) -> Result<(), Failure> {
    let mut signals = signals::stops(signals::SAME);
    // Bound before the models are loaded: a port in use must not cost the loading time, and /ready can say "loading".
    let listener = TcpListener::bind((host, port)).await.map_err(|e| {
        Failure::failed(format!("{host}:{port} cannot be listened on: {e}; choose another with --host and --port"))
    })?;
    let address = listener.local_addr().map_err(Failure::failed)?;
    tracing::debug!(%address, "listening");
    let grace = Duration::from_secs(context.config.server.shutdown_grace_s);
    let (stop, stopped) = oneshot::channel::<Duration>();
    let mut stop = Some(stop);
    let shutdown = async { stopped.await.unwrap_or_default() };
    let mut server = tokio::spawn(mlx_serving_server::serve(listener, state.clone(), shutdown));
    let models = Arc::new(models);
    let mut loading = load_all(&models, &state)?;
    let mut loaded = false;
    let mut refused = Ok(());
    let mut outcome = loop {
        tokio::select! {
            Some(signal) = signals.recv() => match stop.take() {
                Some(stop) => {
                    tracing::info!("{signal}: stopping; accepted requests have {grace:?} to end, a second signal ends them immediately");
                    // It is gone only if the server has ended.
                    let _ = stop.send(grace);
                }
                None => {
                    let (are_cut, were_cut) = match state.live() {
                        1 => ("1 answer is cut".to_owned(), "1 answer was cut".to_owned()),
                        live => (format!("{live} answers are cut"), format!("{live} answers were cut")),
                    };
                    break Err(at_once(signal, &are_cut, &were_cut));
                }
            },
            outcome = &mut loading, if !loaded && stop.is_some() => {
                loaded = true;
                refused = outcome.unwrap_or_else(|_| Err(Failure::failed("the thread that loads has ended early")));
                if refused.is_err() {
                    // Answers of the models that were loaded before end with an error instead of a closed connection.
                    let _ = stop.take().map(|stop| stop.send(Duration::ZERO));
                    continue;
                }
                announce(&models, &state, address);
                let again = models.clone();
                tokio::spawn(mlx_serving_runtime::revive(state.registry().clone(), move |id: &str| again.open(id)));
            },
            ended = &mut server => {
                let ended = ended.map_err(Failure::failed).and_then(|ended| ended.map_err(Failure::failed));
                break ended.map_err(|e| Failure::failed(format!("the server ended: {e}"))).and(refused);
            }
        }
    };
    if !loaded {
        state.drain();
        // What it has just loaded it drops by itself; what it is still loading ends with the process.
        tokio::select! {
            _ = tokio::time::timeout(LOADER, loading) => {}
            Some(signal) = signals.recv() => {
                outcome = outcome.and(Err(at_once(signal, "a model is still being loaded", "a model was still being loaded")));
            }
        }
    }
    outcome
}

/// The end by a second signal, which the log is told; `is` and `was` are clauses about what it cuts.
fn at_once(signal: &str, is: &str, was: &str) -> Failure {
    tracing::warn!("a second signal ({signal}): stopping at once; {is}");
    Failure::failed(format!("stopped at once by a second signal ({signal}): {was}"))
}

fn announce(models: &Models, state: &AppState, address: SocketAddr) {
    let names = state.registry().ids();
    let first = match models.named.first() {
        Some((_, Source::Named(name))) => Some(name.as_str()),
        _ => None,
    };
    tracing::info!("{}", optimizations(&models.runtime.config().metal_optimizations, first));
    if !address.ip().to_canonical().is_loopback() {
        tracing::warn!("{address} is not only this machine's: anybody who reaches this port may use the server");
    }
    tracing::info!("serving {} on http://{address} (POST /v1/chat/completions)", names.join(", "));
}

/// Refuses what `serve` would refuse of the configuration before it loads models, and returns what it would warn of.
pub(super) fn check(context: &Context, names: &[String]) -> Result<Vec<String>, Failure> {
    let (models, _) = renamed(named(sources(context))?, names)?;
    template(context, &models)?;
    // Where the configuration names no models, the command line of `serve` may.
    let configured = !context.config.models.serve.is_empty();
    let warnings = if configured { strangers(&context.config, &models) } else { Vec::new() };
    let host = bare(&context.config.server.host);
    // Any free port: the configured one may be a running server's.
    std::net::TcpListener::bind((host, 0))
        .map(|_| warnings)
        .map_err(|e| Failure::failed(format!("server.host: {host} cannot be listened on: {e}")))
}

/// The configuration's models, else the bundled one.
fn sources(context: &Context) -> Vec<Source> {
    let named = &context.config.models.serve;
    if named.is_empty() {
        vec![Source::Bundled]
    } else {
        named.iter().map(|name| Source::from(name.as_str())).collect()
    }
}

/// A model as it was asked for, behind the name that it is served under.
type Named = (String, Source);

/// The models with their names.
fn named(sources: Vec<Source>) -> Result<Vec<Named>, Failure> {
    let names = Source::ids(&sources).map_err(|name| Failure::usage(format!("model {name} was named twice")))?;
    Ok(names.into_iter().zip(sources).collect())
}

/// The models under the names that `--served-model-name` gives them, and the further names of the only one.
fn renamed(mut models: Vec<Named>, names: &[String]) -> Result<(Vec<Named>, Vec<String>), Failure> {
    const FLAG: &str = "--served-model-name";
    if names.is_empty() {
        return Ok((models, Vec::new()));
    }
    if names.iter().any(|name| name.trim().is_empty()) {
        return Err(Failure::usage(format!("{FLAG} has an empty name")));
    }
    if let Some(name) = names.iter().find(|name| name.contains(char::is_control)) {
        return Err(Failure::usage(format!("{FLAG} has {name:?}, a name with control characters; leave them out")));
    }
    if let Some(twice) = names.iter().enumerate().find_map(|(i, name)| names[..i].contains(name).then_some(name)) {
        return Err(Failure::usage(format!("{FLAG} has {twice} twice")));
    }
    if models.len() > 1 && names.len() != models.len() {
        let (given, served) = (names.len(), models.len());
        return Err(Failure::usage(format!(
            "{FLAG} gives {given} names to {served} models; give each its own, in the order of --model"
        )));
    }
    for ((name, _), given) in models.iter_mut().zip(names) {
        name.clone_from(given);
    }
    let aliases = names[models.len()..].to_vec();
    Ok((models, aliases))
}

/// Warnings of settings in the configuration that are no served model's.
fn strangers(config: &mlx_serving_runtime::Config, models: &[Named]) -> Vec<String> {
    let served: Vec<&str> = models.iter().map(|(name, _)| name.as_str()).collect();
    let names = config.models.named.keys().filter(|name| !served.contains(&name.as_str()));
    let served = served.join(", ");
    names
        .map(|name| format!("models.{name} in the configuration matches no served model; these are: {served}"))
        .collect()
}

/// The chat template that the configuration names. One template fits one model.
fn template(context: &Context, models: &[Named]) -> Result<Option<PathBuf>, Failure> {
    match &context.config.models.chat_template {
        Some(file) if models.len() > 1 => Err(Failure::usage(format!(
            "chat template {} (--chat-template, models.chat_template) is for one model, and {} are named: serve them by processes of their own",
            file.display(),
            models.len()
        ))),
        Some(file) if !file.is_file() => Err(Failure::usage(format!(
            "chat template {} (--chat-template, models.chat_template) {}",
            file.display(),
            if file.exists() { "is no file" } else { "is not there" }
        ))),
        template => Ok(template.clone()),
    }
}

/// The models that are served, and what they share.
struct Models {
    runtime: Runtime,
    named: Vec<Named>,
    template: Option<PathBuf>,
}

impl Models {
    /// Opens the model of that name; it may have been open before.
    fn open(&self, id: &str) -> Result<Arc<dyn Generate>, RuntimeError> {
        let source = self.named.iter().find(|(name, _)| name == id).map(|(_, source)| source.clone());
        let (name, chat_template) = (Some(id.to_owned()), self.template.clone());
        let options = OpenOptions { name, chat_template, ..OpenOptions::default() };
        let model = load::open(&self.runtime, &source.unwrap_or_else(|| Source::from(id)), options)?;
        Ok(Arc::new(model))
    }
}

/// The optimizations that are on, and the command that measures them on this machine with `model`, the bundled one if none was named.
fn optimizations(config: &MetalOptimizations, model: Option<&str>) -> String {
    let active = config.active().join(",");
    let model = model.map_or(String::new(), |model| format!("-m {model} "));
    let measure = |list| format!("mlx-serving bench compare {model}--optimizations {list} -o compare.json");
    match active.is_empty() {
        true => format!("optimizations: none (--metal-opts); to measure them on this machine: {}", measure("all")),
        false => format!("optimizations: {active}; to measure them on this machine: {}", measure(&active)),
    }
}

/// Loads the models one by one on a thread of its own, which nobody has to wait for.
fn load_all(models: &Arc<Models>, state: &Arc<AppState>) -> Result<oneshot::Receiver<Result<(), Failure>>, Failure> {
    let (models, state) = (models.clone(), state.clone());
    let (send, receive) = oneshot::channel();
    let load = move || {
        let registry = state.registry();
        let outcome = models.named.iter().try_for_each(|(id, _)| registry.load(id, || models.open(id)));
        if outcome.is_ok() {
            state.loaded();
        }
        // Nobody listens any more if the server has been asked to stop.
        let _ = send.send(outcome.map_err(Failure::from));
    };
    std::thread::Builder::new()
        .name("load".into())
        .spawn(load)
        .map_err(|e| Failure::failed(format!("the thread that loads could not be started: {e}")))?;
    Ok(receive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configurations_defaults_are_the_servers() {
        let settings = settings(Server::default(), Vec::new());
        let Settings { wedged_after, body_limit, limits, strip_billing_header, .. } = Settings::default();
        assert_eq!((settings.wedged_after, settings.body_limit), (wedged_after, body_limit));
        assert_eq!(settings.strip_billing_header, strip_billing_header);
        // The system may allow fewer.
        assert_eq!(Server::default().limits.connections, limits.connections);
        assert_eq!(settings.limits, Limits { connections: settings.limits.connections, ..limits });
    }

    #[test]
    fn names_are_given_to_the_only_model_or_to_each() {
        let models = |sources: &[&str]| sources.iter().map(|id| ((*id).to_owned(), Source::from(*id))).collect();
        let given = |sources: &[&str], names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let (models, aliases) = renamed(models(sources), &names).map_err(|e| e.to_string())?;
            Ok((models.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(" "), aliases.join(" ")))
        };
        let names = |own: &str, aliases: &str| Ok::<_, String>((own.to_owned(), aliases.to_owned()));
        assert_eq!(given(&["a"], &[]), names("a", ""));
        assert_eq!(given(&["a"], &["x"]), names("x", ""));
        assert_eq!(given(&["a"], &["x", "y", "z"]), names("x", "y z"));
        assert_eq!(given(&["a", "b"], &["x", "y"]), names("x y", ""));
        for (sources, refused) in [
            (&["a", "b"][..], &["x"][..]),
            (&["a", "b"], &["x", "y", "z"]),
            (&["a"], &["x", "x"]),
            (&["a"], &[""]),
            (&["a"], &[" \u{a0}"]),
            (&["a"], &["x\ny"]),
            (&["a"], &["x", "\u{1b}[31m"]),
        ] {
            assert!(given(sources, refused).is_err_and(|e| e.contains("--served-model-name")), "{refused:?}");
        }
    }

    #[test]
    fn brackets_around_an_address_are_no_part_of_it() {
        assert_eq!((bare("[::1]"), bare("::1"), bare("localhost"), bare("[")), ("::1", "::1", "localhost", "["));
    }

    #[test]
    fn the_line_at_start_says_what_is_on_and_how_to_measure_it() {
        let mut config = MetalOptimizations::default();
        assert!(optimizations(&config, Some("m")).ends_with("bench compare -m m --optimizations all -o compare.json"));
        config.select("memory_pool,command_buffer_ring").unwrap();
        let line = optimizations(&config, Some("m"));
        assert!(line.starts_with("optimizations: memory_pool,command_buffer_ring;"), "{line}");
        assert!(line.contains("-m m --optimizations memory_pool,command_buffer_ring "), "{line}");
        config.enabled = false;
        assert!(optimizations(&config, None).starts_with("optimizations: none"), "the master switch rules");
    }
}
