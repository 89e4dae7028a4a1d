use crate::params::Head;
use crate::variant::Variant;
use flate2::read::ZlibDecoder;
use mlx_serving_device::Buffer;
use std::io::Read;

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// Access of a kernel to a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reads the binding.
    Read,
    /// Writes the binding, and may read it.
    Write,
}

/// A compute kernel in both languages. Its last binding is the fault buffer (see [`crate::fault`]); in MSL binding i is
/// `[[buffer(i)]]`, the immediates are the buffer after the last binding, the one after that holds a u32 for each binding, the bytes
/// of its bound range, and each workgroup variable is a threadgroup argument.
#[derive(Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Index in [`Kernel::all`].
    pub index: usize,
    /// Stem and constants.
    pub name: &'static str,
    spirv: Packed,
    /// Name of the entry point in SPIR-V.
    pub spirv_entry: &'static str,
    #[cfg(feature = "msl")]
    msl: Packed,
    /// Name of the function in MSL.
    #[cfg(feature = "msl")]
    pub msl_entry: &'static str,
    /// Access of each binding, the fault buffer's last: kernels that may raise a fault write it, all others read it.
    pub bindings: &'static [Access],
    /// Invocations of a workgroup.
    pub workgroup: [u32; 3],
    /// Bytes of each workgroup variable that it uses, in order.
    pub workgroup_memory: &'static [u32],
    /// Side of the squares that a device's matrix units must multiply for it, f16 into f32; none if it needs no such units.
    pub matrix_side: Option<u32>,
}

impl Kernel {
    /// Lists every kernel.
    pub fn all() -> &'static [Kernel] {
        KERNELS
    }

    /// SPIR-V 1.3, little-endian words.
    pub fn spirv(&self) -> Vec<u8> {
        self.spirv.unpack()
    }

    /// Metal Shading Language 2.4.
    #[cfg(feature = "msl")]
    pub fn msl(&self) -> String {
        String::from_utf8(self.msl.unpack()).expect("the build script packed a String")
    }

    /// Kernels that a device with matrix units of that side, or with none, can run.
    pub fn usable(matrix_side: Option<u32>) -> impl Iterator<Item = &'static Kernel> {
        KERNELS.iter().filter(move |kernel| kernel.matrix_side.is_none() || kernel.matrix_side == matrix_side)
    }
}

/// A kernel's code, compressed: unpacked, that of all would be up to a third of the program, and each is needed once.
#[derive(Debug, PartialEq, Eq)]
struct Packed(&'static [u8]);

impl Packed {
    fn unpack(&self) -> Vec<u8> {
        let mut code = Vec::new();
        ZlibDecoder::new(self.0).read_to_end(&mut code).expect("the build script packed it");
        code
    }
}

impl Variant {
    /// The kernel of that key.
    pub(crate) fn kernel(self) -> &'static Kernel {
        &KERNELS[index(self)]
    }
}

/// A dispatch of a kernel.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Kernel to run.
    pub kernel: &'static Kernel,
    /// Buffers by binding, without the fault buffer.
    pub bindings: Vec<Buffer>,
    /// Workgroups.
    pub groups: [u32; 3],
    /// Approximate work in multiply-adds: for cutting long submissions.
    pub work: u64,
    /// The kernel's own immediates, after the head: bytes of its struct of params.rs.
    pub(crate) params: Vec<u8>,
}

impl Launch {
    /// The bytes of the immediates (push constants), a multiple of 16 and at most 128. `align` is the multiple of bytes at which the device binds
    /// buffers, at most 256 ([`Self::bound`] says where); `op` is the number that a fault reports.
    pub fn immediates(&self, align: u64, op: u32) -> Vec<u8> {
        let mut head = Head { op, ..Head::default() };
        for (base, buffer) in head.base.iter_mut().zip(&self.bindings) {
            *base = (buffer.offset() % align / 4) as u8;
        }
        let mut bytes = [bytemuck::bytes_of(&head), &self.params].concat();
        bytes.resize(bytes.len().next_multiple_of(16), 0);
        bytes
    }

    /// The range of memory to bind for `buffer`: (offset, length) in bytes, the offset a multiple of `align`.
    pub fn bound(buffer: &Buffer, align: u64) -> (u64, u64) {
        let offset = buffer.offset() / align * align;
        (offset, (buffer.offset() + buffer.len() - offset).next_multiple_of(4))
    }
}
