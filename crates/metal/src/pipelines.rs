use crate::objects::{AnyThread, Object};
use mlx_serving_device::{DeviceError, Result};
use mlx_serving_kernels::Kernel;
use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::ProtocolObject;
use objc2_foundation::{NSArray, NSError, NSString, NSURL};
use objc2_metal::{
    MTLBinaryArchive, MTLBinaryArchiveDescriptor, MTLCompileOptions, MTLComputePipelineDescriptor,
    MTLComputePipelineState, MTLDevice, MTLLanguageVersion, MTLLibrary, MTLPipelineOption,
};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Compute pipelines, made from MSL at first use and kept; compiled code is kept in a file if there is a place for one.
pub(crate) struct Pipelines {
    device: Object<dyn MTLDevice>,
    made: Mutex<Made>,
}

struct Made {
    states: HashMap<&'static str, Object<dyn MTLComputePipelineState>>,
    archive: Option<Archive>,
}

impl Pipelines {
    /// `cache` is the file that keeps compiled code; one that is missing, broken or another system's is made anew.
    pub(crate) fn new(device: &Object<dyn MTLDevice>, cache: Option<&Path>) -> Self {
        let archive = cache.and_then(|path| autoreleasepool(|_| Archive::open(device, path)));
        Self { device: device.clone(), made: Mutex::new(Made { states: HashMap::new(), archive }) }
    }

    /// The pipeline of a kernel.
    pub(crate) fn get(&self, kernel: &'static Kernel) -> Result<Object<dyn MTLComputePipelineState>> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = made.states.get(kernel.name) {
            return Ok(state.clone());
        }
        let state = autoreleasepool(|_| self.make(kernel, made.archive.as_mut()))?;
        made.states.insert(kernel.name, state.clone());
        Ok(state)
    }

    fn make(&self, kernel: &Kernel, mut archive: Option<&mut Archive>) -> Result<Object<dyn MTLComputePipelineState>> {
        let failed = |what: &str, why: String| {
            DeviceError::Unsupported(format!("kernel {}: {what}: {why}; please report this device", kernel.name))
        };
        let options = MTLCompileOptions::new();
        // Fast math takes infinities and NaN for impossible; masks and exact arithmetic need both. The newer name of the
        // option is macOS 15's only.
        #[expect(deprecated, reason = "its successor needs macOS 15")]
        options.setFastMathEnabled(false);
        options.setLanguageVersion(MTLLanguageVersion::Version2_4);
        let library = self.device.newLibraryWithSource_options_error(&NSString::from_str(kernel.msl), Some(&options));
        let library = library.map_err(|e| failed("its MSL does not compile", text(&e)))?;
        let function = library.newFunctionWithName(&NSString::from_str(kernel.msl_entry));
        let function = function.ok_or_else(|| failed("no such function", kernel.msl_entry.into()))?;
        let descriptor = MTLComputePipelineDescriptor::new();
        descriptor.setComputeFunction(Some(&function));
        if let Some(archive) = &mut archive {
            descriptor.setBinaryArchives(Some(&NSArray::from_slice(&[&**archive.archive])));
        }
        let none = MTLPipelineOption::None;
        let state = self.device.newComputePipelineStateWithDescriptor_options_reflection_error(&descriptor, none, None);
        let state = state.map_err(|e| failed("no pipeline", text(&e)))?;
        let threads: u32 = kernel.workgroup.iter().product();
        if (state.maxTotalThreadsPerThreadgroup() as u64) < u64::from(threads) {
            let most = state.maxTotalThreadsPerThreadgroup();
            return Err(failed("no pipeline", format!("it needs {threads} threads, this device runs {most}")));
        }
        if let Some(archive) = archive {
            archive.add(&descriptor);
        }
        Ok(state)
    }
}

impl Drop for Pipelines {
    fn drop(&mut self) {
        let made = self.made.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(archive) = &made.archive {
            autoreleasepool(|_| archive.save());
        }
    }
}

/// Compiled code in a file. It only saves time, so that whatever goes wrong with it is a line in the log.
struct Archive {
    archive: AnyThread<Object<dyn MTLBinaryArchive>>,
    path: PathBuf,
    grown: bool,
}

impl Archive {
    fn open(device: &ProtocolObject<dyn MTLDevice>, path: &Path) -> Option<Self> {
        let descriptor = MTLBinaryArchiveDescriptor::new();
        if path.exists() {
            descriptor.setUrl(Some(&url(path)));
        }
        let archive = device.newBinaryArchiveWithDescriptor_error(&descriptor).or_else(|error| {
            tracing::info!(path = %path.display(), error = text(&error), "compiled kernels cannot be used and are made anew");
            descriptor.setUrl(None);
            device.newBinaryArchiveWithDescriptor_error(&descriptor)
        });
        let archive = archive.inspect_err(|e| tracing::info!(error = text(e), "compiled kernels are not kept")).ok()?;
        // SAFETY: used under the lock of `Pipelines` only.
        Some(Self { archive: unsafe { AnyThread::new(archive) }, path: path.into(), grown: false })
    }

    fn add(&mut self, descriptor: &MTLComputePipelineDescriptor) {
        match self.archive.addComputePipelineFunctionsWithDescriptor_error(descriptor) {
            Ok(()) => self.grown = true,
            Err(error) => tracing::debug!(error = text(&error), "a compiled kernel is not kept"),
        }
    }

    /// Writes the file, whole or not at all.
    fn save(&self) {
        if !self.grown {
            return;
        }
        let draft = self.path.with_extension(format!("{}.draft", std::process::id()));
        let folder = self.path.parent().map_or(Ok(()), fs::create_dir_all);
        let saved = folder.map_err(|e| e.to_string()).and_then(|()| {
            self.archive.serializeToURL_error(&url(&draft)).map_err(|e| text(&e))?;
            fs::rename(&draft, &self.path).map_err(|e| e.to_string())
        });
        if let Err(error) = saved {
            drop(fs::remove_file(&draft));
            tracing::info!(path = %self.path.display(), error, "compiled kernels could not be kept");
        }
    }
}

fn url(path: &Path) -> Retained<NSURL> {
    NSURL::fileURLWithPath(&NSString::from_str(&path.to_string_lossy()))
}

fn text(error: &NSError) -> String {
    error.localizedDescription().to_string()
}
