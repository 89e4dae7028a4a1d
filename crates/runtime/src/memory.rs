//! Memory that the open models take: one budget over all of them.

use mlx_serving_device::Device;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Memory of models, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Bytes of their device's own memory.
    pub device: u64,
    /// Bytes of the host's.
    pub host: u64,
}

/// Memory that the open models take. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<Vec<Entry>>>);

#[derive(Debug)]
struct Entry {
    model: String,
    /// Address of its device: a number for as long as the entry lasts, for its model holds the device.
    device: usize,
    taken: Taken,
    /// The same for no other entry.
    reservation: Arc<()>,
}

impl Ledger {
    /// Reserves what `decide` says, given what all other models take: of the same device, and of the host. Another model of the same name
    /// is one that this takes the place of, and does not count.
    pub(crate) fn reserve<T, E>(
        &self,
        model: &str,
        device: &Arc<dyn Device>,
        decide: impl FnOnce(Taken) -> Result<(Taken, T), E>,
    ) -> Result<(Reservation, T), E> {
        let device = Arc::as_ptr(device).addr();
        // Held meanwhile: nobody else decides by what is about to change.
        let mut entries = self.entries();
        let mut others = Taken::default();
        for entry in entries.iter().filter(|entry| entry.model != model) {
            others.host += entry.taken.host;
            others.device += if entry.device == device { entry.taken.device } else { 0 };
        }
        let (taken, decided) = decide(others)?;
        let reservation = Arc::new(());
        entries.push(Entry { model: model.to_owned(), device, taken, reservation: reservation.clone() });
        Ok((Reservation { ledger: self.clone(), reservation }, decided))
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Memory of one model in a ledger, until this is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    ledger: Ledger,
    reservation: Arc<()>,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.ledger.entries().retain(|entry| !Arc::ptr_eq(&entry.reservation, &self.reservation));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlx_serving_device::fake::{FakeDevice, FakeOptions};

    fn device() -> Arc<dyn Device> {
        FakeDevice::new(FakeOptions::default()).unwrap()
    }

    fn reserve(ledger: &Ledger, model: &str, device: &Arc<dyn Device>) -> (Reservation, Taken) {
        let taken = Taken { device: 10, host: 1 };
        ledger.reserve(model, device, |others| Ok::<_, ()>((taken, others))).unwrap()
    }

    #[test]
    fn others_count_until_they_are_dropped_and_on_a_device_those_that_share_it() {
        let (ledger, one, two) = (Ledger::default(), device(), device());
        let (a, before_a) = reserve(&ledger, "a", &one);
        let (_b, before_b) = reserve(&ledger, "b", &two);
        let (_c, before_c) = reserve(&ledger, "c", &one);
        assert_eq!(before_a, Taken::default());
        assert_eq!(before_b, Taken { device: 0, host: 1 });
        assert_eq!(before_c, Taken { device: 10, host: 2 });
        drop(a);
        assert_eq!(reserve(&ledger, "d", &one).1, Taken { device: 10, host: 2 });
    }

    #[test]
    fn a_model_does_not_count_against_the_one_that_takes_its_place() {
        let (ledger, device) = (Ledger::default(), device());
        let (dead, _) = reserve(&ledger, "a", &device);
        let (_alive, others) = reserve(&ledger, "a", &device);
        assert_eq!(others, Taken::default());
        drop(dead);
        assert_eq!(reserve(&ledger, "b", &device).1, Taken { device: 10, host: 1 }, "the second is still there");
    }

    #[test]
    fn what_is_refused_takes_nothing() {
        let (ledger, device) = (Ledger::default(), device());
        assert!(ledger.reserve("a", &device, |_| Err::<(Taken, ()), _>("no")).is_err());
        assert_eq!(reserve(&ledger, "b", &device).1, Taken::default());
    }
}
