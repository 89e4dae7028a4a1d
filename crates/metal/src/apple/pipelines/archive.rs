use crate::apple::objects::{AnyThread, Object, text};
use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2_foundation::{NSString, NSURL};
use objc2_metal::{MTLBinaryArchive, MTLBinaryArchiveDescriptor, MTLComputePipelineDescriptor, MTLDevice};
use std::fs;
use std::path::{Path, PathBuf};

/// Name of the file that keeps compiled code: Metal looks kernels up in it by their contents.
pub(super) const FILE: &str = "metal.binarchive";

/// Compiled code in a file. It only saves time, so that whatever goes wrong with it is a line in the log.
pub(super) struct Archive {
    archive: AnyThread<Object<dyn MTLBinaryArchive>>,
    path: PathBuf,
    grown: bool,
}

impl Archive {
    pub(super) fn open(device: &ProtocolObject<dyn MTLDevice>, path: PathBuf) -> Option<Self> {
        let descriptor = MTLBinaryArchiveDescriptor::new();
        if path.exists() {
            descriptor.setUrl(Some(&url(&path)));
        }
        let archive = device.newBinaryArchiveWithDescriptor_error(&descriptor).or_else(|error| {
            tracing::info!(path = %path.display(), error = text(&error), "compiled kernels cannot be used and are made anew");
            descriptor.setUrl(None);
            device.newBinaryArchiveWithDescriptor_error(&descriptor)
        });
        let archive = archive.inspect_err(|e| tracing::info!(error = text(e), "compiled kernels are not kept")).ok()?;
        // SAFETY: used under the lock of `Pipelines` only.
        Some(Self { archive: unsafe { AnyThread::new(archive) }, path, grown: false })
    }

    /// The archive, for looking kernels up.
    pub(super) fn raw(&self) -> &ProtocolObject<dyn MTLBinaryArchive> {
        &self.archive
    }

    /// Keeps the code of a new pipeline.
    pub(super) fn add(&mut self, descriptor: &MTLComputePipelineDescriptor) {
        match self.archive.addComputePipelineFunctionsWithDescriptor_error(descriptor) {
            Ok(()) => self.grown = true,
            Err(error) => tracing::debug!(error = text(&error), "a compiled kernel is not kept"),
        }
    }

    /// Writes the file, whole or not at all.
    pub(super) fn save(&self) {
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
