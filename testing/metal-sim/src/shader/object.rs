//! A shared object and what it exports. Objects stay loaded: functions point into them.

use super::host::{self, Host};
use super::signature::Kernel;
use super::{group::Group, wrapper};
use std::ffi::{CStr, CString, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Runs the threads `first..end` of a threadgroup, writing each one's index to the last argument first.
pub(super) type Entry = unsafe extern "C" fn(*const *mut u8, *const *mut u8, *const Group, u32, u32, *mut u32);

/// Layout of the type behind a parameter; zeros for a value. Declared in sim_entry.h as well.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) size: usize,
    pub(super) align: usize,
    /// 1 where the element is a struct, as every atomic is.
    pub(super) class: usize,
}

pub(super) struct Object(*mut c_void);

impl Object {
    pub(super) fn open(path: &Path) -> Result<Object, String> {
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|e| format!("{}: {e}", path.display()))?;
        // SAFETY: the name is a C string; the object is ours and has no initializers.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            // SAFETY: after a failure dlerror gives a C string that stays valid until this thread's next dl call.
            let message = unsafe { CStr::from_ptr(libc::dlerror()) };
            return Err(format!("{} cannot be loaded: {}", path.display(), message.to_string_lossy()));
        }
        let object = Object(handle);
        let bind = object.symbol(wrapper::BIND)?;
        // SAFETY: the symbol is the function of that signature that wrapper.rs writes.
        let bind: unsafe extern "C" fn(*const Host) = unsafe { std::mem::transmute(bind) };
        // SAFETY: the table is static.
        unsafe { bind(&host::HOST) };
        Ok(object)
    }

    fn symbol(&self, name: &str) -> Result<*mut c_void, String> {
        let c_name = CString::new(name).map_err(|e| format!("{name}: {e}"))?;
        // SAFETY: the handle is open, the name a C string.
        let address = unsafe { libc::dlsym(self.0, c_name.as_ptr()) };
        if address.is_null() { Err(format!("the compiled object lacks {name}")) } else { Ok(address) }
    }

    pub(super) fn entry(&self, kernel: &str) -> Result<Entry, String> {
        let address = self.symbol(&wrapper::run_symbol(kernel))?;
        // SAFETY: the symbol is the function of that signature that wrapper.rs writes.
        Ok(unsafe { std::mem::transmute::<*mut c_void, Entry>(address) })
    }

    /// Layouts of the kernel's parameters, in their order.
    pub(super) fn layouts(&self, kernel: &Kernel) -> Result<Vec<Layout>, String> {
        let first = self.symbol(&wrapper::layout_symbol(&kernel.name))?.cast::<Layout>();
        // SAFETY: the symbol is an array with one entry for each parameter of the function that was parsed.
        Ok(unsafe { std::slice::from_raw_parts(first, kernel.parameters.len()) }.to_vec())
    }
}
