use crate::admit::Admission;
use crate::error::ApiError;
use crate::guard::Origins;
use crate::limits::Limits;
use crate::log::RequestLog;
use crate::metrics::HttpAnswers;
use crate::unread::Unread;
use mlx_serving_engine::{Engine, EngineError, Health, Sampling};
use mlx_serving_text::{ChatTemplate, Tokenizer};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
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
            return Err(EngineError::Stopped(death(health)).into());
        }
        if self.engine.draining() {
            return Err(ApiError::draining());
        }
        let (live, limit) = (self.engine.live(), self.engine.info().max_live);
        if live >= limit {
            return Err(EngineError::Overloaded { live, limit, asked: 1 }.into());
        }
        Ok(())
    }
}

/// What the routes share.
#[derive(Debug)]
pub struct AppState {
    /// In the order of the command line.
    places: RwLock<Vec<Place>>,
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
    /// A step that lasts longer means that the engine is wedged.
    wedged_after: Duration,
    /// Longest body taken, bytes.
    pub(crate) body_limit: usize,
    /// Answers so far.
    pub(crate) http: HttpAnswers,
}

/// A model that is to be served.
#[derive(Debug, Clone)]
enum Place {
    /// Its name.
    Loading(String),
    Served(Arc<ServedModel>),
    /// It has to be loaded again, and why, as a clause; `taken` by somebody who does so.
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
            Place::Loading(id) | Place::Lost { id, .. } => id,
        }
    }
}

/// A model that was taken out of its place to be loaded again.
pub(crate) struct LostModel {
    pub id: String,
    /// Why, as a clause.
    pub reason: String,
    /// What is left of it; requests that have not ended may hold it too.
    pub dead: Option<Arc<ServedModel>>,
}

/// Why an engine has died.
fn death(health: Health) -> String {
    health.reason.unwrap_or_else(|| "its thread has ended".into())
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
            places: RwLock::new(settings.names.into_iter().map(Place::Loading).collect()),
            loading: AtomicBool::new(true),
            draining: AtomicBool::new(false),
            flights: Arc::default(),
            cut: watch::Sender::new(false),
            admission: Admission::new(&settings.limits),
            unread: Unread::new(settings.limits.answer, settings.limits.unread),
            origins: Origins::new(&settings.allowed_hosts, &settings.cors_origins),
            log: RequestLog::default(),
            limits: settings.limits,
            wedged_after: settings.wedged_after,
            body_limit: settings.body_limit,
            http: HttpAnswers::default(),
        })
    }

    /// Adds a model, unless the server is stopping.
    pub fn add(&self, model: ServedModel) {
        self.fill(Place::Served(Arc::new(model)));
    }

    /// Adds a model that has to be loaded again before it is served; `reason` is a clause.
    pub fn add_lost(&self, id: String, reason: String) {
        self.fill(Place::Lost { id, reason, taken: false });
    }

    /// Puts a model into the place that was kept for it, else behind the others.
    fn fill(&self, model: Place) {
        let mut places = self.write();
        if self.draining() {
            return;
        }
        match places.iter_mut().find(|place| place.id() == model.id()) {
            Some(place) => *place = model,
            None => places.push(model),
        }
    }

    /// All models are there.
    pub fn loaded(&self) {
        self.loading.store(false, Ordering::Release);
    }

    /// The models that are served now, in the order of the command line.
    pub fn models(&self) -> Vec<Arc<ServedModel>> {
        let served = |place: &Place| match place {
            Place::Served(model) => Some(model.clone()),
            Place::Loading(_) | Place::Lost { .. } => None,
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

    /// Takes the model out of a place if it has to be loaded again, unless the server is draining.
    pub(crate) fn take_lost(&self, place: usize) -> Option<LostModel> {
        let mut places = self.write();
        let place = places.get_mut(place)?;
        let lost = match place {
            Place::Served(model) if !model.engine.health().alive && !self.draining() => {
                let reason = format!("its engine stopped: {}", death(model.engine.health()));
                LostModel { id: model.id.clone(), reason, dead: Some(model.clone()) }
            }
            Place::Lost { id, reason, taken: false } => {
                LostModel { id: id.clone(), reason: reason.clone(), dead: None }
            }
            _ => return None,
        };
        *place = Place::Lost { id: lost.id.clone(), reason: lost.reason.clone(), taken: true };
        Some(lost)
    }

    /// Puts a model that was loaded again into the place that it was taken from; false if the server is draining.
    pub(crate) fn put_back(&self, place: usize, model: ServedModel) -> bool {
        let mut places = self.write();
        // Under the lock: whoever drains finds the model, or it is not put back.
        if self.draining() {
            return false;
        }
        let place = places.get_mut(place);
        place.map(|place| *place = Place::Served(Arc::new(model))).is_some()
    }

    /// The model of that name; the only one that is configured when the request names none.
    pub(crate) fn model(&self, name: Option<&str>) -> Result<Arc<ServedModel>, ApiError> {
        let places = self.read();
        let ids = || places.iter().map(Place::id).collect::<Vec<_>>();
        let place = match name {
            Some(name) => {
                places.iter().find(|p| p.id() == name).ok_or_else(|| ApiError::unknown_model(name, &ids()))?
            }
            None => match &places[..] {
                [only] => only,
                [] => return Err(ApiError::nothing_served()),
                _ => {
                    let message = format!("name one of the models served here: {}", ids().join(", "));
                    return Err(ApiError::invalid("model", message));
                }
            },
        };
        match place {
            Place::Loading(id) => Err(ApiError::loading(id)),
            Place::Served(model) => Ok(model.clone()),
            Place::Lost { id, reason, .. } => Err(ApiError::reloading(id, reason)),
        }
    }

    /// The first model that is configured.
    pub(crate) fn first(&self) -> Result<Arc<ServedModel>, ApiError> {
        self.model(self.ids().first().map(String::as_str))
    }

    /// Refuses requests before they are read, where no model could serve them.
    pub(crate) fn admits(&self) -> Result<(), ApiError> {
        if self.draining() {
            return Err(ApiError::draining());
        }
        self.unread.check()?;
        let mut refusal = Ok(());
        for place in self.read().iter() {
            // One that is loaded, or loaded again, may be meant.
            let Place::Served(model) = place else { return Ok(()) };
            match model.admits() {
                Ok(()) => return Ok(()),
                refused => refusal = refusal.and(refused),
            }
        }
        refusal
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
        let places = std::mem::take(&mut *self.write());
        drop(places);
    }

    pub(crate) fn condition(&self) -> Condition {
        if self.draining() {
            return Condition::Draining;
        }
        for model in self.models() {
            let health = model.engine.health();
            if !health.alive {
                return Condition::Dead(format!("the engine of {} stopped: {}", model.id, death(health)));
            }
            if health.step.is_some_and(|s| s > self.wedged_after) {
                return Condition::Wedged(format!("a step of {} has lasted over {:?}", model.id, self.wedged_after));
            }
        }
        if let Some(Place::Lost { id, reason, .. }) = self.read().iter().find(|p| matches!(p, Place::Lost { .. })) {
            return Condition::Reloading(format!("{id} is being loaded again: {reason}"));
        }
        if self.loading.load(Ordering::Acquire) {
            return Condition::Loading;
        }
        match self.models().iter().find(|m| !m.engine.health().resident) {
            Some(model) => Condition::Arriving(format!("weights of {} are still being transferred", model.id)),
            None => Condition::Ready,
        }
    }
}
