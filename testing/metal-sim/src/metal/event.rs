//! `MTLSharedEvent`: a counter that queues and the host wait for and raise.

use super::hazards::{self, Clock};
use super::in_use::Uses;
use super::object::SimObject;
use super::worker;
use crate::runtime::lock;
use crate::{faults, rules};
use block2::RcBlock;
use objc2::rc::{Allocated, Retained, autoreleasepool};
use objc2::runtime::{NSObject, NSObjectProtocol, ProtocolObject};
use objc2::{DefinedClass, Message, define_class, msg_send};
use objc2_metal::{MTLEvent, MTLSharedEvent, MTLSharedEventListener, MTLSharedEventNotificationBlock};
use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Number of past signals that are told apart; a wait for an older one is taken as a wait for the oldest of these.
const REMEMBERED: usize = 1024;
/// Interval at which a waiting queue checks whether the device is lost.
const POLL: Duration = Duration::from_millis(5);

#[derive(Default)]
struct Counter {
    value: u64,
    /// Past signals by rising value, each with what was complete once the value was reached.
    signals: VecDeque<(u64, Clock)>,
    listeners: Vec<(u64, Listener)>,
}

type Notification = dyn Fn(NonNull<ProtocolObject<dyn MTLSharedEvent>>, u64);

/// A block to be called, with the event it was registered on.
struct Listener {
    event: Retained<SimEvent>,
    block: RcBlock<Notification>,
}

// SAFETY: the event is Send, and the caller's block must be callable from the listener's queue.
unsafe impl Send for Listener {}

/// The counter, shared with the commands that use it.
#[derive(Default)]
pub(crate) struct EventCounter {
    counter: Mutex<Counter>,
    raised: Condvar,
}

impl EventCounter {
    /// Raises the counter; what `clock` knows is complete by then.
    pub(crate) fn signal(&self, value: u64, clock: Clock, call: &str) {
        let mut counter = lock(&self.counter);
        let current = counter.value;
        if value <= current {
            drop(counter);
            return rules::require(value == current, call, || format!("{value} takes an event back from {current}"));
        }
        let mut complete = counter.signals.back().map(|(_, clock)| clock.clone()).unwrap_or_default();
        complete.join(&clock);
        counter.value = value;
        counter.signals.push_back((value, complete));
        if counter.signals.len() > REMEMBERED {
            counter.signals.pop_front();
        }
        let (due, later) = std::mem::take(&mut counter.listeners).into_iter().partition(|(at, _)| *at <= value);
        counter.listeners = later;
        self.raised.notify_all();
        drop(counter);
        for (_, listener) in due {
            notify(listener, value);
        }
    }

    /// Waits on a queue's behalf. Fails only when the device is lost.
    pub(crate) fn wait(&self, value: u64) -> Result<Clock, String> {
        let mut counter = lock(&self.counter);
        while counter.value < value {
            if faults::is_lost() {
                return Err(format!("device lost while waiting for {value} of an event at {}", counter.value));
            }
            counter = self.raised.wait_timeout(counter, POLL).unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        Ok(complete_at(&counter, value))
    }

    fn host_wait(&self, value: u64, limit: Duration) -> bool {
        let end = Instant::now().checked_add(limit);
        let mut counter = lock(&self.counter);
        while counter.value < value {
            let left = end.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return false;
            }
            counter = self.raised.wait_timeout(counter, left).unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        hazards::host_saw(&complete_at(&counter, value));
        true
    }
}

/// Steps that were complete when the counter reached `value`.
fn complete_at(counter: &Counter, value: u64) -> Clock {
    let first = counter.signals.iter().find(|(at, _)| *at >= value);
    first.map(|(_, clock)| clock.clone()).unwrap_or_default()
}

fn notify(listener: Listener, value: u64) {
    worker::spawn("notification", move || {
        let Listener { event, block } = { listener };
        autoreleasepool(|_| {
            let event: &ProtocolObject<dyn MTLSharedEvent> = ProtocolObject::from_ref(&*event);
            block.call((NonNull::from(event), value));
        });
    });
}

/// Instance variables of an event.
#[derive(Default)]
pub(crate) struct EventState {
    pub(crate) counter: Arc<EventCounter>,
    pub(crate) uses: Uses,
}

impl Drop for EventState {
    fn drop(&mut self) {
        self.uses.must_be_over("an event");
    }
}

define_class!(
    // SAFETY: SimObject has no requirements for subclasses.
    #[unsafe(super(SimObject, NSObject))]
    #[name = "SimEvent"]
    #[ivars = EventState]
    pub(crate) struct SimEvent;

    // SAFETY: NSObject implements it.
    unsafe impl NSObjectProtocol for SimEvent {}

    // SAFETY: the methods have the protocol's signatures, here and below.
    unsafe impl MTLEvent for SimEvent {}

    // SAFETY: as above.
    unsafe impl MTLSharedEvent for SimEvent {
        #[unsafe(method(signaledValue))]
        fn signaled_value(&self) -> u64 {
            let counter = lock(&self.ivars().counter.counter);
            hazards::host_saw(&complete_at(&counter, counter.value));
            counter.value
        }

        #[unsafe(method(setSignaledValue:))]
        fn set_signaled_value(&self, value: u64) {
            self.ivars().counter.signal(value, hazards::host(), "-[MTLSharedEvent setSignaledValue:]");
        }

        #[unsafe(method(waitUntilSignaledValue:timeoutMS:))]
        fn wait_until(&self, value: u64, milliseconds: u64) -> bool {
            self.ivars().counter.host_wait(value, Duration::from_millis(milliseconds))
        }

        #[unsafe(method(notifyListener:atValue:block:))]
        fn notify(&self, _listener: &MTLSharedEventListener, value: u64, block: MTLSharedEventNotificationBlock) {
            // SAFETY: the caller passes a block.
            let Some(block) = (unsafe { RcBlock::copy(block) }) else { return };
            let listener = Listener { event: self.retain(), block };
            let mut counter = lock(&self.ivars().counter.counter);
            if counter.value < value {
                return counter.listeners.push((value, listener));
            }
            let value = counter.value;
            drop(counter);
            notify(listener, value);
        }
    }
);

// SAFETY: the instance variables are synchronized.
unsafe impl Send for SimEvent {}
// SAFETY: as above.
unsafe impl Sync for SimEvent {}

define_class!(
    // SAFETY: NSObject has no requirements for subclasses.
    #[unsafe(super(NSObject))]
    #[name = "MTLSharedEventListener"]
    #[ivars = ()]
    pub(crate) struct SimListener;

    impl SimListener {
        #[unsafe(method_id(init))]
        fn init(this: Allocated<Self>) -> Option<Retained<Self>> {
            let this = this.set_ivars(());
            // SAFETY: NSObject's init.
            unsafe { msg_send![super(this), init] }
        }

        #[unsafe(method_id(sharedListener))]
        fn shared() -> Retained<Self> {
            crate::foundation::make!(Self, ())
        }
    }
);
