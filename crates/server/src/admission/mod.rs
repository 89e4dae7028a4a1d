//! Bodies and answers, and the work on them: a body is refused before it is read where it cannot be served, and counted while it is
//! held; work is done by as many threads as there are cores, off the runtime's own.

mod answers;
mod budget;

pub(crate) use answers::{Charge, Unread};

use crate::connection::{Activity, Limits};
use crate::error::ApiError;
use crate::state::AppState;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::CONTENT_LENGTH;
use budget::{Budget, Share};
use http_body_util::BodyExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// Bytes up to which work is light: done without waiting for the heavy.
const LIGHT: usize = 64 << 10;

/// Bytes of each body that are not counted: small requests pass while large ones take all that there is.
const UNCOUNTED: usize = 16 << 10;

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

    /// WorkPermit to work on `bytes` of something, in turn.
    async fn permit(&self, bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        let of = if bytes > LIGHT { &self.heavy } else { &self.light };
        of.clone().acquire_owned().await.map_err(|e| ApiError::internal(e.to_string()))
    }

    /// Builds an answer of about so many bytes: here if that is light, else off the runtime's threads.
    ///
    /// # Errors
    /// 500 if building it panics.
    pub(crate) async fn build<T: Send + 'static>(
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
}

/// A body that has come, and the permit to work on it.
pub(crate) struct Admitted {
    pub bytes: Vec<u8>,
    pub permit: WorkPermit,
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

/// Reads a request's body.
///
/// # Errors
/// 408, 413, 429 and 503: it takes too long, is too long, is one too many, or cannot be served now.
pub(crate) async fn admit(request: Request, state: &AppState) -> Result<Admitted, ApiError> {
    state.admits()?;
    let claimed = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if claimed.is_some_and(|claimed| claimed > state.body_limit as u64) {
        return Err(ApiError::too_large(state.body_limit));
    }
    let activity = request.extensions().get::<Arc<Activity>>().cloned();
    let share = state.admission.bytes.share();
    let bytes = read(request.into_body(), state, &share).await?;
    if let Some(activity) = activity {
        activity.body_read();
    }
    let permit = state.admission.permit(bytes.len()).await?;
    let held = Held { _bytes: share, _permit: permit, light: bytes.len() <= LIGHT };
    Ok(Admitted { bytes, permit: WorkPermit(Arc::new(held)) })
}

async fn read(mut body: Body, state: &AppState, share: &Share) -> Result<Vec<u8>, ApiError> {
    let end = Instant::now() + state.limits.body;
    let mut bytes = Vec::new();
    loop {
        let pause = Instant::now() + state.limits.pause;
        let frame = match timeout_at(pause.min(end), body.frame()).await {
            Err(_) => return Err(ApiError::slow_body()),
            Ok(None) => return Ok(bytes),
            Ok(Some(Err(error))) => return Err(ApiError::invalid("", format!("the body did not come whole: {error}"))),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > state.body_limit {
            return Err(ApiError::too_large(state.body_limit));
        }
        let uncounted = UNCOUNTED.saturating_sub(bytes.len()).min(data.len());
        if !share.grow(data.len() - uncounted) {
            return Err(ApiError::crowded_bodies());
        }
        bytes.extend_from_slice(&data);
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
        let (begun, begin) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let work = work_permit.work(move |work| {
            begun.send(()).unwrap();
            while work.goes_on() {
                std::thread::sleep(Duration::from_millis(1));
            }
            ended.recv().unwrap();
            Ok(())
        });
        // The client hangs up.
        assert!(tokio::time::timeout(Duration::from_millis(50), work).await.is_err());
        begin.recv().unwrap();
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
