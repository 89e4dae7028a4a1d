//! Choice of a device and of its queues: pure functions over descriptions.

use ash::vk;
use mlx_serving_kernels::Kernel;

/// Bytes of push constants of every pipeline: the longest of the kernels' immediates.
pub(crate) const IMMEDIATES: u32 = 128;

/// Kind of a device; the better ones are less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceKind {
    /// A GPU with memory of its own.
    Discrete,
    /// A GPU that shares the host's memory.
    Integrated,
    /// A GPU lent to a virtual machine.
    Virtual,
    /// A driver that computes on the processor.
    Software,
    /// The driver does not say.
    Other,
}

impl DeviceKind {
    pub(super) fn of(kind: vk::PhysicalDeviceType) -> Self {
        match kind {
            vk::PhysicalDeviceType::DISCRETE_GPU => Self::Discrete,
            vk::PhysicalDeviceType::INTEGRATED_GPU => Self::Integrated,
            vk::PhysicalDeviceType::VIRTUAL_GPU => Self::Virtual,
            vk::PhysicalDeviceType::CPU => Self::Software,
            _ => Self::Other,
        }
    }
}

/// A queue: its family and its number within the family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueAt {
    pub(crate) family: u32,
    pub(super) index: u32,
}

/// The queues of compute and of transfers; both the same where the device has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Queues {
    pub(crate) compute: QueueAt,
    pub(crate) transfer: QueueAt,
}

impl Queues {
    /// Compute beside graphics rather than with it; transfers in a family of their own, else on a second queue of the same.
    pub(super) fn choose(families: &[vk::QueueFamilyProperties]) -> Option<Self> {
        use vk::QueueFlags as Flags;
        let find = |wanted: Flags, unwanted: Flags| {
            let fits = |f: &vk::QueueFamilyProperties| {
                f.queue_count > 0 && f.queue_flags.contains(wanted) && !f.queue_flags.intersects(unwanted)
            };
            families.iter().position(fits).map(|i| QueueAt { family: i as u32, index: 0 })
        };
        let compute = find(Flags::COMPUTE, Flags::GRAPHICS).or_else(|| find(Flags::COMPUTE, Flags::empty()))?;
        let second = families[compute.family as usize].queue_count > 1;
        let media = Flags::VIDEO_DECODE_KHR | Flags::VIDEO_ENCODE_KHR | Flags::OPTICAL_FLOW_NV;
        let transfer = find(Flags::TRANSFER, Flags::COMPUTE | Flags::GRAPHICS | media);
        let transfer = transfer.unwrap_or(QueueAt { index: second.into(), ..compute });
        Some(Self { compute, transfer })
    }

    /// True if both are views of one queue.
    pub(super) fn shared(&self) -> bool {
        self.compute == self.transfer
    }
}

/// Properties that decide whether a device can be used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Abilities<'a> {
    pub(super) api: u32,
    pub(super) timelines: bool,
    pub(super) limits: &'a vk::PhysicalDeviceLimits,
    pub(super) queues: Option<Queues>,
}

impl Abilities<'_> {
    /// Needs of the backend that the device lacks, in words.
    pub(super) fn missing(&self) -> Vec<String> {
        let limits = self.limits;
        let mut missing = Vec::new();
        let mut need = |there: bool, what: &dyn Fn() -> String| {
            if !there {
                missing.push(what());
            }
        };
        need(self.api >= vk::API_VERSION_1_2, &|| {
            format!("Vulkan 1.2 (the driver has {}; update it)", super::instance::show_version(self.api))
        });
        need(self.timelines, &|| "timeline semaphores".into());
        need(self.queues.is_some(), &|| "a compute queue".into());
        need(limits.max_push_constants_size >= IMMEDIATES, &|| format!("{IMMEDIATES} bytes of push constants"));
        let kernels = Kernel::all();
        let bindings = kernels.iter().map(|k| k.bindings.len() as u32).max().unwrap_or(0);
        need(limits.max_per_stage_descriptor_storage_buffers >= bindings, &|| {
            format!("{bindings} storage buffers a shader")
        });
        let threads = kernels.iter().map(|k| k.workgroup.iter().product::<u32>()).max().unwrap_or(0);
        need(limits.max_compute_work_group_invocations >= threads, &|| format!("workgroups of {threads}"));
        let memory = kernels.iter().map(|k| k.workgroup_memory.iter().sum::<u32>()).max().unwrap_or(0);
        need(limits.max_compute_shared_memory_size >= memory, &|| format!("{memory} bytes of workgroup memory"));
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vk::QueueFlags as Flags;

    fn family(queue_flags: Flags, queue_count: u32) -> vk::QueueFamilyProperties {
        vk::QueueFamilyProperties { queue_flags, queue_count, ..Default::default() }
    }

    fn at(family: u32, index: u32) -> QueueAt {
        QueueAt { family, index }
    }

    #[test]
    fn better_kinds_come_first() {
        let mut kinds = [
            vk::PhysicalDeviceType::CPU,
            vk::PhysicalDeviceType::OTHER,
            vk::PhysicalDeviceType::VIRTUAL_GPU,
            vk::PhysicalDeviceType::INTEGRATED_GPU,
            vk::PhysicalDeviceType::DISCRETE_GPU,
        ]
        .map(DeviceKind::of);
        kinds.sort();
        use DeviceKind::*;
        assert_eq!(kinds, [Discrete, Integrated, Virtual, Software, Other]);
    }

    #[test]
    fn queues_are_apart_where_the_hardware_has_them_apart() {
        let all = Flags::GRAPHICS | Flags::COMPUTE | Flags::TRANSFER;
        let nvidia = [family(all, 16), family(Flags::TRANSFER, 2), family(Flags::COMPUTE | Flags::TRANSFER, 8)];
        assert_eq!(Queues::choose(&nvidia), Some(Queues { compute: at(2, 0), transfer: at(1, 0) }));
        let video = [family(all, 1), family(Flags::TRANSFER | Flags::VIDEO_DECODE_KHR, 1)];
        let one = Queues::choose(&video).unwrap();
        assert!(one.shared() && one.compute == at(0, 0));
        assert_eq!(Queues::choose(&[family(all, 4)]), Some(Queues { compute: at(0, 0), transfer: at(0, 1) }));
        assert_eq!(Queues::choose(&[family(Flags::GRAPHICS | Flags::TRANSFER, 1)]), None);
    }

    #[test]
    fn what_is_missing_is_named() {
        let limits = vk::PhysicalDeviceLimits {
            max_push_constants_size: 128,
            max_per_stage_descriptor_storage_buffers: 1 << 20,
            max_compute_work_group_invocations: 1024,
            max_compute_shared_memory_size: 32 << 10,
            ..Default::default()
        };
        let queues = Queues::choose(&[family(Flags::COMPUTE, 1)]);
        let good = Abilities { api: vk::API_VERSION_1_2, timelines: true, limits: &limits, queues };
        assert!(good.missing().is_empty());
        let old = Abilities { api: vk::make_api_version(0, 1, 1, 108), timelines: false, ..good };
        assert_eq!(old.missing(), ["Vulkan 1.2 (the driver has 1.1.108; update it)", "timeline semaphores"]);
        let poor = vk::PhysicalDeviceLimits { max_compute_work_group_invocations: 64, ..limits };
        assert_eq!(Abilities { limits: &poor, ..good }.missing().len(), 1);
        assert_eq!(Abilities { queues: None, ..good }.missing(), ["a compute queue"]);
    }
}
