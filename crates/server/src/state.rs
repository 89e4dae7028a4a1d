use crate::error::ApiError;
use crate::metrics::HttpAnswers;
use mlx_serving_engine::{Engine, Sampling};
use mlx_serving_text::{ChatTemplate, Tokenizer};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

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

/// What the routes share.
#[derive(Debug)]
pub struct AppState {
    models: RwLock<Vec<Arc<ServedModel>>>,
    loading: AtomicBool,
    /// The model that is loaded again, and why.
    reviving: RwLock<Option<(String, String)>>,
    /// A step that lasts longer means that the engine is wedged.
    wedged_after: Duration,
    /// Longest body taken, bytes.
    pub(crate) body_limit: usize,
    /// Answers so far.
    pub(crate) http: HttpAnswers,
}

/// Settings of the server itself.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A step that lasts longer means that the engine is wedged.
    pub wedged_after: Duration,
    /// Longest body taken, bytes.
    pub body_limit: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { wedged_after: Duration::from_secs(60), body_limit: 8 << 20 }
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
            loading: AtomicBool::new(true),
            reviving: RwLock::default(),
            wedged_after: settings.wedged_after,
            body_limit: settings.body_limit,
            http: HttpAnswers::default(),
        })
    }

    /// Adds a model.
    pub fn add(&self, model: ServedModel) {
        self.models.write().unwrap_or_else(PoisonError::into_inner).push(Arc::new(model));
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
        let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
        let place = models.iter().position(|m| !m.engine.health().alive && !m.engine.draining())?;
        let model = models.remove(place);
        let reason = model.engine.health().reason.unwrap_or_else(|| "its thread has ended".into());
        *self.reviving.write().unwrap_or_else(PoisonError::into_inner) = Some((model.id.clone(), reason.clone()));
        Some((place, model.id.clone(), reason))
    }

    /// Puts a model back into the place that it was taken from.
    pub(crate) fn put_back(&self, place: usize, model: ServedModel) {
        let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
        let place = place.min(models.len());
        models.insert(place, Arc::new(model));
        *self.reviving.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn reviving(&self) -> Option<(String, String)> {
        self.reviving.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The model of that name; the only one there is when the request names none.
    pub(crate) fn model(&self, name: Option<&str>) -> Result<Arc<ServedModel>, ApiError> {
        let models = self.models();
        if let Some((id, reason)) = self.reviving()
            && name.map_or(models.is_empty(), |name| name == id)
        {
            return Err(ApiError::reloading(&id, &reason));
        }
        let ids = || models.iter().map(|m| m.id.as_str()).collect::<Vec<_>>();
        match name {
            Some(name) => {
                models.iter().find(|m| m.id == name).cloned().ok_or_else(|| ApiError::unknown_model(name, &ids()))
            }
            None => match &models[..] {
                [only] => Ok(only.clone()),
                _ => {
                    Err(ApiError::invalid("model", format!("name one of the models served here: {}", ids().join(", "))))
                }
            },
        }
    }

    /// Refuses new requests; those accepted go on.
    pub fn drain(&self) {
        self.models().iter().for_each(|m| m.engine.drain());
    }

    /// Requests not yet ended, over all models.
    pub fn live(&self) -> usize {
        self.models().iter().map(|m| m.engine.live()).sum()
    }

    pub(crate) fn condition(&self) -> Condition {
        for model in self.models() {
            let health = model.engine.health();
            if !health.alive {
                let reason = health.reason.unwrap_or_else(|| "its thread has ended".into());
                return Condition::Dead(format!("the engine of {} stopped: {reason}", model.id));
            }
            if health.step.is_some_and(|s| s > self.wedged_after) {
                return Condition::Wedged(format!("a step of {} has lasted over {:?}", model.id, self.wedged_after));
            }
            if model.engine.draining() {
                return Condition::Draining;
            }
        }
        if let Some((id, reason)) = self.reviving() {
            return Condition::Reloading(format!("{id} is loaded again, because its engine stopped: {reason}"));
        }
        if self.loading.load(Ordering::Acquire) { Condition::Loading } else { Condition::Ready }
    }
}
