use crate::config::Config;
use crate::device::{Choice, Devices, Lease};
use crate::error::RuntimeError;
use crate::fit;
use crate::memory::Ledger;
use crate::source::Source;
use crate::spill::spill;
use mlx_serving_checkpoint::Checkpoint;
use mlx_serving_device::Device;
use std::sync::Arc;

/// Configuration, devices and memory that the open models of a process share.
#[derive(Debug, Default)]
pub struct Runtime {
    pub(crate) config: Config,
    pub(crate) ledger: Ledger,
    devices: Devices,
}

impl Runtime {
    /// A runtime of this configuration. No device is opened before a model is.
    pub fn new(config: Config) -> Self {
        Self { config, ..Self::default() }
    }

    /// A runtime on devices that `open` makes in the place of this machine's.
    pub fn with_devices(
        config: Config,
        open: impl Fn(Choice) -> Result<Arc<dyn Device>, RuntimeError> + Send + Sync + 'static,
    ) -> Self {
        let devices = Devices::from_opener(move |choice, _| open(choice));
        Self { config, devices, ..Self::default() }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Checks the models that the configuration names, each with its name, and that their device is there. Downloads nothing: of a model
    /// that is not here yet it says so.
    ///
    /// # Errors
    /// Everything by which opening them one after the other would fail, as far as can be told without loading them.
    pub fn check_configured(&self) -> Result<Vec<(String, Vec<String>)>, RuntimeError> {
        let named = &self.config.models.serve;
        let bundled = named.is_empty().then_some(Source::Bundled);
        let mut found = Vec::new();
        // Until the end, as if they were open.
        let mut held = Vec::new();
        let sources: Vec<Source> = named.iter().map(|name| Source::from(name.as_str())).chain(bundled).collect();
        // Where one is named twice, whoever names them says so.
        let ids = Source::ids(&sources).unwrap_or_else(|_| sources.iter().map(Source::id).collect());
        for (source, id) in sources.into_iter().zip(ids) {
            let dir = match source.here() {
                // Without the bundled model there is nothing to be checked.
                Err(_) if source == Source::Bundled => None,
                dir => dir?,
            };
            spill(&self.config.engine, &id).check()?;
            let Some(dir) = dir else {
                held.push((None, self.with_device(|lease| Ok(lease.clone()))?));
                if source != Source::Bundled {
                    let hint = format!(
                        "not downloaded yet, so whether it fits was not checked; `mlx-serving pull {id}` downloads it"
                    );
                    found.push((id, vec![hint]));
                }
                continue;
            };
            let checkpoint = Checkpoint::open(&dir).map_err(RuntimeError::Checkpoint)?;
            let (reservation, mut warnings, lease) = self.with_device(|lease| {
                let (reservation, warnings) =
                    fit::reserve(&self.ledger, &self.config, &id, &checkpoint, &lease.device)?;
                Ok((reservation, warnings, lease.clone()))
            })?;
            warnings.extend_from_slice(checkpoint.warnings());
            held.push((Some(reservation), lease));
            found.push((id, warnings));
        }
        Ok(found)
    }

    /// Runs `work` on the configured device, which models share unless their copies would hold each other up.
    pub(crate) fn with_device<T>(
        &self,
        work: impl FnMut(&Lease) -> Result<T, RuntimeError>,
    ) -> Result<T, RuntimeError> {
        let m = &self.config.metal_optimizations;
        let share = !(m.enabled && m.blit_queue.enabled);
        self.devices.with(&self.config.engine, share, work)
    }
}
