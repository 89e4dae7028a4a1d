//! Shapes that a device's matrix units multiply.

use super::instance::Instance;
use ash::{khr, vk};
use std::ffi::CStr;

/// The extension.
pub(super) const EXTENSION: &CStr = khr::cooperative_matrix::NAME;
/// Threads of a workgroup of the kernels that use matrix units: whole subgroups.
const THREADS: u32 = 256;

/// Side of the squares, 16 or 8, whose f16 products a subgroup of the device adds up in f32; none if it cannot, or if another thing that
/// the kernels need for it is missing. The device has the extension.
pub(super) fn side(instance: &Instance, physical: vk::PhysicalDevice, subgroup: u32) -> Option<u32> {
    let mut matrix = vk::PhysicalDeviceCooperativeMatrixFeaturesKHR::default();
    let mut v11 = vk::PhysicalDeviceVulkan11Features::default();
    let mut v12 = vk::PhysicalDeviceVulkan12Features::default();
    let mut features =
        vk::PhysicalDeviceFeatures2::default().push_next(&mut matrix).push_next(&mut v11).push_next(&mut v12);
    // SAFETY: the device is the living instance's and knows structures of 1.2 and of its extension.
    unsafe { instance.raw.get_physical_device_features2(physical, &mut features) };
    let needed = [
        matrix.cooperative_matrix,
        v11.storage_buffer16_bit_access,
        v11.uniform_and_storage_buffer16_bit_access,
        v12.shader_float16,
        v12.vulkan_memory_model,
        // With that model, the atomics of the other kernels need this.
        v12.vulkan_memory_model_device_scope,
    ];
    if needed.contains(&vk::FALSE) || subgroup == 0 || !THREADS.is_multiple_of(subgroup) {
        return None;
    }
    // SAFETY: as above.
    let offered = unsafe { instance.matrices.get_physical_device_cooperative_matrix_properties(physical) };
    choose(&offered.unwrap_or_default())
}

/// Asks for the features that [`side`] needs.
pub(super) fn enable(
    v11: &mut vk::PhysicalDeviceVulkan11Features<'_>,
    v12: &mut vk::PhysicalDeviceVulkan12Features<'_>,
) {
    (v11.storage_buffer16_bit_access, v11.uniform_and_storage_buffer16_bit_access) = (vk::TRUE, vk::TRUE);
    v12.shader_float16 = vk::TRUE;
    (v12.vulkan_memory_model, v12.vulkan_memory_model_device_scope) = (vk::TRUE, vk::TRUE);
}

fn choose(offered: &[vk::CooperativeMatrixPropertiesKHR<'_>]) -> Option<u32> {
    use vk::ComponentTypeKHR as Type;
    [16, 8].into_iter().find(|side| {
        offered.iter().any(|o| {
            [o.m_size, o.n_size, o.k_size] == [*side; 3]
                && [o.a_type, o.b_type, o.c_type, o.result_type]
                    == [Type::FLOAT16, Type::FLOAT16, Type::FLOAT32, Type::FLOAT32]
                && o.scope == vk::ScopeKHR::SUBGROUP
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use vk::ComponentTypeKHR as Type;

    fn offer([m_size, n_size, k_size]: [u32; 3], from: Type, to: Type) -> vk::CooperativeMatrixPropertiesKHR<'static> {
        vk::CooperativeMatrixPropertiesKHR {
            m_size,
            n_size,
            k_size,
            a_type: from,
            b_type: from,
            c_type: to,
            result_type: to,
            scope: vk::ScopeKHR::SUBGROUP,
            ..Default::default()
        }
    }

    #[test]
    fn the_larger_squares_of_f16_into_f32_are_chosen() {
        let (f16, f32, s8, s32) = (Type::FLOAT16, Type::FLOAT32, Type::SINT8, Type::SINT32);
        let good = [offer([8; 3], f16, f32), offer([16; 3], f16, f32)];
        assert_eq!(choose(&good), Some(16));
        assert_eq!(choose(&good[..1]), Some(8));
        let wrong = [
            offer([16, 8, 16], f16, f32),
            offer([16; 3], f16, f16),
            offer([16; 3], s8, s32),
            offer([32; 3], f16, f32),
            vk::CooperativeMatrixPropertiesKHR { scope: vk::ScopeKHR::WORKGROUP, ..good[1] },
        ];
        assert_eq!(choose(&wrong), None);
    }
}
