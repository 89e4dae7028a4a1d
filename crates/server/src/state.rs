use crate::error::ApiError;
use mlx_serving_engine::{Engine, Sampling};
use mlx_serving_text::{ChatTemplate, Tokenizer};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
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
            wedged_after: settings.wedged_after,
            body_limit: settings.body_limit,
        })
    }

    /// Adds a model.
    pub fn add(&self, model: ServedModel) {
        self.models.write().unwrap_or_else(std::sync::PoisonError::into_inner).push(Arc::new(model));
    }

    /// All models are there.
    pub fn loaded(&self) {
        self.loading.store(false, Ordering::Release);
    }

    /// The models, in the order of the command line.
    pub fn models(&self) -> Vec<Arc<ServedModel>> {
        self.models.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// The model of that name; the only one there is when the request names none.
    pub(crate) fn model(&self, name: Option<&str>) -> Result<Arc<ServedModel>, ApiError> {
        let models = self.models();
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
        if self.loading.load(Ordering::Acquire) { Condition::Loading } else { Condition::Ready }
    }
}
