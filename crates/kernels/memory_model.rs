//! Completes what naga 30 leaves out where a module has Vulkan's memory model, as matrix units demand: in that model an access is
//! private to its invocation, and a barrier makes nothing visible, unless they say otherwise (wgpu issue 8805).

use std::collections::BTreeMap;

/// Words of a module's header, and which of them is the bound of its ids.
const HEADER: usize = 5;
const BOUND: usize = 3;

/// Numbers of SPIR-V's specification, 1.6.
mod spirv {
    pub(super) const MEMORY_MODEL: u32 = 14;
    pub(super) const TYPE_POINTER: u32 = 32;
    pub(super) const CONSTANT: u32 = 43;
    pub(super) const FUNCTION: u32 = 54;
    pub(super) const VARIABLE: u32 = 59;
    pub(super) const LOAD: u32 = 61;
    pub(super) const STORE: u32 = 62;
    pub(super) const ACCESS_CHAIN: u32 = 65;
    pub(super) const CONTROL_BARRIER: u32 = 224;
    pub(super) const MATRIX_LOAD: u32 = 4457;
    pub(super) const MATRIX_STORE: u32 = 4458;
    pub(super) const VULKAN: u32 = 3;
    pub(super) const WORKGROUP: u32 = 4;
    pub(super) const NON_PRIVATE: u32 = 0x20;
    pub(super) const MAKE_AVAILABLE_AND_VISIBLE: u32 = 0x2000 | 0x4000;
}

/// Accesses to workgroup memory become non-private, and barriers make writes available and visible.
pub(crate) fn complete(words: &mut Vec<u32>) {
    let mut instructions = split(words);
    if !instructions.iter().any(|i| opcode(i) == spirv::MEMORY_MODEL && i[2] == spirv::VULKAN) {
        return;
    }
    let of = |wanted| instructions.iter().filter(move |i| opcode(i) == wanted);
    let types: Vec<u32> = of(spirv::TYPE_POINTER).filter(|i| i[2] == spirv::WORKGROUP).map(|i| i[1]).collect();
    let results = of(spirv::ACCESS_CHAIN).chain(of(spirv::VARIABLE)).filter(|i| types.contains(&i[1]));
    let pointers: Vec<u32> = results.map(|i| i[2]).collect();
    // Constants of their own, since naga shares those of equal value.
    let mut semantics: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for barrier in of(spirv::CONTROL_BARRIER) {
        let mut constant = of(spirv::CONSTANT).find(|i| i[2] == barrier[3]).expect("semantics are a constant").clone();
        constant[2] = words[BOUND] + semantics.len() as u32;
        constant[3] |= spirv::MAKE_AVAILABLE_AND_VISIBLE;
        semantics.entry(barrier[3]).or_insert(constant);
    }
    for instruction in &mut instructions {
        // Where the pointer stands, and how many words the instruction has without memory operands.
        let (pointer, bare) = match opcode(instruction) {
            spirv::LOAD => (3, 4),
            spirv::STORE => (1, 3),
            spirv::MATRIX_LOAD => (3, 6),
            spirv::MATRIX_STORE => (1, 5),
            spirv::CONTROL_BARRIER => {
                instruction[3] = semantics[&instruction[3]][2];
                continue;
            }
            _ => continue,
        };
        if pointers.contains(&instruction[pointer]) {
            assert_eq!(instruction.len(), bare, "naga writes memory operands now: {instruction:?}");
            instruction.push(spirv::NON_PRIVATE);
            instruction[0] += 1 << 16;
        }
    }
    let functions = instructions.iter().position(|i| opcode(i) == spirv::FUNCTION).expect("there is a function");
    words[BOUND] += semantics.len() as u32;
    instructions.splice(functions..functions, semantics.into_values());
    words.truncate(HEADER);
    words.extend(instructions.concat());
}

/// The instructions after the header.
fn split(words: &[u32]) -> Vec<Vec<u32>> {
    let mut rest = &words[HEADER..];
    let mut instructions = Vec::new();
    while let [first, ..] = rest {
        let (instruction, others) = rest.split_at((first >> 16) as usize);
        instructions.push(instruction.to_vec());
        rest = others;
    }
    instructions
}

fn opcode(instruction: &[u32]) -> u32 {
    instruction[0] & 0xffff
}
