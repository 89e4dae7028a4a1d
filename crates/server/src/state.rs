use crate::admission::{Admission, Unread};
use crate::error::ApiError;
use crate::limits::Limits;
use crate::middleware::observe::Observed;
use crate::middleware::origin::Origins;
use mlx_serving_engine::{EngineError, Health};
use mlx_serving_runtime::Generate;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
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
    /// In the order of the command line.
    slots: RwLock<Vec<Slot>>,
    loading: AtomicBool,
    draining: AtomicBool,
    /// Requests whose answers are not out.
    pub(crate) flights: Arc<AtomicUsize>,
    /// Becomes true when the time to end is over.
    pub(crate) cut_off: watch::Sender<bool>,
    pub(crate) limits: Limits,
    pub(crate) admission: Admission,
    pub(crate) unread: Unread,
    pub(crate) origins: Arc<Origins>,
    /// The answers so far.
    pub(crate) observed: Arc<Observed>,
    /// A step that lasts longer means that the engine is wedged.
    wedged_after: Duration,
    /// Longest body taken, bytes.
    pub(crate) body_limit: usize,
}

/// A model that is to be served.
#[derive(Debug, Clone)]
enum Slot {
    /// Its name.
    Loading(String),
    Served(Arc<dyn Generate>),
    /// It has to be loaded again, and why, as a clause; `taken` by somebody who does so.
    Lost {
        id: String,
        reason: String,
        taken: bool,
    },
}

impl Slot {
    fn id(&self) -> &str {
        match self {
            Slot::Served(model) => &model.card().id,
            Slot::Loading(id) | Slot::Lost { id, .. } => id,
        }
    }
}

/// A model that was taken out of its slot to be loaded again.
pub(crate) struct LostModel {
    pub id: String,
    /// Reason for its loss, as a clause.
    pub reason: String,
    /// The dead model itself, if there was one; requests that have not ended may hold it too.
    pub dead: Option<Arc<dyn Generate>>,
}

/// Reason for an engine's death, as a clause.
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
            slots: RwLock::new(settings.names.into_iter().map(Slot::Loading).collect()),
            loading: AtomicBool::new(true),
            draining: AtomicBool::new(false),
            flights: Arc::default(),
            cut_off: watch::Sender::new(false),
            admission: Admission::new(&settings.limits),
            unread: Unread::new(settings.limits.answer, settings.limits.unread),
            origins: Arc::new(Origins::new(&settings.allowed_hosts, &settings.cors_origins)),
            observed: Arc::default(),
            limits: settings.limits,
            wedged_after: settings.wedged_after,
            body_limit: settings.body_limit,
        })
    }

    /// Adds a model, unless the server is stopping.
    pub fn add(&self, model: Arc<dyn Generate>) {
        self.fill(Slot::Served(model));
    }

    /// Adds a model that has to be loaded again before it is served; `reason` is a clause.
    pub fn add_lost(&self, id: String, reason: String) {
        self.fill(Slot::Lost { id, reason, taken: false });
    }

    /// Puts a model into the slot that was kept for it, else behind the others.
    fn fill(&self, model: Slot) {
        let mut slots = self.write();
        if self.draining() {
            return;
        }
        match slots.iter_mut().find(|slot| slot.id() == model.id()) {
            Some(slot) => *slot = model,
            None => slots.push(model),
        }
    }

    /// All models are there.
    pub fn loaded(&self) {
        self.loading.store(false, Ordering::Release);
    }

    /// The models that are served now, in the order of the command line.
    pub fn models(&self) -> Vec<Arc<dyn Generate>> {
        let served = |slot: &Slot| match slot {
            Slot::Served(model) => Some(model.clone()),
            Slot::Loading(_) | Slot::Lost { .. } => None,
        };
        self.read().iter().filter_map(served).collect()
    }

    /// Names of all models, in the order of the command line.
    pub fn ids(&self) -> Vec<String> {
        self.read().iter().map(|slot| slot.id().to_owned()).collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, Vec<Slot>> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<Slot>> {
        self.slots.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the model out of a slot if it has to be loaded again, unless the server is draining.
    pub(crate) fn take_lost(&self, slot: usize) -> Option<LostModel> {
        let mut slots = self.write();
        let slot = slots.get_mut(slot)?;
        let lost = match slot {
            Slot::Served(model) if !model.health().alive && !self.draining() => {
                let reason = format!("its engine stopped: {}", death(model.health()));
                LostModel { id: model.card().id.clone(), reason, dead: Some(model.clone()) }
            }
            Slot::Lost { id, reason, taken: false } => LostModel { id: id.clone(), reason: reason.clone(), dead: None },
            _ => return None,
        };
        *slot = Slot::Lost { id: lost.id.clone(), reason: lost.reason.clone(), taken: true };
        Some(lost)
    }

    /// Puts a model that was loaded again into the slot that it was taken from; false if the server is draining.
    pub(crate) fn put_back(&self, slot: usize, model: Arc<dyn Generate>) -> bool {
        let mut slots = self.write();
        // Under the lock: whoever drains finds the model, or it is not put back.
        if self.draining() {
            return false;
        }
        let slot = slots.get_mut(slot);
        slot.map(|slot| *slot = Slot::Served(model)).is_some()
    }

    /// The model of that name; the only one that is configured when the request names none.
    pub(crate) fn model(&self, name: Option<&str>) -> Result<Arc<dyn Generate>, ApiError> {
        let slots = self.read();
        let ids = || slots.iter().map(Slot::id).collect::<Vec<_>>();
        let slot = match name {
            Some(name) => slots.iter().find(|p| p.id() == name).ok_or_else(|| ApiError::unknown_model(name, &ids()))?,
            None => match &slots[..] {
                [only] => only,
                [] => return Err(ApiError::nothing_served()),
                _ => {
                    let message = format!("name one of the models served here: {}", ids().join(", "));
                    return Err(ApiError::invalid("model", message));
                }
            },
        };
        match slot {
            Slot::Loading(id) => Err(ApiError::loading(id)),
            Slot::Served(model) => Ok(model.clone()),
            Slot::Lost { id, reason, .. } => Err(ApiError::reloading(id, reason)),
        }
    }

    /// The first model that is configured.
    pub(crate) fn first(&self) -> Result<Arc<dyn Generate>, ApiError> {
        self.model(self.ids().first().map(String::as_str))
    }

    /// Refuses requests before they are read, where no model could serve them.
    pub(crate) fn admits(&self) -> Result<(), ApiError> {
        if self.draining() {
            return Err(ApiError::draining());
        }
        self.unread.check()?;
        let mut refusal = Ok(());
        for slot in self.read().iter() {
            // One that is loaded, or loaded again, may be meant.
            let Slot::Served(model) = slot else { return Ok(()) };
            match admits(&**model) {
                Ok(()) => return Ok(()),
                refused => refusal = refusal.and(refused),
            }
        }
        refusal
    }

    /// Refuses new requests; those accepted go on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.models().iter().for_each(|m| m.drain());
    }

    /// It refuses new requests.
    pub(crate) fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Requests whose answers are not out to the last byte.
    pub fn live(&self) -> usize {
        self.flights.load(Ordering::Acquire)
    }

    /// Releases all models, those too that are still to come.
    pub fn close(&self) {
        self.drain();
        let slots = std::mem::take(&mut *self.write());
        drop(slots);
    }

    pub(crate) fn condition(&self) -> Condition {
        if self.draining() {
            return Condition::Draining;
        }
        let (mut lost, mut transferring) = (None, None);
        for slot in self.read().iter() {
            let model = match slot {
                Slot::Served(model) => model,
                Slot::Loading(_) => continue,
                Slot::Lost { id, reason, .. } => {
                    lost = lost.or_else(|| Some(format!("{id} is being loaded again: {reason}")));
                    continue;
                }
            };
            let health = model.health();
            if !health.alive {
                return Condition::Dead(format!("the engine of {} stopped: {}", model.card().id, death(health)));
            }
            if health.step.is_some_and(|s| s > self.wedged_after) {
                return Condition::Wedged(format!(
                    "a step of {} has lasted over {:?}",
                    model.card().id,
                    self.wedged_after
                ));
            }
            if !health.resident {
                transferring = transferring
                    .or_else(|| Some(format!("weights of {} are still being transferred", model.card().id)));
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
