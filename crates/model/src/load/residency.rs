//! Transfers of weights, and waiting for them.

use crate::ModelError;
use mlx_serving_device::{DeviceError, Encoder, Status};
use mlx_serving_metal_layer::Ticket;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Transfers that a part of the model waits for.
#[derive(Debug, Default)]
pub(crate) struct Residency {
    uploads: Vec<Upload>,
    /// True once all have succeeded: nothing is to be looked at any more.
    arrived: AtomicBool,
}

/// A transfer of weights.
#[derive(Debug)]
pub(super) struct Upload {
    pub tensor: String,
    pub path: PathBuf,
    pub ticket: Ticket,
}

impl Upload {
    /// True once it has ended well; its failure.
    pub(super) fn arrived(&self) -> Result<bool, ModelError> {
        match self.ticket.status() {
            _ if self.ticket.point.as_ref().is_some_and(|point| !point.reached()) => Ok(false),
            Status::Pending => Ok(false),
            Status::Completed => Ok(true),
            Status::Failed(source) => Err(self.failure(source)),
        }
    }

    fn wait(&self, limit: Duration) -> Result<(), ModelError> {
        let ended = self.ticket.point.as_ref().map_or(Ok(()), |point| point.wait(limit));
        ended.and_then(|()| self.ticket.wait(limit)).map_err(|source| self.failure(source))
    }

    fn failure(&self, error: DeviceError) -> ModelError {
        let why = match error {
            // Of the file's, not of a command's, where reading it has failed.
            DeviceError::CommandFailed(why) => why,
            other => other.to_string(),
        };
        ModelError::Upload { tensor: self.tensor.clone(), path: self.path.clone(), why }
    }
}

impl Residency {
    pub(super) fn new(uploads: Vec<Upload>) -> Self {
        Self { uploads, arrived: AtomicBool::new(false) }
    }

    /// Makes the ops that follow wait for what is not there yet.
    pub(crate) fn order(&self, encoder: &mut dyn Encoder) -> mlx_serving_device::Result<()> {
        if self.arrived.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.uploads.iter().try_for_each(|upload| upload.ticket.order(encoder))
    }

    /// True once all have succeeded; the first failure.
    pub(crate) fn arrived(&self) -> Result<bool, ModelError> {
        if !self.arrived.load(Ordering::Relaxed) {
            for upload in &self.uploads {
                if !upload.arrived()? {
                    return Ok(false);
                }
            }
            self.arrived.store(true, Ordering::Relaxed);
        }
        Ok(true)
    }

    /// Blocks until all have ended, at most `limit` for each; the first that failed.
    pub(crate) fn wait(&self, limit: Duration) -> Result<(), ModelError> {
        if self.arrived.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.uploads.iter().try_for_each(|upload| upload.wait(limit))?;
        self.arrived.store(true, Ordering::Relaxed);
        Ok(())
    }
}
