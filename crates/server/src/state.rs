use crate::error::ApiError;
use mlx_serving_engine::{Engine, Sampling};
use mlx_serving_text::{ChatTemplate, Tokenizer};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
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
    /// In the order of the command line.
    places: RwLock<Vec<Place>>,
    loading: AtomicBool,
    /// A step that lasts longer means that the engine is wedged.
    wedged_after: Duration,
    /// Longest body taken, bytes.
    pub(crate) body_limit: usize,
}

/// A model that is to be served.
#[derive(Debug, Clone)]
enum Place {
    Served(Arc<ServedModel>),
    /// It has to be loaded again, and why; `taken` by somebody who does so.
    Lost {
        id: String,
        reason: String,
        taken: bool,
    },
}

impl Place {
    fn id(&self) -> &str {
        match self {
            Place::Served(model) => &model.id,
            Place::Lost { id, .. } => id,
        }
    }
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
    /// Requests are taken, but wait for weights.
    Arriving(String),
    Reloading(String),
    Draining,
    Dead(String),
    Wedged(String),
}

impl AppState {
    /// A server without models that calls itself loading until [`Self::loaded`].
    pub fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            places: RwLock::default(),
            loading: AtomicBool::new(true),
            wedged_after: settings.wedged_after,
            body_limit: settings.body_limit,
        })
    }

    /// Adds a model.
    pub fn add(&self, model: ServedModel) {
        self.write().push(Place::Served(Arc::new(model)));
    }

    /// Adds a model that has to be loaded again before it is served.
    pub fn add_lost(&self, id: String, reason: String) {
        self.write().push(Place::Lost { id, reason, taken: false });
    }

    /// All models are there.
    pub fn loaded(&self) {
        self.loading.store(false, Ordering::Release);
    }

    /// The models that are served now, in the order of the command line.
    pub fn models(&self) -> Vec<Arc<ServedModel>> {
        let served = |place: &Place| match place {
            Place::Served(model) => Some(model.clone()),
            Place::Lost { .. } => None,
        };
        self.read().iter().filter_map(served).collect()
    }

    /// Names of all models, in the order of the command line.
    pub fn ids(&self) -> Vec<String> {
        self.read().iter().map(|place| place.id().to_owned()).collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, Vec<Place>> {
        self.places.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<Place>> {
        self.places.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the model out of a place if it has to be loaded again, unless the server is draining: its name and the reason.
    pub(crate) fn take_lost(&self, place: usize) -> Option<(String, String)> {
        let mut places = self.write();
        let place = places.get_mut(place)?;
        let (id, reason) = match place {
            Place::Served(model) if !model.engine.health().alive && !model.engine.draining() => {
                let reason = model.engine.health().reason.unwrap_or_else(|| "its thread has ended".into());
                (model.id.clone(), reason)
            }
            Place::Lost { id, reason, taken: false } => (id.clone(), reason.clone()),
            _ => return None,
        };
        *place = Place::Lost { id: id.clone(), reason: reason.clone(), taken: true };
        Some((id, reason))
    }

    /// Puts a model that was loaded again into the place that it was taken from.
    pub(crate) fn put_back(&self, place: usize, model: ServedModel) {
        if let Some(place) = self.write().get_mut(place) {
            *place = Place::Served(Arc::new(model));
        }
    }

    /// The model of that name; the only one there is when the request names none.
    pub(crate) fn model(&self, name: Option<&str>) -> Result<Arc<ServedModel>, ApiError> {
        let places = self.read();
        let ids = || places.iter().map(Place::id).collect::<Vec<_>>();
        let place = match name {
            Some(name) => {
                places.iter().find(|p| p.id() == name).ok_or_else(|| ApiError::unknown_model(name, &ids()))?
            }
            None => match &places[..] {
                [only] => only,
                _ => {
                    let message = format!("name one of the models served here: {}", ids().join(", "));
                    return Err(ApiError::invalid("model", message));
                }
            },
        };
        match place {
            Place::Served(model) => Ok(model.clone()),
            Place::Lost { id, reason, .. } => Err(ApiError::reloading(id, reason)),
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
        if let Some(Place::Lost { id, reason, .. }) = self.read().iter().find(|p| matches!(p, Place::Lost { .. })) {
            return Condition::Reloading(format!("{id} is loaded again, because its engine stopped: {reason}"));
        }
        if self.loading.load(Ordering::Acquire) {
            return Condition::Loading;
        }
        match self.models().iter().find(|m| !m.engine.health().resident) {
            Some(model) => Condition::Arriving(format!("weights of {} are still on their way", model.id)),
            None => Condition::Ready,
        }
    }
}
