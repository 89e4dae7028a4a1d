use mlx_serving_device::DeviceError;
use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2_foundation::NSError;

/// A retained Metal object that is known by its protocol.
pub(crate) type Object<P> = Retained<ProtocolObject<P>>;

/// An object that the bindings keep to one thread, and Metal does not.
pub(crate) struct AnyThread<T>(T);

impl<T> AnyThread<T> {
    /// # Safety
    /// Uses of the object from several threads at once are safe in Metal, or excluded by the caller.
    pub(crate) unsafe fn new(object: T) -> Self {
        Self(object)
    }
}

// SAFETY: the promise made to `new`.
unsafe impl<T> Send for AnyThread<T> {}
// SAFETY: the promise made to `new`.
unsafe impl<T> Sync for AnyThread<T> {}

impl<T> std::ops::Deref for AnyThread<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// The error of a call that answers nil without saying why.
pub(crate) fn refused(what: &str) -> DeviceError {
    DeviceError::Lost(format!("Metal gave no {what}"))
}

/// Text of a framework's error.
pub(crate) fn text(error: &NSError) -> String {
    error.localizedDescription().to_string()
}
