//! The models of a process: a slot for each, in which it is loaded, lost and loaded again, or unloaded.

use crate::error::RuntimeError;
use crate::generate::Generate;
use mlx_serving_engine::Health;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::SystemTime;

/// State of a model.
#[derive(Debug, Clone)]
pub enum State {
    /// It is being loaded.
    Loading,
    /// It answers.
    Ready(Arc<dyn Generate>),
    /// It was lost, and is or will be loaded again; the reason is a clause.
    Reloading(String),
    /// It was released then.
    Unloaded(SystemTime),
    /// It could not be loaded; the reason is a clause.
    Failed(String),
}

/// Reason for which no model answers to a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// There is no model of that name.
    #[error("there is no model {model:?}; there are {}", models.join(", "))]
    Unknown {
        /// The name.
        model: String,
        /// Names of all models.
        models: Vec<String>,
    },
    /// None was named, and there are several.
    #[error("name one of the models served here: {}", models.join(", "))]
    Unnamed {
        /// Their names.
        models: Vec<String>,
    },
    /// There are no models.
    #[error("no model is served yet")]
    Empty,
    /// It is being loaded.
    #[error("model {model} is being loaded")]
    Loading {
        /// Its name.
        model: String,
    },
    /// It was lost, and is loaded again.
    #[error("model {model} is being loaded again ({reason})")]
    Reloading {
        /// Its name.
        model: String,
        /// Reason for its loss, as a clause.
        reason: String,
    },
    /// It was released.
    #[error("model {model} is not loaded")]
    Unloaded {
        /// Its name.
        model: String,
    },
    /// It could not be loaded.
    #[error("model {model} could not be loaded: {reason}")]
    Failed {
        /// Its name.
        model: String,
        /// The reason, as a clause.
        reason: String,
    },
}

/// Reason for which a model is not loaded or not unloaded.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The model is not in a state to do so.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// It is loaded already.
    #[error("model {model} is loaded already")]
    Loaded {
        /// Its name.
        model: String,
    },
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] RuntimeError),
    /// No model is loaded any more.
    #[error("model {model} is not loaded, because this process is stopping")]
    Closed {
        /// Its name.
        model: String,
    },
}

/// The models of a process, in the order in which they were named.
#[derive(Debug, Default)]
pub struct Registry {
    slots: RwLock<Vec<Slot>>,
    draining: AtomicBool,
}

#[derive(Debug)]
struct Slot {
    id: String,
    /// Further names that it answers to.
    aliases: Vec<String>,
    state: State,
    /// True while somebody loads the lost model again.
    taken: bool,
}

/// A model that was taken out of its slot to be loaded again.
#[derive(Debug)]
pub(crate) struct Lost {
    pub id: String,
    /// Reason for its loss, as a clause.
    pub reason: String,
    /// The dead model itself, if there was one; requests that have not ended may hold it too.
    pub dead: Option<Arc<dyn Generate>>,
}

impl Slot {
    fn new(id: String, state: State, taken: bool) -> Self {
        Self { id, aliases: Vec::new(), state, taken }
    }

    fn names(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.id).chain(&self.aliases)
    }

    fn answers_to(&self, name: &str) -> bool {
        self.names().any(|own| own == name)
    }
}

impl Registry {
    /// Models of these names, that are going to be loaded.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let slot = |id| Slot::new(id, State::Loading, false);
        Self { slots: RwLock::new(names.into_iter().map(slot).collect()), draining: AtomicBool::new(false) }
    }

    /// Loads a model with `open` into the slot of that name, or into a new one. One whose weights were being written to meanwhile is to be
    /// loaded again, as one that was lost is.
    ///
    /// # Errors
    /// It is there already; it cannot be opened; all are drained.
    pub fn load(
        &self,
        id: &str,
        open: impl FnOnce() -> Result<Arc<dyn Generate>, RuntimeError>,
    ) -> Result<(), RegistryError> {
        self.begin(id)?;
        let (state, outcome) = match open() {
            Ok(model) => (State::Ready(model), Ok(())),
            Err(RuntimeError::Weights { reason, .. }) => {
                (State::Reloading(format!("its weights could not be loaded: {reason}")), Ok(()))
            }
            Err(error) => (State::Failed(error.to_string()), Err(error.into())),
        };
        if !self.put(id, state) {
            return outcome.and(Err(RegistryError::Closed { model: id.to_owned() }));
        }
        outcome
    }

    /// Marks a slot as loading, unless there is a model in it or on its way there.
    fn begin(&self, id: &str) -> Result<(), RegistryError> {
        let mut slots = self.write();
        let model = id.to_owned();
        if self.draining() {
            return Err(RegistryError::Closed { model });
        }
        match slots.iter_mut().find(|slot| slot.id == id) {
            None => slots.push(Slot::new(model, State::Loading, true)),
            Some(slot) => match &slot.state {
                State::Ready(_) => return Err(RegistryError::Loaded { model }),
                State::Loading if slot.taken => return Err(Unavailable::Loading { model }.into()),
                State::Reloading(reason) => {
                    return Err(Unavailable::Reloading { model, reason: reason.clone() }.into());
                }
                State::Loading | State::Unloaded(_) | State::Failed(_) => {
                    (slot.state, slot.taken) = (State::Loading, true);
                }
            },
        }
        Ok(())
    }

    /// Takes a model that answers out of its slot. It ends, and its memory is free, once the last of its requests has ended and the
    /// returned reference is dropped; new requests are refused.
    ///
    /// # Errors
    /// It does not answer now.
    pub fn unload(&self, id: &str) -> Result<Arc<dyn Generate>, Unavailable> {
        let model = self.get(Some(id))?;
        let mut slots = self.write();
        // Who comes second finds it gone.
        let slot =
            slots.iter_mut().find(|slot| matches!(&slot.state, State::Ready(ready) if Arc::ptr_eq(ready, &model)));
        let slot = slot.ok_or_else(|| Unavailable::Unloaded { model: id.to_owned() })?;
        slot.state = State::Unloaded(SystemTime::now());
        model.drain();
        Ok(model)
    }

    /// Puts a model that answers into the slot of its name, or into a new one, unless all are drained.
    pub fn add(&self, model: Arc<dyn Generate>) {
        let id = model.card().id.clone();
        self.put(&id, State::Ready(model));
    }

    /// Adds a model that has to be loaded again before it answers, unless all are drained; `reason` is a clause.
    pub fn add_lost(&self, id: &str, reason: String) {
        self.put(id, State::Reloading(reason));
    }

    /// False if all are drained, which drops the state.
    fn put(&self, id: &str, state: State) -> bool {
        let mut slots = self.write();
        // Under the lock: whoever drains finds the model, or it is not put there.
        if self.draining() {
            return false;
        }
        match slots.iter_mut().find(|slot| slot.id == id) {
            Some(slot) => (slot.state, slot.taken) = (state, false),
            None => slots.push(Slot::new(id.to_owned(), state, false)),
        }
        true
    }

    /// Has the model of that name answer to another name too.
    pub fn alias(&self, id: &str, name: String) {
        if let Some(slot) = self.write().iter_mut().find(|slot| slot.id == id) {
            slot.aliases.push(name);
        }
    }

    /// The model of that name; the only one that there is where none is named.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub fn get(&self, name: Option<&str>) -> Result<Arc<dyn Generate>, Unavailable> {
        let slots = self.read();
        let models = || slots.iter().flat_map(Slot::names).cloned().collect();
        let slot = match (name, &slots[..]) {
            (Some(name), all) => all
                .iter()
                .find(|slot| slot.answers_to(name))
                .ok_or_else(|| Unavailable::Unknown { model: name.to_owned(), models: models() })?,
            (None, [only]) => only,
            (None, []) => return Err(Unavailable::Empty),
            (None, _) => return Err(Unavailable::Unnamed { models: models() }),
        };
        let model = slot.id.clone();
        match &slot.state {
            State::Ready(model) => Ok(model.clone()),
            State::Loading => Err(Unavailable::Loading { model }),
            State::Reloading(reason) => Err(Unavailable::Reloading { model, reason: reason.clone() }),
            State::Unloaded(_) => Err(Unavailable::Unloaded { model }),
            State::Failed(reason) => Err(Unavailable::Failed { model, reason: reason.clone() }),
        }
    }

    /// Forgets a name that no model answers to, such as one that could not be loaded.
    pub fn forget(&self, id: &str) {
        self.write().retain(|slot| slot.id != id || matches!(slot.state, State::Ready(_) | State::Loading));
    }

    /// Names and states of all models, in order.
    pub fn states(&self) -> Vec<(String, State)> {
        self.read().iter().map(|slot| (slot.id.clone(), slot.state.clone())).collect()
    }

    /// The models that answer now, in order.
    pub fn models(&self) -> Vec<Arc<dyn Generate>> {
        let ready = |slot: &Slot| match &slot.state {
            State::Ready(model) => Some(model.clone()),
            _ => None,
        };
        self.read().iter().filter_map(ready).collect()
    }

    /// The models that answer now, in order, each under every name that it answers to, the first of them its own.
    pub fn named(&self) -> Vec<(String, Arc<dyn Generate>)> {
        let named = |slot: &Slot| match &slot.state {
            State::Ready(model) => slot.names().map(|name| (name.clone(), model.clone())).collect(),
            _ => Vec::new(),
        };
        self.read().iter().flat_map(named).collect()
    }

    /// Names of all models, in order.
    pub fn ids(&self) -> Vec<String> {
        self.read().iter().map(|slot| slot.id.clone()).collect()
    }

    /// Takes the model out of a slot if it has to be loaded again, unless all are drained.
    pub(crate) fn take_lost(&self, slot: usize) -> Option<Lost> {
        let mut slots = self.write();
        let slot = slots.get_mut(slot).filter(|slot| !slot.taken && !self.draining())?;
        let (reason, dead) = match &slot.state {
            State::Ready(model) => {
                let health = model.health();
                if health.alive {
                    return None;
                }
                (format!("its engine stopped: {}", death(health)), Some(model.clone()))
            }
            State::Reloading(reason) => (reason.clone(), None),
            _ => return None,
        };
        (slot.state, slot.taken) = (State::Reloading(reason.clone()), true);
        Some(Lost { id: slot.id.clone(), reason, dead })
    }

    /// Puts a model that was loaded again into the slot that it was taken from; false if all are drained.
    pub(crate) fn put_back(&self, slot: usize, model: Arc<dyn Generate>) -> bool {
        let mut slots = self.write();
        if self.draining() {
            return false;
        }
        let slot = slots.get_mut(slot);
        slot.map(|slot| (slot.state, slot.taken) = (State::Ready(model), false)).is_some()
    }

    /// Refuses new requests and new models; requests that were accepted go on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.models().iter().for_each(|model| model.drain());
    }

    /// True if it refuses new requests and new models.
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Releases all models, those too that are still to come.
    pub fn close(&self) {
        self.drain();
        let slots = std::mem::take(&mut *self.write());
        drop(slots);
    }

    fn read(&self) -> RwLockReadGuard<'_, Vec<Slot>> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<Slot>> {
        self.slots.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reason for an engine's death, as a clause.
pub fn death(health: Health) -> String {
    health.reason.unwrap_or_else(|| "its thread has ended".into())
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
