//! Additions of the build script to SPIR-V whose memory model is Vulkan's.

#[path = "../memory_model.rs"]
mod memory_model;

/// An instruction: its opcode and its operands.
fn instruction(opcode: u32, operands: &[u32]) -> Vec<u32> {
    [&[(operands.len() as u32 + 1) << 16 | opcode], operands].concat()
}

/// A module that loads and stores through a workgroup variable (id 6), an element of it (7) and a private one (8), with two barriers
/// whose semantics are a constant (4) that a store writes, too; in that memory model.
fn module(model: u32) -> Vec<u32> {
    let header = vec![0x0723_0203, 0x0001_0300, 0, 20, 0];
    let instructions = [
        instruction(14, &[0, model]),
        instruction(32, &[2, 4, 1]),
        instruction(32, &[3, 6, 1]),
        instruction(43, &[1, 4, 264]),
        instruction(59, &[2, 6, 4]),
        instruction(59, &[3, 8, 6]),
        instruction(54, &[1, 9, 0, 10]),
        instruction(65, &[2, 7, 6, 4]),
        instruction(61, &[1, 11, 7]),
        instruction(61, &[1, 12, 8]),
        instruction(224, &[5, 5, 4]),
        instruction(62, &[6, 4]),
        instruction(62, &[8, 4]),
        instruction(4457, &[13, 14, 7, 4, 4]),
        instruction(224, &[5, 5, 4]),
        instruction(4458, &[7, 14, 4, 4]),
    ];
    [header, instructions.concat()].concat()
}

#[test]
fn workgroup_accesses_are_shared_and_barriers_make_them_visible() {
    let (mut words, before) = (module(3), module(3));
    memory_model::complete(&mut words);
    assert_eq!(words[3], 21, "one id more");
    let mut expected = before[..5].to_vec();
    expected[3] = 21;
    let kept = |range: std::ops::Range<usize>| before[range].to_vec();
    // The instructions before the function have 3, 4, 4, 4, 4 and 4 words.
    expected.extend(kept(5..28));
    expected.extend(instruction(43, &[1, 20, 264 | 0x6000]));
    expected.extend(
        [
            instruction(54, &[1, 9, 0, 10]),
            instruction(65, &[2, 7, 6, 4]),
            instruction(61, &[1, 11, 7, 0x20]),
            instruction(61, &[1, 12, 8]),
            instruction(224, &[5, 5, 20]),
            instruction(62, &[6, 4, 0x20]),
            instruction(62, &[8, 4]),
            instruction(4457, &[13, 14, 7, 4, 4, 0x20]),
            instruction(224, &[5, 5, 20]),
            instruction(4458, &[7, 14, 4, 4, 0x20]),
        ]
        .concat(),
    );
    assert_eq!(words, expected);
}

#[test]
fn other_memory_models_need_nothing() {
    let mut words = module(1);
    memory_model::complete(&mut words);
    assert_eq!(words, module(1));
}
