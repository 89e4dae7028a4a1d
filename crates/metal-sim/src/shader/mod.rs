//! Stand-in until the compiler of MSL is merged: no source compiles.
use std::sync::Arc;

pub struct Library;
impl Library {
    pub fn compile(_msl: &str) -> Result<Arc<Library>, String> {
        Err("this build of metal-sim has no shader compiler".into())
    }
    pub fn function(&self, _name: &str) -> Option<Arc<Function>> {
        None
    }
}
pub enum Access {
    Read,
    Write,
}
pub enum Argument {
    Buffer { index: usize, access: Access, name: String, min_len: usize },
    Threadgroup { index: usize, min_len: usize },
}
pub struct Function;
impl Function {
    pub fn name(&self) -> &str {
        ""
    }
    pub fn arguments(&self) -> &[Argument] {
        &[]
    }
    pub fn run(&self, _dispatch: &Dispatch) -> Result<(), String> {
        Ok(())
    }
}
pub struct Dispatch<'a> {
    pub groups: [u32; 3],
    pub threads: [u32; 3],
    pub buffers: &'a [Option<(*mut u8, usize)>],
    pub threadgroup: &'a [usize],
    pub seed: u64,
}
