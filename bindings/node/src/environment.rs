//! State of one Node.js environment (a thread with an event loop): what wakes the loop, and the engines that end with it.

use mlx_serving_bindings as bindings;
use napi::bindgen_prelude::{Env, Function};
use napi::threadsafe_function::ThreadsafeFunctionCallMode::NonBlocking;
use napi_derive::napi;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

/// Longest time that an environment's end waits for an engine to release its memory. Steps take milliseconds; a model that is being
/// read from a slow disk takes longer, and then the process or the thread ends without it. Not measured.
const GRACE: Duration = Duration::from_secs(5);

/// Engines of an environment that have not been dropped.
type Engines = Rc<RefCell<Vec<Weak<bindings::Engine>>>>;

/// Waker of an event loop and owner of the engines that were created there.
#[napi]
pub struct Environment {
    pub(crate) mailbox: Arc<bindings::Mailbox>,
    engines: Engines,
}

#[napi]
impl Environment {
    /// An environment whose loop calls `wake` once anything that it waits for has come, and not again before [`Self::rearm`]. By itself
    /// that keeps no process alive.
    #[napi(constructor)]
    pub fn new(env: Env, wake: Function<'_, (), ()>) -> napi::Result<Self> {
        let wake = wake.build_threadsafe_function::<()>().weak::<true>().build()?;
        let mailbox = bindings::Mailbox::new(move || {
            // An environment that has ended has nobody to wake.
            let _ = wake.call((), NonBlocking);
        });
        let engines = Engines::default();
        env.add_env_cleanup_hook(engines.clone(), |engines| end_all(&engines))?;
        Ok(Self { mailbox, engines })
    }

    /// Says that the loop looks now: what comes from here on wakes it again.
    #[napi]
    pub fn rearm(&self) {
        self.mailbox.rearm();
    }

    /// Times that the loop was woken.
    #[napi]
    pub fn wakes(&self) -> f64 {
        self.mailbox.wakes() as f64
    }
}

impl Environment {
    /// Takes care that an engine ends with the environment.
    pub(crate) fn own(&self, engine: &Arc<bindings::Engine>) {
        let mut engines = self.engines.borrow_mut();
        engines.retain(|engine| engine.strong_count() > 0);
        engines.push(Arc::downgrade(engine));
    }
}

/// Disposes of an engine on another thread, so that no event loop waits for a step, and runs `then`.
pub(crate) fn end(engine: Arc<bindings::Engine>, then: impl FnOnce() + Send + 'static) {
    // Where no thread can be started, the engine ends with the process.
    let _ = thread::Builder::new().name("mlx-serving-end".into()).spawn(move || {
        engine.dispose();
        then();
    });
}

/// Disposes of the engines that are left, so that none computes or frees memory while the process or the thread is torn down.
fn end_all(engines: &Engines) {
    let (ended, all) = channel();
    let left: Vec<_> = engines.take().into_iter().filter_map(|engine| engine.upgrade()).collect();
    for engine in &left {
        let ended = ended.clone();
        end(engine.clone(), move || {
            let _ = ended.send(());
        });
    }
    drop(ended);
    for _ in &left {
        if all.recv_timeout(GRACE).is_err() {
            return;
        }
    }
}
