//! Work on bodies and answers, by as many threads as there are cores.

use super::answers::Charge;
use super::budget::{Budget, Share};
use crate::error::ApiError;
use crate::limits::Limits;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes up to which work is light: done without waiting for the heavy.
const LIGHT: usize = 64 << 10;

/// Bounds of bodies and of the work on them.
#[derive(Debug)]
pub(crate) struct Admission {
    bytes: Arc<Budget>,
    heavy: Arc<Semaphore>,
    light: Arc<Semaphore>,
}

impl Admission {
    pub(crate) fn new(limits: &Limits) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let of_cores = || Arc::new(Semaphore::new(cores));
        Self { bytes: Budget::new(limits.bodies), heavy: of_cores(), light: of_cores() }
    }

    /// Permit to work on `bytes` of something, in turn.
    async fn permit(&self, bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        let of = if bytes > LIGHT { &self.heavy } else { &self.light };
        of.clone().acquire_owned().await.map_err(|e| ApiError::internal(e.to_string()))
    }

    /// Bytes of a body that is read, none so far.
    pub(crate) fn share(&self) -> Share {
        self.bytes.share()
    }

    /// Permit to work on a body that has come, of so many bytes, which hold that share.
    pub(crate) async fn begin(&self, share: Share, bytes: usize) -> Result<WorkPermit, ApiError> {
        let permit = self.permit(bytes).await?;
        Ok(WorkPermit(Arc::new(Held { _bytes: share, _permit: permit, light: bytes <= LIGHT })))
    }

    /// Builds an answer of about so many bytes: here if that is light, else off the runtime's threads.
    async fn build<T: Send + 'static>(
        &self,
        bytes: usize,
        build: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        if bytes <= LIGHT {
            return Ok(build());
        }
        let permit = self.permit(bytes).await?;
        let build = move || (build(), permit);
        let built = tokio::task::spawn_blocking(build).await;
        built.map(|(built, _)| built).map_err(|e| ApiError::internal(format!("writing the answer failed: {e}")))
    }

    /// A whole answer as JSON: built off the runtime's threads where it is long, and counted until its last byte is out.
    ///
    /// # Errors
    /// 500 if building it panics.
    pub(crate) async fn whole<T: Serialize + Send + 'static>(
        &self,
        charge: Arc<Charge>,
        build: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Response, ApiError> {
        let bytes = self.build(charge.bytes(), move || serde_json::to_vec(&build())).await?;
        let bytes = bytes.map_err(|e| ApiError::internal(format!("the answer could not be written: {e}")))?;
        charge.settle(bytes.len());
        let mut response = ([(CONTENT_TYPE, "application/json")], bytes).into_response();
        response.extensions_mut().insert(charge);
        Ok(response)
    }
}

/// Permit to work on a request. What it holds is released when it, and all work under it, has ended.
#[derive(Debug, Clone)]
pub(crate) struct WorkPermit(Arc<Held>);

#[derive(Debug)]
struct Held {
    _bytes: Share,
    _permit: OwnedSemaphorePermit,
    light: bool,
}

/// Asked by long work now and then.
#[derive(Debug, Clone, Default)]
pub(crate) struct Work {
    gone: Arc<AtomicBool>,
}

impl Work {
    /// Somebody still waits for the result.
    pub(crate) fn goes_on(&self) -> bool {
        !self.gone.load(Ordering::Acquire)
    }
}

/// Ends the work that it stands for when nobody waits for it any more.
struct Waits(Work);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.gone.store(true, Ordering::Release);
    }
}

impl WorkPermit {
    /// Runs `f` off the runtime's threads. When the client hangs up, `f` is told so by its [`Work`], and what is held stays held until
    /// it has ended.
    ///
    /// # Errors
    /// `f`'s, and 500 if it panics.
    pub(crate) async fn work<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Work) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (held, work) = (self.clone(), Work::default());
        let _waits = Waits(work.clone());
        let done = tokio::task::spawn_blocking(move || {
            let result = if work.goes_on() { f(&work) } else { Err(ApiError::internal("the client has hung up")) };
            drop(held);
            result
        });
        done.await.unwrap_or_else(|e| Err(ApiError::internal(format!("reading the request failed: {e}"))))
    }

    /// The same, but where it is called if the request is light.
    pub(crate) async fn work_here_if_light<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        if self.0.light { f() } else { self.work(move |_| f()).await }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[tokio::test]
    async fn work_is_told_when_nobody_waits_and_holds_its_bytes_until_it_ends() {
        let admission = Admission::new(&Limits { bodies: 100, ..Limits::default() });
        let share = admission.bytes.share();
        assert!(share.grow(100));
        let permit = admission.permit(100).await.unwrap();
        let work_permit = WorkPermit(Arc::new(Held { _bytes: share, _permit: permit, light: true }));
        let (begun, begin) = tokio::sync::oneshot::channel();
        let (end, ended) = mpsc::channel::<()>();
        let work = work_permit.work(move |work| {
            begun.send(()).unwrap();
            while work.goes_on() {
                std::thread::sleep(Duration::from_millis(1));
            }
            ended.recv().unwrap();
            Ok(())
        });
        // The client hangs up, once the work has begun, however long that takes.
        tokio::select! {
            _ = work => panic!("the work has ended"),
            begun = begin => begun.unwrap(),
        }
        drop(work_permit);
        assert!(!admission.bytes.share().grow(1), "the work still holds them");
        end.send(()).unwrap();
        while !admission.bytes.share().grow(1) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn light_work_does_not_wait_for_heavy() {
        let admission = Admission::new(&Limits::default());
        let mut heavy = Vec::new();
        while let Ok(permit) = admission.heavy.clone().try_acquire_owned() {
            heavy.push(permit);
        }
        assert!(tokio::time::timeout(Duration::from_millis(20), admission.permit(LIGHT + 1)).await.is_err());
        drop(admission.permit(LIGHT).await.unwrap());
        assert_eq!(admission.build(LIGHT, || 5).await.unwrap(), 5);
        heavy.pop();
        assert_eq!(admission.build(LIGHT + 1, || 6).await.unwrap(), 6);
    }
}
