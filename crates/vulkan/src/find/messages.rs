use ash::vk;
use std::borrow::Cow;
use std::ffi::{CStr, c_char, c_void};
use std::sync::{Arc, Mutex, PoisonError};

/// Messages kept; more than that says nothing new.
const KEPT: usize = 1000;

/// Messages about what is so on purpose.
const EXPECTED: [&str; 9] = [
    // A wait for the other queue holds the whole piece, its first timestamp included.
    "BestPractices-pipeline-stage-flags",
    // Asking for validation is what enables them.
    "BestPractices-vkCreateInstance-specialuse-extension-debugging",
    "enable extension VK_EXT_debug_utils, but this extension is intended",
    "enable extension VK_EXT_validation_features, but this extension is intended",
    // The older names are those that older drivers and layers have, too.
    "enable deprecated extension VK_EXT_validation_features",
    "enable deprecated extension VK_EXT_calibrated_timestamps",
    // Callers ask for dedicated buffers of any size; what they need often, they place in heaps.
    "BestPractices-vkAllocateMemory-small-allocation",
    "BestPractices-vkBindMemory-small-dedicated-allocation",
    "BestPractices-vkBindBufferMemory-small-dedicated-allocation",
];

/// Warnings and errors of the layers.
#[derive(Debug, Default)]
pub(crate) struct Messages(Mutex<Vec<String>>);

impl Messages {
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn push(&self, message: String) {
        tracing::warn!(target: "vulkan", "{message}");
        let mut messages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if messages.len() < KEPT && !EXPECTED.iter().any(|expected| message.contains(expected)) {
            messages.push(message);
        }
    }
}

/// Log of the validation layer, also of what it says while the device is dropped.
#[derive(Debug, Clone)]
pub struct ValidationLog(pub(crate) Arc<Messages>);

impl ValidationLog {
    /// Warnings and errors so far.
    pub fn messages(&self) -> Vec<String> {
        self.0.all()
    }
}

/// A messenger that collects warnings and errors in `messages`, which must outlive it.
pub(super) fn messenger(messages: &Messages) -> vk::DebugUtilsMessengerCreateInfoEXT<'_> {
    use vk::{DebugUtilsMessageSeverityFlagsEXT as Severity, DebugUtilsMessageTypeFlagsEXT as Type};
    vk::DebugUtilsMessengerCreateInfoEXT::default()
        .message_severity(Severity::WARNING | Severity::ERROR)
        .message_type(Type::GENERAL | Type::VALIDATION | Type::PERFORMANCE)
        .pfn_user_callback(Some(receive))
        .user_data(std::ptr::from_ref(messages).cast_mut().cast())
}

unsafe extern "system" fn receive(
    severity: vk::DebugUtilsMessageSeverityFlagsEXT,
    _: vk::DebugUtilsMessageTypeFlagsEXT,
    data: *const vk::DebugUtilsMessengerCallbackDataEXT<'_>,
    user: *mut c_void,
) -> vk::Bool32 {
    // SAFETY: `user` is the `Messages` of `messenger`, which outlives the messenger.
    let messages = unsafe { &*user.cast_const().cast::<Messages>() };
    // SAFETY: the loader passes valid data for the time of the call.
    let data = unsafe { &*data };
    // SAFETY: as above, the strings of the data are valid.
    let [id, text] = [data.p_message_id_name, data.p_message].map(|text| unsafe { show(text) });
    messages.push(format!("{severity:?} {id}: {text}"));
    vk::FALSE
}

/// A string of the loader, empty if there is none.
///
/// # Safety
/// `text` is null, or ends in a zero and lives as long as the result.
unsafe fn show<'a>(text: *const c_char) -> Cow<'a, str> {
    // SAFETY: the caller's promise.
    if text.is_null() { Cow::Borrowed("") } else { unsafe { CStr::from_ptr(text) }.to_string_lossy() }
}
