use crate::admit::Admission;
use crate::error::ApiError;
use crate::guard::Origins;
use crate::limits::Limits;
use crate::log::RequestLog;
use crate::unread::Unread;
use mlx_serving_engine::{Engine, EngineError, Sampling};
use mlx_serving_text::{ChatTemplate, Tokenizer};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::watch;

/// A model that is served.
#[derive(Debug)]
pub struct ServedModel {
    /// Its name in requests.
    pub id: String,
    /// Computes its answers.
    pub engine: Engine,
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    /// Conversations to prompts, if the model has a template.
    pub template: Option<ChatTemplate>,
    /// From the model's generation_config.json.
    pub defaults: Sampling,
    /// Seconds since 1970 when it was loaded.
    pub created: u64,
}

impl ServedModel {
    /// Refuses what its engine would refuse, before any work on it.
    pub(crate) fn admits(&self) -> Result<(), ApiError> {
        let health = self.engine.health();
        if !health.alive {
            let reason = health.reason.unwrap_or_else(|| "its thread has ended".into());
            return Err(EngineError::Stopped(reason).into());
        }
        if self.engine.draining() {
            return Err(ApiError::draining());
        }
        if self.engine.full() {
            return Err(ApiError::overloaded(self.engine.live()));
        }
        Ok(())
    }
}

/// What the routes share.
#[derive(Debug)]
pub struct AppState {
    models: RwLock<Vec<Arc<ServedModel>>>,
    /// The models' names, those that are still to be loaded too.
    names: Vec<String>,
    loading: AtomicBool,
    draining: AtomicBool,
    /// Requests whose answers are not out.
    pub(crate) flights: Arc<AtomicUsize>,
    /// Becomes true when the time to end is over.
    pub(crate) cut: watch::Sender<bool>,
    pub(crate) limits: Limits,
    pub(crate) admission: Admission,
    pub(crate) unread: Unread,
    pub(crate) origins: Origins,
    pub(crate) log: RequestLog,
    /// The model that is loaded again, and why.
    reviving: RwLock<Option<(String, String)>>,
    /// A step that lasts longer means that the engine is wedged.
    wedged_after: Duration,
    /// Longest body taken, bytes.
    pub(crate) body_limit: usize,
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
        }
    }
}

/// Whether requests can be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    Ready,
    Loading,
    Reloading(String),
    Draining,
    Dead(String),
    Wedged(String),
}

impl AppState {
    /// A server without models that calls itself loading until [`Self::loaded`].
    pub fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            models: RwLock::default(),
            names: settings.names,
            loading: AtomicBool::new(true),
            draining: AtomicBool::new(false),
            flights: Arc::default(),
            cut: watch::Sender::new(false),
            admission: Admission::new(&settings.limits),
            unread: Unread::new(settings.limits.answer, settings.limits.unread),
            origins: Origins::new(&settings.allowed_hosts, &settings.cors_origins),
            log: RequestLog::default(),
            limits: settings.limits,
            reviving: RwLock::default(),
            wedged_after: settings.wedged_after,
            body_limit: settings.body_limit,
        })
    }

    /// Adds a model, unless the server is stopping.
    pub fn add(&self, model: ServedModel) {
        let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
        if !self.draining() {
            models.push(Arc::new(model));
        }
    }

    /// All models are there.
    pub fn loaded(&self) {
        self.loading.store(false, Ordering::Release);
    }

    /// The models, in the order of the command line.
    pub fn models(&self) -> Vec<Arc<ServedModel>> {
        self.models.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the first model out whose engine has died, unless the server is draining: its place, its name and the reason.
    pub(crate) fn take_dead(&self) -> Option<(usize, String, String)> {
        if self.draining() {
            return None;
        }
        let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
        let place = models.iter().position(|m| !m.engine.health().alive)?;
        let model = models.remove(place);
        let reason = model.engine.health().reason.unwrap_or_else(|| "its thread has ended".into());
        *self.reviving.write().unwrap_or_else(PoisonError::into_inner) = Some((model.id.clone(), reason.clone()));
        Some((place, model.id.clone(), reason))
    }

    /// Puts a model back into the place that it was taken from.
    pub(crate) fn put_back(&self, place: usize, model: ServedModel) {
        let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
        if self.draining() {
            return;
        }
        let place = place.min(models.len());
        models.insert(place, Arc::new(model));
        *self.reviving.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn reviving(&self) -> Option<(String, String)> {
        self.reviving.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The model of that name; the only one that is configured when the request names none.
    pub(crate) fn model(&self, name: Option<&str>) -> Result<Arc<ServedModel>, ApiError> {
        let models = self.models();
        let mut names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        names.extend(models.iter().map(|m| m.id.as_str()).filter(|id| !self.names.iter().any(|name| name == id)));
        let reviving = self.reviving();
        names.extend(reviving.iter().map(|(id, _)| id.as_str()).filter(|id| !self.names.iter().any(|name| name == id)));
        let name = match (name, &names[..]) {
            (Some(name), _) => name,
            (None, [only]) => *only,
            (None, []) => return Err(ApiError::loading("to serve")),
            (None, _) => {
                let message = format!("name one of the models served here: {}", names.join(", "));
                return Err(ApiError::invalid("model", message));
            }
        };
        if let Some(model) = models.iter().find(|m| m.id == name) {
            return Ok(model.clone());
        }
        match reviving {
            Some((id, reason)) if id == name => Err(ApiError::reloading(&id, &reason)),
            _ if names.contains(&name) => Err(ApiError::loading(name)),
            _ => Err(ApiError::unknown_model(name, &names)),
        }
    }

    /// The first model that is configured.
    pub(crate) fn first(&self) -> Result<Arc<ServedModel>, ApiError> {
        let loaded = self.models().first().map(|m| m.id.clone());
        self.model(self.names.first().cloned().or(loaded).as_deref())
    }

    /// Refuses requests before they are read, where no model could serve them.
    pub(crate) fn admits(&self) -> Result<(), ApiError> {
        if self.draining() {
            return Err(ApiError::draining());
        }
        self.unread.check()?;
        let models = self.models();
        // One that is loaded, or loaded again, may be meant.
        if models.is_empty() || models.len() < self.names.len() {
            return Ok(());
        }
        let mut refused = models.iter().map(|m| m.admits());
        let first = refused.next().unwrap_or(Ok(()));
        if refused.any(|r| r.is_ok()) { Ok(()) } else { first }
    }

    /// Refuses new requests; those accepted go on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.models().iter().for_each(|m| m.engine.drain());
    }

    /// It refuses new requests.
    pub(crate) fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Requests whose answers are not out to the last byte.
    pub fn live(&self) -> usize {
        self.flights.load(Ordering::Acquire)
    }

    /// Lets all models go, those too that are still to come.
    pub fn close(&self) {
        self.drain();
        let models = std::mem::take(&mut *self.models.write().unwrap_or_else(PoisonError::into_inner));
        drop(models);
    }

    pub(crate) fn condition(&self) -> Condition {
        if self.draining() {
            return Condition::Draining;
        }
        for model in self.models() {
            let health = model.engine.health();
            if !health.alive {
                let reason = health.reason.unwrap_or_else(|| "its thread has ended".into());
                return Condition::Dead(format!("the engine of {} stopped: {reason}", model.id));
            }
            if health.step.is_some_and(|s| s > self.wedged_after) {
                return Condition::Wedged(format!("a step of {} has lasted over {:?}", model.id, self.wedged_after));
            }
        }
        if let Some((id, reason)) = self.reviving() {
            return Condition::Reloading(format!("{id} is loaded again, because its engine stopped: {reason}"));
        }
        if self.loading.load(Ordering::Acquire) { Condition::Loading } else { Condition::Ready }
    }
}
