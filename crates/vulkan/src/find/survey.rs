use super::instance::{Instance, show_version};
use super::matrix;
use super::select::{Abilities, DeviceKind, Queues};
use ash::{ext, vk};
use mlx_serving_device::Result;
use std::ffi::CStr;

/// Answers of a physical device to everything that it is asked before it is opened.
#[derive(Clone)]
pub(crate) struct Survey {
    pub(super) physical: vk::PhysicalDevice,
    pub(crate) name: String,
    pub(crate) driver: String,
    pub(crate) kind: DeviceKind,
    pub(crate) api: u32,
    pub(crate) limits: vk::PhysicalDeviceLimits,
    pub(crate) memory: vk::PhysicalDeviceMemoryProperties,
    /// Bytes of one allocation at most.
    pub(crate) max_allocation: u64,
    pub(crate) families: Vec<vk::QueueFamilyProperties>,
    pub(super) queues: Option<Queues>,
    pub(super) subgroup: u32,
    pub(super) timelines: bool,
    pub(super) host_query_reset: bool,
    pub(super) calibrated: bool,
    pub(super) budget: bool,
    /// See [`matrix::side`].
    pub(crate) matrix_side: Option<u32>,
    /// Names the files of the pipeline cache.
    pub(crate) cache_uuid: [u8; vk::UUID_SIZE],
    pub(crate) vendor: u32,
    pub(crate) device: u32,
}

impl Survey {
    /// Surveys every device, the best kind first, else in the driver's order.
    pub(crate) fn all(instance: &Instance) -> Result<Vec<Self>> {
        let physical = instance.physical_devices()?;
        let mut all = physical.into_iter().map(|p| Self::new(instance, p)).collect::<Result<Vec<_>>>()?;
        all.sort_by_key(|survey| survey.kind);
        Ok(all)
    }

    fn new(instance: &Instance, physical: vk::PhysicalDevice) -> Result<Self> {
        let raw = &instance.raw;
        // SAFETY: here and below, `physical` is the living instance's.
        let base = unsafe { raw.get_physical_device_properties(physical) };
        // SAFETY: as above.
        let memory = unsafe { raw.get_physical_device_memory_properties(physical) };
        // SAFETY: as above.
        let families = unsafe { raw.get_physical_device_queue_family_properties(physical) };
        // SAFETY: as above.
        let extensions = unsafe { raw.enumerate_device_extension_properties(physical) }
            .map_err(|e| crate::error::driver("a list of extensions", e))?;
        let has = |name: &CStr| extensions.iter().any(|e| e.extension_name_as_c_str() == Ok(name));
        let biggest = memory.memory_heaps_as_slice().iter().map(|heap| heap.size).max().unwrap_or(0);
        let mut survey = Self {
            physical,
            name: text(base.device_name_as_c_str()),
            driver: show_version(base.driver_version),
            kind: DeviceKind::of(base.device_type),
            api: base.api_version,
            limits: base.limits,
            max_allocation: biggest,
            queues: Queues::choose(&families),
            memory,
            families,
            subgroup: 0,
            timelines: false,
            host_query_reset: false,
            calibrated: false,
            budget: has(ext::memory_budget::NAME),
            matrix_side: None,
            cache_uuid: base.pipeline_cache_uuid,
            vendor: base.vendor_id,
            device: base.device_id,
        };
        // What follows may be asked of a device with 1.2 only.
        if survey.api >= vk::API_VERSION_1_2 {
            survey.ask_more(instance);
            survey.calibrated = has(ext::calibrated_timestamps::NAME) && survey.calibrates(instance);
            if has(matrix::EXTENSION) {
                survey.matrix_side = matrix::side(instance, physical, survey.subgroup);
            }
        }
        Ok(survey)
    }

    fn ask_more(&mut self, instance: &Instance) {
        let mut v11 = vk::PhysicalDeviceVulkan11Properties::default();
        let mut v12 = vk::PhysicalDeviceVulkan12Properties::default();
        let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut v11).push_next(&mut v12);
        // SAFETY: the device is the living instance's and knows structures of 1.2.
        unsafe { instance.raw.get_physical_device_properties2(self.physical, &mut properties) };
        let mut features12 = vk::PhysicalDeviceVulkan12Features::default();
        let mut features = vk::PhysicalDeviceFeatures2::default().push_next(&mut features12);
        // SAFETY: as above.
        unsafe { instance.raw.get_physical_device_features2(self.physical, &mut features) };
        self.max_allocation = self.max_allocation.min(v11.max_memory_allocation_size);
        self.subgroup = v11.subgroup_size;
        self.driver = format!("{} {}", text(v12.driver_name_as_c_str()), text(v12.driver_info_as_c_str()));
        self.timelines = features12.timeline_semaphore == vk::TRUE;
        self.host_query_reset = features12.host_query_reset == vk::TRUE;
    }

    /// The driver tells the time of the device's clock.
    fn calibrates(&self, instance: &Instance) -> bool {
        // SAFETY: the device is the living instance's and has the extension.
        let domains = unsafe { instance.calibrated.get_physical_device_calibrateable_time_domains(self.physical) };
        domains.is_ok_and(|domains| domains.contains(&vk::TimeDomainEXT::DEVICE))
    }

    /// Things that the backend needs and this device lacks.
    pub(crate) fn missing(&self) -> Vec<String> {
        let (api, timelines, limits, queues) = (self.api, self.timelines, &self.limits, self.queues);
        Abilities { api, timelines, limits, queues }.missing()
    }

    /// Side of the squares that units of the hardware multiply.
    pub(crate) fn hardware_matrix_side(&self) -> Option<u32> {
        self.matrix_side.filter(|_| self.kind != DeviceKind::Software)
    }

    /// Things that the backend uses of it, in words.
    pub(crate) fn used(&self, matrix_side: Option<u32>) -> Vec<String> {
        let mut used = Vec::new();
        match self.queues {
            Some(queues) if queues.shared() => used.push("one queue".to_owned()),
            Some(queues) if queues.compute.family == queues.transfer.family => used.push("two queues".to_owned()),
            Some(_) => used.push("compute and transfer queue".to_owned()),
            None => {}
        }
        let of = |there: bool, what: &str| there.then(|| what.to_owned());
        used.push(format!("subgroups of {}", self.subgroup));
        used.extend(matrix_side.map(|side| format!("{side}x{side} matrix units")));
        used.extend(of(self.unified(), "unified memory"));
        used.extend(of(self.timestamps(true), "timestamps"));
        used.extend(of(self.calibrated, "calibrated timestamps"));
        used.extend(of(self.budget, "memory budget"));
        used
    }

    /// Host and device share memory: the largest of the device's heaps is mapped, and it is no card's.
    pub(crate) fn unified(&self) -> bool {
        let shares = matches!(self.kind, DeviceKind::Integrated | DeviceKind::Software);
        let heap = self.local_heap();
        let both = vk::MemoryPropertyFlags::DEVICE_LOCAL | vk::MemoryPropertyFlags::HOST_VISIBLE;
        let mapped = |t: &vk::MemoryType| t.heap_index as usize == heap && t.property_flags.contains(both);
        shares && self.memory.memory_types_as_slice().iter().any(mapped)
    }

    /// The largest heap that is the device's own.
    pub(super) fn local_heap(&self) -> usize {
        let heaps = self.memory.memory_heaps_as_slice().iter().enumerate();
        let local = heaps.filter(|(_, heap)| heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL));
        local.max_by_key(|(_, heap)| heap.size).map_or(0, |(index, _)| index)
    }

    /// Bytes of the device's own memory.
    pub(crate) fn local_memory(&self) -> u64 {
        self.memory.memory_heaps_as_slice().get(self.local_heap()).map_or(0, |heap| heap.size)
    }

    /// Bytes of the device's own memory that may still be allocated.
    pub(crate) fn memory_budget(&self, instance: &Instance) -> u64 {
        if !self.budget {
            return self.local_memory();
        }
        let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
        let mut properties = vk::PhysicalDeviceMemoryProperties2::default().push_next(&mut budget);
        // SAFETY: the device is the living instance's and has the extension.
        unsafe { instance.raw.get_physical_device_memory_properties2(self.physical, &mut properties) };
        let heap = self.local_heap();
        budget.heap_budget[heap].saturating_sub(budget.heap_usage[heap])
    }

    /// The queue of compute, or that of transfers, has timestamps that the host can reset.
    pub(crate) fn timestamps(&self, compute: bool) -> bool {
        let Some(queues) = self.queues else { return false };
        let family = if compute { queues.compute.family } else { queues.transfer.family };
        self.host_query_reset && self.families[family as usize].timestamp_valid_bits > 0
    }
}

fn text(text: Result<&CStr, std::ffi::FromBytesUntilNulError>) -> String {
    text.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
}
