//! `serve`: the HTTP server.

use super::Context;
use crate::args::Serve;
use crate::failure::Failure;
use mlx_serving_metal_layer::config::MetalOptimizations;
use mlx_serving_server::{AppState, Settings};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

pub(crate) fn run(context: &Context, args: &Serve) -> Result<(), Failure> {
    let server = &context.config.server;
    let host = args.host.as_deref().unwrap_or(&server.host).to_owned();
    let port = args.port.unwrap_or(server.port);
    let state = AppState::new(Settings {
        wedged_after: Duration::from_secs(server.wedged_after_s),
        body_limit: server.body_limit_mb << 20,
    });
    let grace = Duration::from_secs(server.shutdown_grace_s);
    // One thread is enough to pass tokens on, and leaves the cores to the device.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|e| Failure::failed(format!("the runtime could not be started: {e}")))?;
    runtime.block_on(async {
        // Bound before the models are loaded: a port in use must not cost the loading time, and /ready can say "loading".
        let listener = TcpListener::bind((host.as_str(), port)).await.map_err(|e| {
            Failure::failed(format!("{host}:{port} cannot be listened on: {e}; choose another with --host and --port"))
        })?;
        let address = listener.local_addr().map_err(Failure::failed)?;
        let server = tokio::spawn(mlx_serving_server::serve(listener, state.clone(), stop_signal(), grace));
        let models = models(context, &args.model);
        let loader = (context.clone(), state.clone());
        let asked = models.clone();
        let loaded = tokio::task::spawn_blocking(move || load_all(&loader.0, &loader.1, &models)).await;
        loaded.map_err(|e| Failure::failed(format!("loading ended early: {e}")))??;
        let names = state.ids();
        tracing::info!("{}", optimizations(&context.config.metal_optimizations, &names));
        let (again, named) = (context.clone(), by_id(&state, asked));
        let reviver = tokio::spawn(mlx_serving_server::revive(state.clone(), move |id: &str| {
            again.load(named.get(id).cloned().flatten().as_deref())
        }));
        tracing::info!("serving {} on http://{address} (POST /v1/chat/completions)", names.join(", "));
        server.await.map_err(Failure::failed)?.map_err(|e| Failure::failed(format!("the server ended: {e}")))?;
        reviver.abort();
        tracing::info!("stopped");
        Ok(())
    })
}

/// The command line's models, else the configuration's, else the bundled one (`None`).
fn models(context: &Context, named: &[String]) -> Vec<Option<String>> {
    let named = if named.is_empty() { &context.config.models.serve } else { named };
    if named.is_empty() { vec![None] } else { named.iter().cloned().map(Some).collect() }
}

/// What each served model was asked for as; both lists are in the same order.
fn by_id(state: &AppState, named: Vec<Option<String>>) -> HashMap<String, Option<String>> {
    state.ids().into_iter().zip(named).collect()
}

/// Which optimisations are on, and what measures them on this machine.
fn optimizations(config: &MetalOptimizations, models: &[String]) -> String {
    let active = config.active().join(",");
    let model = models.first().map_or("MODEL", String::as_str);
    let measure = |list| format!("mlx-serving bench compare -m {model} --optimizations {list} -o compare.json");
    match active.is_empty() {
        true => format!("optimisations: none (--metal-opts); to measure them on this machine: {}", measure("all")),
        false => format!("optimisations: {active}; to measure them on this machine: {}", measure(&active)),
    }
}

fn load_all(context: &Context, state: &Arc<AppState>, models: &[Option<String>]) -> Result<(), Failure> {
    for model in models {
        match context.load(model.as_deref()) {
            Ok(model) => {
                named_once(state, &model.id)?;
                state.add(model);
            }
            // Its file was written to while it was read: one model's fault, which passes when the file is whole again.
            Err(Failure::Weights { id, message }) => {
                named_once(state, &id)?;
                state.add_lost(id, message);
            }
            Err(error) => return Err(error),
        }
    }
    state.loaded();
    Ok(())
}

fn named_once(state: &AppState, id: &str) -> Result<(), Failure> {
    match state.ids().iter().any(|other| other == id) {
        true => Err(Failure::usage(format!("model {id} was named twice"))),
        false => Ok(()),
    }
}

/// Resolves on Ctrl-C or, where there is one, a termination signal.
async fn stop_signal() {
    let interrupt = async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::warn!(%error, "Ctrl-C cannot be caught");
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => tokio::select! { () = interrupt => {}, _ = terminate.recv() => {} },
            Err(error) => {
                tracing::warn!(%error, "termination signals cannot be caught");
                interrupt.await;
            }
        }
    }
    #[cfg(not(unix))]
    interrupt.await;
    tracing::info!("stopping: accepted requests end first");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_at_start_says_what_is_on_and_how_to_measure_it() {
        let mut config = MetalOptimizations::default();
        assert!(
            optimizations(&config, &["m".into()]).ends_with("bench compare -m m --optimizations all -o compare.json")
        );
        config.select("memory_pool,command_buffer_ring").unwrap();
        let line = optimizations(&config, &["m".into()]);
        assert!(line.starts_with("optimisations: memory_pool,command_buffer_ring;"), "{line}");
        assert!(line.contains("-m m --optimizations memory_pool,command_buffer_ring "), "{line}");
        config.enabled = false;
        assert!(optimizations(&config, &[]).starts_with("optimisations: none"), "the master switch rules");
    }
}
