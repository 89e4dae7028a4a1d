use super::cache_file::CacheFile;
use crate::error::driver;
use crate::find::{Gpu, IMMEDIATES};
use ash::vk;
use mlx_serving_device::{DeviceError, Result};
use mlx_serving_kernels::Kernel;
use std::ffi::CString;
use std::io::Cursor;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// New pipelines wait so long until they are saved.
const SAVE_AFTER: Duration = Duration::from_secs(60);

/// Layouts of kernels with the same number of bindings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) set: vk::DescriptorSetLayout,
    pub(crate) pipeline: vk::PipelineLayout,
}

/// The pipelines of a device, made on first use.
pub(crate) struct Pipelines {
    gpu: Arc<Gpu>,
    cache: vk::PipelineCache,
    file: Option<CacheFile>,
    /// Indexed by number of bindings.
    layouts: Vec<Layout>,
    /// Indexed by [`Kernel::index`].
    made: Vec<OnceLock<vk::Pipeline>>,
    /// Time since which there is something to save.
    unsaved: Mutex<Option<Instant>>,
}

impl Pipelines {
    /// `folder` keeps the driver's cache over runs.
    pub(crate) fn new(gpu: &Arc<Gpu>, folder: Option<&Path>) -> Result<Arc<Self>> {
        let file = folder.map(|folder| CacheFile::new(folder, &gpu.survey));
        let data = file.as_ref().and_then(CacheFile::load).unwrap_or_default();
        let info = vk::PipelineCacheCreateInfo::default().initial_data(&data);
        // SAFETY: the device is alive; the data is what this driver wrote, or empty.
        let cache = unsafe { gpu.raw.create_pipeline_cache(&info, None) }.map_err(|e| driver("a pipeline cache", e))?;
        // From here on its drop releases what it has.
        let (made, unsaved) = (Kernel::all().iter().map(|_| OnceLock::new()).collect(), Mutex::default());
        let mut this = Self { gpu: gpu.clone(), cache, file, layouts: Vec::new(), made, unsaved };
        let most = Kernel::all().iter().map(|kernel| kernel.bindings.len()).max().unwrap_or(0);
        for bindings in 0..=most {
            let layout = new_layout(gpu, bindings as u32)?;
            this.layouts.push(layout);
        }
        Ok(Arc::new(this))
    }

    /// The layout of a kernel's pipeline.
    pub(crate) fn layout(&self, kernel: &Kernel) -> Layout {
        self.layouts[kernel.bindings.len()]
    }

    /// The kernel's pipeline, compiled if this is its first use.
    pub(crate) fn get(&self, kernel: &'static Kernel) -> Result<vk::Pipeline> {
        let made = &self.made[kernel.index];
        if let Some(pipeline) = made.get() {
            return Ok(*pipeline);
        }
        let pipeline = self.compile(kernel)?;
        let kept = *made.get_or_init(|| pipeline);
        if kept != pipeline {
            // SAFETY: another thread was faster; this one is unused.
            unsafe { self.gpu.raw.destroy_pipeline(pipeline, None) };
        }
        self.unsaved().get_or_insert_with(Instant::now);
        Ok(kept)
    }

    fn compile(&self, kernel: &'static Kernel) -> Result<vk::Pipeline> {
        let what = |e| driver(&format!("the kernel {}", kernel.name), e);
        let words = ash::util::read_spv(&mut Cursor::new(kernel.spirv()))
            .map_err(|e| DeviceError::Contract(format!("the kernel {}: {e}", kernel.name)))?;
        let info = vk::ShaderModuleCreateInfo::default().code(&words);
        // SAFETY: the words are SPIR-V that naga validated when this program was built.
        let module = unsafe { self.gpu.raw.create_shader_module(&info, None) }.map_err(what)?;
        let entry = CString::new(kernel.spirv_entry).unwrap_or_default();
        let stage = vk::PipelineShaderStageCreateInfo::default()
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(module)
            .name(&entry);
        let info = [vk::ComputePipelineCreateInfo::default().stage(stage).layout(self.layout(kernel).pipeline)];
        // SAFETY: module, layout and cache are this device's and alive.
        let made = unsafe { self.gpu.raw.create_compute_pipelines(self.cache, &info, None) };
        // SAFETY: the pipeline has been made, and does not need the module any more.
        unsafe { self.gpu.raw.destroy_shader_module(module, None) };
        made.map(|pipelines| pipelines[0]).map_err(|(_, e)| what(e))
    }

    /// Saves the cache if something new has waited long enough.
    pub(crate) fn save_if_due(&self) {
        let due = self.unsaved().is_some_and(|since| since.elapsed() >= SAVE_AFTER);
        if due {
            self.save();
        }
    }

    /// Saves the cache if there is something new.
    fn save(&self) {
        let (Some(file), Some(_)) = (&self.file, self.unsaved().take()) else { return };
        // SAFETY: the cache is alive.
        match unsafe { self.gpu.raw.get_pipeline_cache_data(self.cache) } {
            Ok(data) => file.save(&data),
            Err(error) => tracing::debug!(target: "vulkan", %error, "the pipeline cache was not saved"),
        }
    }

    fn unsaved(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.unsaved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pipelines {
    fn drop(&mut self) {
        self.save();
        // SAFETY: encoders and submissions hold an `Arc` of the pipelines, so none is in use.
        unsafe {
            self.made
                .iter()
                .filter_map(OnceLock::get)
                .for_each(|pipeline| self.gpu.raw.destroy_pipeline(*pipeline, None));
            for layout in &self.layouts {
                self.gpu.raw.destroy_pipeline_layout(layout.pipeline, None);
                self.gpu.raw.destroy_descriptor_set_layout(layout.set, None);
            }
            self.gpu.raw.destroy_pipeline_cache(self.cache, None);
        }
    }
}

fn new_layout(gpu: &Gpu, bindings: u32) -> Result<Layout> {
    let binding = |number| {
        vk::DescriptorSetLayoutBinding::default()
            .binding(number)
            .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
            .descriptor_count(1)
            .stage_flags(vk::ShaderStageFlags::COMPUTE)
    };
    let bindings: Vec<_> = (0..bindings).map(binding).collect();
    let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
    // SAFETY: the device is alive.
    let set = unsafe { gpu.raw.create_descriptor_set_layout(&info, None) };
    let set = set.map_err(|e| driver("a descriptor set layout", e))?;
    let (sets, ranges) =
        ([set], [vk::PushConstantRange { stage_flags: vk::ShaderStageFlags::COMPUTE, offset: 0, size: IMMEDIATES }]);
    let info = vk::PipelineLayoutCreateInfo::default().set_layouts(&sets).push_constant_ranges(&ranges);
    // SAFETY: as above.
    let pipeline = unsafe { gpu.raw.create_pipeline_layout(&info, None) }.map_err(|e| {
        // SAFETY: nothing uses the layout.
        unsafe { gpu.raw.destroy_descriptor_set_layout(set, None) };
        driver("a pipeline layout", e)
    })?;
    Ok(Layout { set, pipeline })
}
