use mlx_serving_device::{Buffer, Result};
use std::sync::{Mutex, PoisonError};

/// Alignment of what is given, and the least that is allocated.
const ALIGN: u64 = 256;
const LEAST: u64 = 1 << 20;

/// Allocates so many bytes of device memory.
type Allocate = Box<dyn Fn(u64) -> Result<Buffer> + Send + Sync>;

/// Memory that lives until an op's last launch. Ops of a queue run in order, so every op is given the same bytes.
pub struct Scratch {
    allocate: Allocate,
    /// The largest piece so far; earlier ones live on in the launches that use them.
    piece: Mutex<Option<Buffer>>,
}

impl Scratch {
    /// Grows by what `allocate` gives.
    pub fn new(allocate: impl Fn(u64) -> Result<Buffer> + Send + Sync + 'static) -> Self {
        Self { allocate: Box::new(allocate), piece: Mutex::default() }
    }

    /// Lowers one op: `lower` may ask for room, every time for bytes of its own.
    ///
    /// # Errors
    /// Errors of `lower`, among them those of allocating.
    pub fn for_op<T>(&self, lower: impl FnOnce(&mut dyn FnMut(u64) -> Result<Buffer>) -> Result<T>) -> Result<T> {
        let mut piece = self.piece.lock().unwrap_or_else(PoisonError::into_inner);
        let mut at = 0;
        lower(&mut |len| {
            let whole = match piece.take().filter(|piece| at + len <= piece.len()) {
                Some(whole) => whole,
                None => {
                    // What the op has already stays in the old piece.
                    let need = (at + len).next_power_of_two().max(LEAST);
                    at = 0;
                    (self.allocate)(need)?
                }
            };
            let start = at;
            at = (at + len).next_multiple_of(ALIGN);
            piece.insert(whole).slice(start..start + len)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlx_serving_device::fake::{FakeDevice, FakeOptions};
    use mlx_serving_device::{Device, Storage};

    #[test]
    fn an_op_has_bytes_of_its_own_and_the_next_has_them_again() {
        let device = FakeDevice::new(FakeOptions::default()).unwrap();
        let allocator = device.clone();
        let scratch = Scratch::new(move |len| allocator.new_buffer(len, Storage::Private));
        let take = |lens: &[u64]| {
            scratch.for_op(|room| lens.iter().map(|len| room(*len)).collect::<Result<Vec<_>>>()).unwrap()
        };
        let first = take(&[100, 5000, 1]);
        assert!(!first[0].overlaps(&first[1]) && !first[1].overlaps(&first[2]));
        assert!(take(&[100])[0].overlaps(&first[0]), "ops share");
        let grown = take(&[LEAST, LEAST]);
        assert!(!grown[0].overlaps(&grown[1]) && grown.iter().all(|buffer| buffer.len() == LEAST));
        take(&[LEAST, LEAST]);
        assert_eq!(device.counters().allocations, 2, "grown once, for all that come after");
    }
}
