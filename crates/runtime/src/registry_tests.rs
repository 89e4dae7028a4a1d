use super::*;
use crate::embed::Embedder;
use crate::generate::{Card, Events};
use crate::prompt::{Input, Prepared, PromptError};
use crate::source::Source;
use mlx_serving_engine::{EngineError, Info, Request, Sampling};
use mlx_serving_grammar::Structure;
use mlx_serving_metal_layer::LayerStats;
use mlx_serving_metrics::Labeled;
use mlx_serving_text::Tokenizer;

/// A model that lives until it is told to die, and answers nothing.
#[derive(Debug)]
struct Mute {
    card: Card,
    dead: AtomicBool,
    draining: AtomicBool,
    tokenizer: Tokenizer,
}

fn mute(id: &str) -> Arc<Mute> {
    let info = Info { vocab: 1, max_context: 1, model_context: 1, kv_bytes: 0, max_live: 1, generates: true, width: 1 };
    let card = Card { id: id.into(), created: 0, info, defaults: Sampling::default(), embedder: Embedder::default() };
    let tokenizer = Tokenizer::from_dir(&Source::Bundled.here().unwrap().unwrap()).unwrap();
    Arc::new(Mute { card, tokenizer, dead: AtomicBool::default(), draining: AtomicBool::default() })
}

impl Generate for Mute {
    fn card(&self) -> &Card {
        &self.card
    }
    fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }
    fn prepare(&self, _: Input, _: Option<&Structure>, _: &mut dyn FnMut() -> bool) -> Result<Prepared, PromptError> {
        Ok(Prepared::default())
    }
    fn submit(&self, _: Vec<Request>) -> Result<Vec<Events>, EngineError> {
        Err(EngineError::Stopped("it is mute".into()))
    }
    fn health(&self) -> Health {
        let dead = self.dead.load(Ordering::Relaxed);
        let reason = dead.then(|| "unplugged".to_owned());
        Health { alive: !dead, step: None, heartbeat: 0, reason, resident: true }
    }
    fn live(&self) -> usize {
        0
    }
    fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
    fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
    fn stats(&self) -> LayerStats {
        unreachable!("nobody asks")
    }
    fn tell_metrics(&self, _: &mut Labeled<'_>) {}
}

fn registry(names: &[&str]) -> Registry {
    Registry::new(names.iter().map(|&name| name.to_owned()))
}

fn load(registry: &Registry, id: &str) {
    registry.load(id, || Ok(mute(id))).unwrap();
}

fn no_memory() -> RuntimeError {
    RuntimeError::DoesNotFit { model: "a".into(), reason: "weights 9 MiB".into() }
}

fn shrunk() -> RuntimeError {
    RuntimeError::Weights { model: "a".into(), reason: "w changed".into() }
}

#[test]
fn a_model_is_found_by_name_or_as_the_only_one() {
    let registry = registry(&["a"]);
    assert_eq!(registry.get(None).unwrap_err(), Unavailable::Loading { model: "a".into() });
    load(&registry, "a");
    assert_eq!(registry.get(None).unwrap().card().id, "a");
    load(&registry, "b");
    assert_eq!(registry.get(Some("b")).unwrap().card().id, "b");
    let models = || vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(registry.get(None).unwrap_err(), Unavailable::Unnamed { models: models() });
    assert_eq!(registry.get(Some("c")).unwrap_err(), Unavailable::Unknown { model: "c".into(), models: models() });
    assert_eq!(Registry::default().get(None).unwrap_err(), Unavailable::Empty);
}

#[test]
fn what_cannot_be_opened_says_why_and_may_be_tried_again() {
    let registry = registry(&["a"]);
    let error = registry.load("a", || Err(no_memory())).unwrap_err();
    assert!(matches!(error, RegistryError::Open(RuntimeError::DoesNotFit { .. })), "{error}");
    let Unavailable::Failed { reason, .. } = registry.get(Some("a")).unwrap_err() else { panic!("another state") };
    assert!(reason.contains("weights 9 MiB"), "{reason}");
    load(&registry, "a");
    assert!(registry.get(Some("a")).is_ok());
    let error = registry.load("a", || Ok(mute("a"))).unwrap_err();
    assert!(matches!(error, RegistryError::Loaded { .. }), "{error}");
}

#[test]
fn weights_that_were_being_written_to_are_to_be_loaded_again() {
    let registry = registry(&["a"]);
    registry.load("a", || Err(shrunk())).unwrap();
    let Unavailable::Reloading { reason, .. } = registry.get(Some("a")).unwrap_err() else { panic!("another state") };
    assert_eq!(reason, "its weights could not be loaded: w changed");
    let lost = registry.take_lost(0).unwrap();
    assert!(lost.id == "a" && lost.dead.is_none());
    assert!(registry.take_lost(0).is_none(), "somebody has it");
}

#[test]
fn a_slot_is_loaded_by_one_at_a_time() {
    let registry = registry(&["a"]);
    let mut second = None;
    let open = || {
        second = Some(registry.load("a", || Ok(mute("a"))));
        Ok(mute("a") as Arc<dyn Generate>)
    };
    registry.load("a", open).unwrap();
    assert!(matches!(second, Some(Err(RegistryError::Unavailable(Unavailable::Loading { .. })))), "{second:?}");
}

#[test]
fn a_dead_model_is_taken_out_once_and_put_back_alive() {
    let registry = registry(&[]);
    let model = mute("a");
    registry.add(model.clone());
    assert!(registry.take_lost(0).is_none(), "it lives");
    model.dead.store(true, Ordering::Relaxed);
    let lost = registry.take_lost(0).unwrap();
    assert_eq!(lost.reason, "its engine stopped: unplugged");
    assert!(lost.dead.is_some() && registry.take_lost(0).is_none());
    assert!(matches!(registry.get(Some("a")), Err(Unavailable::Reloading { .. })));
    assert!(registry.put_back(0, mute("a")));
    assert!(registry.get(Some("a")).unwrap().health().alive);
}

#[test]
fn an_unloaded_model_is_drained_and_may_be_loaded_again() {
    let registry = registry(&[]);
    load(&registry, "a");
    let model = registry.unload("a").unwrap();
    assert!(model.draining() && Arc::strong_count(&model) == 1, "its memory is the last holder's to free");
    assert!(matches!(&registry.states()[..], [(id, State::Unloaded(_))] if id == "a"));
    assert_eq!(registry.unload("a").unwrap_err(), Unavailable::Unloaded { model: "a".into() });
    assert!(registry.take_lost(0).is_none(), "nobody wants it back");
    load(&registry, "a");
    assert!(registry.get(Some("a")).is_ok());
}

#[test]
fn once_drained_nothing_is_loaded_or_loaded_again() {
    let registry = registry(&["a", "b"]);
    let model = mute("a");
    registry.add(model.clone());
    registry.drain();
    assert!(model.draining());
    model.dead.store(true, Ordering::Relaxed);
    assert!(registry.take_lost(0).is_none());
    assert!(!registry.put_back(0, mute("a")));
    let error = registry.load("b", || Ok(mute("b"))).unwrap_err();
    assert!(matches!(error, RegistryError::Closed { .. }), "{error}");
    registry.close();
    assert!(registry.ids().is_empty() && Arc::strong_count(&model) == 1);
}
