//! The fault buffer: how a kernel reports an input that leads outside of its buffers.
//!
//! Two u32 in device memory, zero when a submission begins. The kernel that finds a fault writes (op's number << 8 | code) into the
//! first, if it is still 0, and the offending value into the second; kernels that start with a fault there do nothing.

use mlx_serving_device::DeviceError;

/// Bytes of the fault buffer.
pub const BYTES: u64 = 8;

/// The error of what a submission left in the fault buffer; `None` if it is good.
pub fn error(words: [u32; 2]) -> Option<DeviceError> {
    let [word, value] = words;
    if word == 0 {
        return None;
    }
    let op = word >> 8;
    let what = match word & 255 {
        1 => format!("embed: token {value} is outside of the vocabulary"),
        2 => format!("embed: sampled token {value} is not there"),
        3 => format!("linear: input row {value} is not there"),
        4 => format!("attend: span {value} leads outside of the batch, its context or its block table"),
        5 => format!("attend: block {value} is outside of the cache"),
        6 => format!("observe: token {value} is outside of the vocabulary"),
        7 => format!("sample: history row {value} is not there"),
        8 => format!("sample: bias {value} is not there"),
        9 => format!("sample: mask row {value} is not there"),
        10 => format!("experts: expert {value} is not there"),
        code => format!("unknown fault {code} ({value})"),
    };
    Some(DeviceError::Contract(format!("{what} (op {op} of its command buffer)")))
}
