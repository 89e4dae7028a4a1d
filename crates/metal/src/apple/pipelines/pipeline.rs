use super::archive::{Archive, FILE};
use crate::apple::objects::{Object, text};
use mlx_serving_device::{DeviceError, Result};
use mlx_serving_kernels::Kernel;
use objc2::rc::{Retained, autoreleasepool};
use objc2_foundation::{NSArray, NSError, NSString};
use objc2_metal::{
    MTLCompileOptions, MTLComputePipelineDescriptor, MTLComputePipelineState, MTLDevice, MTLLanguageVersion,
    MTLLibrary, MTLPipelineOption,
};
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

/// Compute pipelines, made from MSL at first use and kept; compiled code is kept in a file if there is a folder for it.
pub(crate) struct Pipelines {
    device: Object<dyn MTLDevice>,
    /// Indexed by [`Kernel::index`].
    states: Vec<OnceLock<Object<dyn MTLComputePipelineState>>>,
    archive: Option<Mutex<Archive>>,
}

impl Pipelines {
    /// `folder` keeps compiled code; a file of it that is missing, broken or another system's is made anew.
    pub(crate) fn new(device: &Object<dyn MTLDevice>, folder: Option<&Path>) -> Self {
        let archive = folder.and_then(|folder| autoreleasepool(|_| Archive::open(device, folder.join(FILE))));
        let states = Kernel::all().iter().map(|_| OnceLock::new()).collect();
        Self { device: device.clone(), states, archive: archive.map(Mutex::new) }
    }

    /// The pipeline of a kernel.
    pub(crate) fn get(&self, kernel: &'static Kernel) -> Result<Object<dyn MTLComputePipelineState>> {
        let known = &self.states[kernel.index];
        if let Some(state) = known.get() {
            return Ok(state.clone());
        }
        // Outside of the lock, since it may fail; of two that are made at once, the first stays.
        let state = autoreleasepool(|_| self.make(kernel))?;
        Ok(known.get_or_init(|| state).clone())
    }

    fn make(&self, kernel: &Kernel) -> Result<Object<dyn MTLComputePipelineState>> {
        let failed = |what: &str, why: String| {
            DeviceError::Unsupported(format!("kernel {}: {what}: {why}; please report this device", kernel.name))
        };
        let options = MTLCompileOptions::new();
        // Fast math takes infinities and NaN for impossible; masks and exact arithmetic need both. The newer name of the
        // option is macOS 15's only.
        #[expect(deprecated, reason = "its successor needs macOS 15")]
        options.setFastMathEnabled(false);
        options.setLanguageVersion(MTLLanguageVersion::Version2_4);
        let library =
            self.device.newLibraryWithSource_options_error(&NSString::from_str(&kernel.msl()), Some(&options));
        let library = library.map_err(|e| failed("its MSL does not compile", text(&e)))?;
        let function = library.newFunctionWithName(&NSString::from_str(kernel.msl_entry));
        let function = function.ok_or_else(|| failed("no such function", kernel.msl_entry.into()))?;
        let descriptor = MTLComputePipelineDescriptor::new();
        descriptor.setComputeFunction(Some(&function));
        let state = match &self.archive {
            None => self.state(&descriptor),
            Some(archive) => {
                let mut archive = archive.lock().unwrap_or_else(PoisonError::into_inner);
                descriptor.setBinaryArchives(Some(&NSArray::from_slice(&[archive.raw()])));
                self.state(&descriptor).inspect(|_| archive.add(&descriptor))
            }
        };
        let state = state.map_err(|e| failed("no pipeline", text(&e)))?;
        let (threads, most) = (kernel.workgroup.iter().product::<u32>(), state.maxTotalThreadsPerThreadgroup());
        if most < threads as usize {
            return Err(failed("no pipeline", format!("it needs {threads} threads, this device runs {most}")));
        }
        Ok(state)
    }

    fn state(
        &self,
        descriptor: &MTLComputePipelineDescriptor,
    ) -> Result<Object<dyn MTLComputePipelineState>, Retained<NSError>> {
        let none = MTLPipelineOption::None;
        self.device.newComputePipelineStateWithDescriptor_options_reflection_error(descriptor, none, None)
    }
}

impl Drop for Pipelines {
    fn drop(&mut self) {
        if let Some(archive) = &mut self.archive {
            let archive = archive.get_mut().unwrap_or_else(PoisonError::into_inner);
            autoreleasepool(|_| archive.save());
        }
    }
}
