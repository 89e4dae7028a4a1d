use super::instance::Instance;
use super::matrix;
use super::select::Queues;
use super::survey::Survey;
use crate::error::driver;
use ash::{ext, vk};
use mlx_serving_device::{DeviceError, Result};
use std::sync::{Arc, OnceLock};

/// The logical device: whoever uses it holds an `Arc`, so that it goes last.
pub(crate) struct Gpu {
    pub(crate) raw: ash::Device,
    pub(crate) survey: Survey,
    pub(crate) queues: Queues,
    pub(crate) calibrated: Option<ext::calibrated_timestamps::Device>,
    pub(crate) instance: Arc<Instance>,
    lost: OnceLock<String>,
}

impl Gpu {
    /// Opens a device; what it lacks is an error.
    pub(crate) fn open(instance: Arc<Instance>, survey: Survey) -> Result<Arc<Self>> {
        let (missing, name) = (survey.missing(), &survey.name);
        let (true, Some(queues)) = (missing.is_empty(), survey.queues) else {
            return Err(DeviceError::Unsupported(format!(
                "{name} lacks {}; update its driver or choose another device",
                missing.join(", ")
            )));
        };
        let raw = create(&instance, &survey, queues)?;
        let calibrated = survey.calibrated.then(|| ext::calibrated_timestamps::Device::new(&instance.raw, &raw));
        Ok(Arc::new(Self { raw, survey, queues, calibrated, instance, lost: OnceLock::new() }))
    }

    /// Fails once the device is lost.
    pub(crate) fn alive(&self) -> Result<()> {
        self.lost.get().map_or(Ok(()), |why| Err(DeviceError::Lost(why.clone())))
    }

    /// Marks the device as lost, if it was not before.
    pub(crate) fn mark_lost(&self, why: &str) {
        if self.lost.set(why.to_owned()).is_ok() {
            tracing::error!(target: "vulkan", device = self.survey.name, why, "device lost");
        }
    }

    /// A queue of the device.
    pub(crate) fn queue(&self, compute: bool) -> vk::Queue {
        let at = if compute { self.queues.compute } else { self.queues.transfer };
        // SAFETY: the device was created with this queue.
        unsafe { self.raw.get_device_queue(at.family, at.index) }
    }

    /// The families that share buffers: none if there is one.
    pub(crate) fn sharing(&self) -> Vec<u32> {
        let (compute, transfer) = (self.queues.compute.family, self.queues.transfer.family);
        if compute == transfer { Vec::new() } else { vec![compute, transfer] }
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // SAFETY: everything made from the device holds an `Arc` of it, so nothing is left, and its executor waited for its work.
        unsafe { self.raw.destroy_device(None) };
    }
}

fn create(instance: &Instance, survey: &Survey, queues: Queues) -> Result<ash::Device> {
    let priorities = [1.0, 1.0];
    let info = |family, count: usize| {
        vk::DeviceQueueCreateInfo::default().queue_family_index(family).queue_priorities(&priorities[..count])
    };
    let (compute, transfer) = (queues.compute, queues.transfer);
    let queue_infos = match compute.family == transfer.family {
        true => vec![info(compute.family, transfer.index as usize + 1)],
        false => vec![info(compute.family, 1), info(transfer.family, 1)],
    };
    let mut extensions = Vec::new();
    if survey.calibrated {
        extensions.push(ext::calibrated_timestamps::NAME.as_ptr());
    }
    if survey.budget {
        extensions.push(ext::memory_budget::NAME.as_ptr());
    }
    let mut v11 = vk::PhysicalDeviceVulkan11Features::default();
    let mut v12 = vk::PhysicalDeviceVulkan12Features::default()
        .timeline_semaphore(true)
        .host_query_reset(survey.host_query_reset);
    let mut matrices = vk::PhysicalDeviceCooperativeMatrixFeaturesKHR::default().cooperative_matrix(true);
    if survey.matrix_side.is_some() {
        extensions.push(matrix::EXTENSION.as_ptr());
        matrix::enable(&mut v11, &mut v12);
    }
    let mut info = vk::DeviceCreateInfo::default()
        .queue_create_infos(&queue_infos)
        .enabled_extension_names(&extensions)
        .push_next(&mut v11)
        .push_next(&mut v12);
    if survey.matrix_side.is_some() {
        info = info.push_next(&mut matrices);
    }
    // SAFETY: everything that `info` points to lives until the call returns, and the device has what it names.
    unsafe { instance.raw.create_device(survey.physical, &info, None) }.map_err(|e| driver("the device", e))
}
