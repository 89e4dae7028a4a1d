//! Values that only the process that made them may use: a forked child has none of the threads that they stand on.

use crate::error::{Code, Error};
use std::process;

/// A value of one process. Dropped in another, it is forgotten: its threads are not there to end, and its locks may be held forever.
#[derive(Debug)]
pub(crate) struct Own<T> {
    value: Option<T>,
    process: u32,
}

impl<T> Own<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: Some(value), process: process::id() }
    }

    /// The value.
    ///
    /// # Errors
    /// This is not the process that made it.
    pub(crate) fn get(&self) -> Result<&T, Error> {
        self.value.as_ref().filter(|_| self.is_here()).ok_or_else(elsewhere)
    }

    pub(crate) fn get_mut(&mut self) -> Result<&mut T, Error> {
        let here = self.is_here();
        self.value.as_mut().filter(|_| here).ok_or_else(elsewhere)
    }

    fn is_here(&self) -> bool {
        self.process == process::id()
    }
}

impl<T> Drop for Own<T> {
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            if self.is_here() {
                drop(value);
            } else {
                std::mem::forget(value);
            }
        }
    }
}

fn elsewhere() -> Error {
    Error::new(
        Code::Disposed,
        "this engine belongs to the process that this one was forked from, and its threads stayed there; create an engine after the \
         fork, or start the process with spawn instead of fork",
    )
}
