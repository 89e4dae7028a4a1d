use super::messages::{Messages, messenger};
use crate::error::driver;
use ash::{Entry, ext, khr, vk};
use mlx_serving_device::{DeviceError, Result};
use std::ffi::CStr;
use std::sync::Arc;

const VALIDATION: &CStr = c"VK_LAYER_KHRONOS_validation";

/// The loader and an instance, alive as long as anything made from them.
pub(crate) struct Instance {
    pub(super) raw: ash::Instance,
    /// Functions of extensions that some of the devices have.
    pub(super) calibrated: ext::calibrated_timestamps::Instance,
    pub(super) matrices: khr::cooperative_matrix::Instance,
    pub(crate) messages: Arc<Messages>,
    debug: Option<(ext::debug_utils::Instance, vk::DebugUtilsMessengerEXT)>,
    _entry: Entry,
}

impl Instance {
    /// Loads the loader and makes an instance for Vulkan 1.2, with the validation layer if asked.
    pub(crate) fn new(validation: bool) -> Result<Arc<Self>> {
        // SAFETY: the system's loader is trusted as the drivers that it loads are; it stays loaded until `_entry` drops.
        let entry = unsafe { Entry::load() }.map_err(|e| {
            DeviceError::Unsupported(format!(
                "no Vulkan loader ({e}); install it (Debian: libvulkan1) and the GPU's Vulkan driver"
            ))
        })?;
        let version = version_of(&entry)?;
        if version < vk::API_VERSION_1_2 {
            return Err(DeviceError::Unsupported(format!(
                "the Vulkan loader has version {}, 1.2 is needed; update it",
                show_version(version)
            )));
        }
        let messages = Arc::new(Messages::default());
        let raw = create(&entry, validation.then_some(&*messages))?;
        let debug = validation.then(|| attach(&entry, &raw, &messages)).transpose()?;
        let calibrated = ext::calibrated_timestamps::Instance::new(&entry, &raw);
        let matrices = khr::cooperative_matrix::Instance::new(&entry, &raw);
        Ok(Arc::new(Self { raw, calibrated, matrices, messages, debug, _entry: entry }))
    }

    /// The physical devices, in the driver's order.
    pub(super) fn physical_devices(&self) -> Result<Vec<vk::PhysicalDevice>> {
        // SAFETY: the instance is alive.
        unsafe { self.raw.enumerate_physical_devices() }.map_err(|e| match e {
            vk::Result::ERROR_INITIALIZATION_FAILED | vk::Result::ERROR_INCOMPATIBLE_DRIVER => no_driver(),
            e => driver("a list of its devices", e),
        })
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: whoever uses the instance holds an `Arc` of it, so nothing made from it is left.
        unsafe {
            if let Some((debug, messenger)) = &self.debug {
                debug.destroy_debug_utils_messenger(*messenger, None);
            }
            self.raw.destroy_instance(None);
        }
    }
}

/// The error of a machine that has a loader and no driver.
pub(crate) fn no_driver() -> DeviceError {
    DeviceError::Unsupported(
        "no Vulkan driver; install the GPU vendor's, or Mesa's (Debian: mesa-vulkan-drivers), which also has a software one"
            .into(),
    )
}

/// `1.2.170` of a packed version.
pub(crate) fn show_version(version: u32) -> String {
    let (major, minor) = (vk::api_version_major(version), vk::api_version_minor(version));
    format!("{major}.{minor}.{}", vk::api_version_patch(version))
}

fn version_of(entry: &Entry) -> Result<u32> {
    // SAFETY: the loader is loaded.
    let version = unsafe { entry.try_enumerate_instance_version() };
    Ok(version.map_err(|e| driver("its version", e))?.unwrap_or(vk::API_VERSION_1_0))
}

fn create(entry: &Entry, validation: Option<&Messages>) -> Result<ash::Instance> {
    let application = vk::ApplicationInfo::default()
        .application_name(c"mlx-serving")
        .engine_name(c"mlx-serving")
        .api_version(vk::API_VERSION_1_2);
    let mut info = vk::InstanceCreateInfo::default().application_info(&application);
    let enabled =
        [vk::ValidationFeatureEnableEXT::SYNCHRONIZATION_VALIDATION, vk::ValidationFeatureEnableEXT::BEST_PRACTICES];
    let mut features = vk::ValidationFeaturesEXT::default().enabled_validation_features(&enabled);
    // Layers since 1.3.290 look for hazards between shaders only if told to.
    let on = vk::TRUE.to_ne_bytes();
    let setting = vk::LayerSettingEXT::default()
        .layer_name(VALIDATION)
        .setting_name(c"syncval_shader_accesses_heuristic")
        .ty(vk::LayerSettingTypeEXT::BOOL32)
        .values(&on);
    // The binding counts bytes, Vulkan counts values.
    let settings = [vk::LayerSettingEXT { value_count: 1, ..setting }];
    let mut settings = vk::LayerSettingsCreateInfoEXT::default().settings(&settings);
    let (layers, mut extensions) = ([VALIDATION.as_ptr()], Vec::new());
    let mut debug;
    if let Some(messages) = validation {
        let offered = layer_extensions(entry)?;
        extensions.extend([ext::debug_utils::NAME.as_ptr(), ext::validation_features::NAME.as_ptr()]);
        if offered.iter().any(|e| e.extension_name_as_c_str() == Ok(ext::layer_settings::NAME)) {
            extensions.push(ext::layer_settings::NAME.as_ptr());
            info = info.push_next(&mut settings);
        }
        debug = messenger(messages);
        info = info.enabled_layer_names(&layers).push_next(&mut features).push_next(&mut debug);
    }
    // SAFETY: everything that `info` points to lives to the end of this function.
    let instance = unsafe { entry.create_instance(&info.enabled_extension_names(&extensions), None) };
    instance.map_err(|e| match e {
        vk::Result::ERROR_INCOMPATIBLE_DRIVER => no_driver(),
        e => driver("an instance", e),
    })
}

/// Extensions of the validation layer; an error that says how to get it if there is none.
fn layer_extensions(entry: &Entry) -> Result<Vec<vk::ExtensionProperties>> {
    // SAFETY: the loader is loaded.
    let found = unsafe { entry.enumerate_instance_extension_properties(Some(VALIDATION)) };
    found.map_err(|e| {
        DeviceError::Unsupported(format!(
            "no Vulkan validation layer ({e}); install it (Debian: vulkan-validationlayers) or switch validation off"
        ))
    })
}

fn attach(
    entry: &Entry,
    instance: &ash::Instance,
    messages: &Messages,
) -> Result<(ext::debug_utils::Instance, vk::DebugUtilsMessengerEXT)> {
    let debug = ext::debug_utils::Instance::new(entry, instance);
    // SAFETY: the extension is enabled, and `messages` is kept by the `Instance`, and lives as long as the instance.
    let messenger = unsafe { debug.create_debug_utils_messenger(&messenger(messages), None) };
    Ok((debug, messenger.map_err(|e| driver("a debug messenger", e))?))
}
