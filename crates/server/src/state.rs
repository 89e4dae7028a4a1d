use crate::admission::{Admission, Unread};
use crate::error::ApiError;
use crate::limits::Limits;
use crate::middleware::observe::Observed;
use crate::middleware::origin::Origins;
use crate::stored::Store;
use mlx_serving_engine::EngineError;
use mlx_serving_runtime::{Generate, Registry, State, Unavailable, death};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// Refuses what a model's engine would refuse, before any work on it.
pub(crate) fn admits(model: &dyn Generate) -> Result<(), ApiError> {
    let health = model.health();
    if !health.alive {
        return Err(EngineError::Stopped(death(health)).into());
    }
    if model.draining() {
        return Err(ApiError::draining());
    }
    let (live, limit) = (model.live(), model.card().info.max_live);
    if live >= limit {
        return Err(EngineError::Overloaded { live, limit, asked: 1 }.into());
    }
    Ok(())
}

/// State that the routes share.
#[derive(Debug)]
pub struct AppState {
    /// The models, in the order of the command line.
    registry: Arc<Registry>,
    loading: AtomicBool,
    /// Requests whose answers are not out.
    pub(crate) unanswered: Arc<AtomicUsize>,
    /// Becomes true when the time to end is over.
    pub(crate) cut_off: watch::Sender<bool>,
    pub(crate) limits: Limits,
    pub(crate) admission: Admission,
    pub(crate) unread: Unread,
    /// Responses that are kept to be continued.
    pub(crate) responses: Arc<Store>,
    pub(crate) origins: Arc<Origins>,
    /// The answers so far.
    pub(crate) observed: Arc<Observed>,
    /// A step that lasts longer means that the engine is wedged.
    wedged_after: Duration,
    /// Longest body taken, bytes.
    pub(crate) body_limit: usize,
    /// The line that an agent changes in every request is left out of prompts.
    pub(crate) strip_billing_header: bool,
}

/// Settings of the server itself.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A step that lasts longer means that the engine is wedged.
    pub wedged_after: Duration,
    /// Longest body taken, bytes.
    pub body_limit: usize,
    /// Names of the models that will be served, in order.
    pub names: Vec<String>,
    /// Bounds of connections, bodies and answers.
    pub limits: Limits,
    /// Names under which the server is reached while it is bound to loopback, beside loopback's own; `*` for any.
    pub allowed_hosts: Vec<String>,
    /// Origins of web pages that may use the server; `*` for any.
    pub cors_origins: Vec<String>,
    /// The line that an agent puts before its instructions, and changes in every request, is left out of prompts.
    pub strip_billing_header: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            wedged_after: Duration::from_secs(60),
            body_limit: 8 << 20,
            names: Vec::new(),
            limits: Limits::default(),
            allowed_hosts: Vec::new(),
            cors_origins: Vec::new(),
            strip_billing_header: true,
        }
    }
}

/// Condition of the server as probes report it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    Ready,
    Loading,
    /// Requests are taken, but wait for weights.
    Transferring(String),
    Reloading(String),
    Draining,
    Dead(String),
    Wedged(String),
}

impl AppState {
    /// A server without models that calls itself loading until [`Self::loaded`].
    pub fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            registry: Arc::new(Registry::new(settings.names)),
            loading: AtomicBool::new(true),
            unanswered: Arc::default(),
            cut_off: watch::Sender::new(false),
            admission: Admission::new(&settings.limits),
            unread: Unread::new(settings.limits.answer, settings.limits.unread),
            responses: Arc::new(Store::new(settings.limits.stored_responses, settings.limits.stored_bytes)),
            origins: Arc::new(Origins::new(&settings.allowed_hosts, &settings.cors_origins)),
            observed: Arc::default(),
            limits: settings.limits,
            wedged_after: settings.wedged_after,
            body_limit: settings.body_limit,
            strip_billing_header: settings.strip_billing_header,
        })
    }

    /// The models, in the order of the command line.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Adds a model, unless the server is stopping.
    pub fn add(&self, model: Arc<dyn Generate>) {
        self.registry.add(model);
    }

    /// Adds a model that has to be loaded again before it is served; `reason` is a clause.
    pub fn add_lost(&self, id: String, reason: String) {
        self.registry.add_lost(&id, reason);
    }

    /// All models are there.
    pub fn loaded(&self) {
        self.loading.store(false, Ordering::Release);
    }

    /// The models that are served now, in the order of the command line.
    pub fn models(&self) -> Vec<Arc<dyn Generate>> {
        self.registry.models()
    }

    /// The model of that name; the only one that is configured when the request names none.
    pub(crate) fn model(&self, name: Option<&str>) -> Result<Arc<dyn Generate>, ApiError> {
        self.registry.get(name).map_err(|unavailable| {
            let message = unavailable.to_string();
            match unavailable {
                Unavailable::Unknown { model, models } => {
                    ApiError::unknown_model(&model, &models.iter().map(String::as_str).collect::<Vec<_>>())
                }
                Unavailable::Unnamed { .. } => ApiError::invalid("model", message),
                Unavailable::Empty => ApiError::nothing_served(),
                Unavailable::Loading { model } => ApiError::loading(&model),
                Unavailable::Reloading { model, reason } => ApiError::reloading(&model, &reason),
                Unavailable::Unloaded { .. } | Unavailable::Failed { .. } => ApiError::unavailable(message),
            }
        })
    }

    /// The first model that is configured.
    pub(crate) fn first(&self) -> Result<Arc<dyn Generate>, ApiError> {
        self.model(self.registry.ids().first().map(String::as_str))
    }

    /// Refuses requests before they are read, where none are taken any more, or too much waits for clients.
    pub(crate) fn takes_bodies(&self) -> Result<(), ApiError> {
        if self.draining() {
            return Err(ApiError::draining());
        }
        self.unread.check()
    }

    /// The same, and where no model could serve them.
    pub(crate) fn admits(&self) -> Result<(), ApiError> {
        self.takes_bodies()?;
        let mut refusal = Ok(());
        for (_, state) in self.registry.states() {
            // One that is loaded, or loaded again, may be meant.
            let State::Ready(model) = state else { return Ok(()) };
            match admits(&*model) {
                Ok(()) => return Ok(()),
                refused => refusal = refusal.and(refused),
            }
        }
        refusal
    }

    /// Refuses new requests; those accepted go on.
    pub fn drain(&self) {
        self.registry.drain();
    }

    /// It refuses new requests.
    pub(crate) fn draining(&self) -> bool {
        self.registry.draining()
    }

    /// Requests whose answers are not out to the last byte.
    pub fn live(&self) -> usize {
        self.unanswered.load(Ordering::Acquire)
    }

    /// Releases all models, those too that are still to come.
    pub fn close(&self) {
        self.registry.close();
    }

    pub(crate) fn condition(&self) -> Condition {
        if self.draining() {
            return Condition::Draining;
        }
        let (mut lost, mut transferring) = (None, None);
        for (id, state) in self.registry.states() {
            let model = match state {
                State::Ready(model) => model,
                State::Reloading(reason) => {
                    lost = lost.or_else(|| Some(format!("{id} is being loaded again: {reason}")));
                    continue;
                }
                State::Loading | State::Unloaded(_) | State::Failed(_) => continue,
            };
            let health = model.health();
            if !health.alive {
                return Condition::Dead(format!("the engine of {id} stopped: {}", death(health)));
            }
            if health.step.is_some_and(|s| s > self.wedged_after) {
                return Condition::Wedged(format!("a step of {id} has lasted over {:?}", self.wedged_after));
            }
            if !health.resident {
                transferring = transferring.or_else(|| Some(format!("weights of {id} are still being transferred")));
            }
        }
        match (lost, transferring) {
            (Some(reason), _) => Condition::Reloading(reason),
            _ if self.loading.load(Ordering::Acquire) => Condition::Loading,
            (None, Some(reason)) => Condition::Transferring(reason),
            (None, None) => Condition::Ready,
        }
    }
}
