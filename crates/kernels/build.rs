//! Renders each kernel's template for every variant, validates it with naga, and writes SPIR-V, MSL and a table of both, with checks of
//! the immediates' layout.

use flate2::Compression;
use flate2::write::ZlibEncoder;
use minijinja::{Environment, Value};
use naga::back::{msl, spv};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, Handle, Module, Scalar, StorageAccess, StructMember, Type, TypeInner};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};
use variant::Variant;

mod memory_model;
#[path = "src/variant.rs"]
mod variant;
mod variants;

fn main() {
    println!("cargo::rerun-if-changed=src/wgsl");
    println!("cargo::rerun-if-changed=src/variant.rs");
    println!("cargo::rerun-if-changed=variants.rs");
    println!("cargo::rerun-if-changed=memory_model.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let mut templates = Environment::new();
    templates.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    templates.set_loader(|name| Ok(fs::read_to_string(Path::new("src/wgsl").join(name)).ok()));
    let mut table = String::from("pub(crate) static KERNELS: &[Kernel] = &[\n");
    let (mut arms, mut checks) = (String::new(), BTreeSet::new());
    for (index, variant) in Variant::all().into_iter().enumerate() {
        let template = templates.get_template(&format!("{}.wgsl", variant.stem())).expect("every stem has a template");
        let context: BTreeMap<&str, Value> = variant.constants().into_iter().map(|(k, v)| (k, v.into())).collect();
        let wgsl = template.render(context).unwrap_or_else(|e| panic!("{}: {e:#}", variant.name()));
        let (kernel, check) = translate(index, variant, &wgsl, &out);
        table.push_str(&kernel);
        checks.insert(check);
        // A key's debug form is its pattern.
        writeln!(arms, "{variant:?} => {index},").expect("a String can be written");
    }
    let names =
        "use crate::variant::{Bits::*, Code::*, Items::*, Kv::*, Queries::*, Side::*, Small::*, Tile::*, Variant::*};";
    let checks: String = checks.into_iter().collect();
    write!(table, "];\nfn index(variant: Variant) -> usize {{ {names} match variant {{ {arms} }} }}\n{checks}")
        .expect("a String can be written");
    fs::write(out.join("kernels.rs"), table).expect("OUT_DIR can be written");
}

/// Writes `{name}.spv.z` and `{name}.metal.z`, compressed; returns the kernel's line of the table, and the check of its immediates.
fn translate(index: usize, variant: Variant, wgsl: &str, out: &Path) -> (String, String) {
    let name = &variant.name();
    let module = naga::front::wgsl::parse_str(wgsl).unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(wgsl)));
    let mut capabilities = Capabilities::IMMEDIATES | Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    if variant.matrix_side().is_some() {
        capabilities |= Capabilities::COOPERATIVE_MATRIX | Capabilities::SHADER_FLOAT16 | Capabilities::SUBGROUP;
    }
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .validate(&module)
        .unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(wgsl)));
    let entry = &module.entry_points[0];

    let options = spv::Options {
        lang_version: (1, 3),
        flags: spv::WriterFlags::empty(),
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: false,
        emit_int_div_checks: false,
        use_storage_input_output_16: false,
        ..spv::Options::default()
    };
    let mut words = spv::write_vec(&module, &info, &options, None).unwrap_or_else(|e| panic!("{name}: {e}"));
    memory_model::complete(&mut words);
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    fs::write(out.join(format!("{name}.spv.z")), packed(&bytes)).expect("OUT_DIR can be written");

    let (text, msl_entry) = metal(name, &module, &info);
    fs::write(out.join(format!("{name}.metal.z")), packed(text.as_bytes())).expect("OUT_DIR can be written");

    let mut accesses = String::new();
    for access in bindings(&module) {
        write!(accesses, "Access::{},", if access.contains(StorageAccess::STORE) { "Write" } else { "Read" })
            .expect("a String can be written");
    }
    let (layouter, [x, y, z]) = (layout(&module), entry.workgroup_size);
    // MSL has threadgroup arguments for the variables that a kernel uses.
    let used = info.get_entry_point(0);
    let memory: String = module
        .global_variables
        .iter()
        .filter(|(handle, variable)| variable.space == AddressSpace::WorkGroup && !used[*handle].is_empty())
        .map(|(_, variable)| format!("{},", layouter[variable.ty].size))
        .collect();
    let kernel = format!(
        "Kernel {{ index: {index}, name: {name:?}, spirv: Packed(include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{name}.spv.z\"))), \
         spirv_entry: {:?}, \
         #[cfg(feature = \"msl\")] msl: Packed(include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{name}.metal.z\"))), \
         #[cfg(feature = \"msl\")] msl_entry: {msl_entry:?}, \
         bindings: &[{accesses}], workgroup: [{x}, {y}, {z}], workgroup_memory: &[{memory}], matrix_side: {:?} }},\n",
        entry.name,
        variant.matrix_side()
    );
    (kernel, immediates_check(variant.params(), &module))
}

/// Code as `Packed` of launch.rs unpacks it.
fn packed(code: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(code).and_then(|()| encoder.finish()).expect("a Vec can be written")
}

/// Rust that compiles only if the head and that struct of params.rs have the names, types and places of the module's immediates.
fn immediates_check(params: &str, module: &Module) -> String {
    let mut variables = module.global_variables.iter().map(|(_, variable)| variable);
    let immediates = variables.find(|v| v.space == AddressSpace::Immediate).expect("every kernel has immediates");
    let (fields, span) = members(module, immediates.ty);
    let (head_fields, head) = members(module, fields[0].ty);
    let name = |field: &StructMember| field.name.clone().expect("WGSL names every member");
    let place =
        |of: &str, field: &StructMember, offset| format!("assert!(offset_of!({of}, {}) == {offset});", name(field));
    let (mut names, mut types) = (String::new(), String::new());
    let mut places: String = head_fields.iter().map(|field| place("Head", field, field.offset)).collect();
    for field in &fields[1..] {
        names += &format!("{},", name(field));
        let ty = match module.types[field.ty].inner {
            TypeInner::Scalar(Scalar::U32) => "u32",
            TypeInner::Scalar(Scalar::F32) => "f32",
            ref other => panic!("{params} cannot have a {other:?} yet: add it to the build script"),
        };
        types += &format!("let _: {ty} = {};", name(field));
        places += &place(params, field, field.offset - head);
    }
    format!(
        "const _: () = {{ use {{crate::params::{params}, core::mem::offset_of}}; \
         let _ = |{params} {{ {names} }}: {params}| {{ {types} }}; \
         assert!(size_of::<Head>() == {head}); {places} \
         assert!((size_of::<Head>() + size_of::<{params}>()).next_multiple_of(16) == {span}); }};\n"
    )
}

/// Members of a struct, and its size.
fn members(module: &Module, ty: Handle<Type>) -> (&[StructMember], u32) {
    match &module.types[ty].inner {
        TypeInner::Struct { members, span } => (members, *span),
        other => panic!("{other:?} is not a struct"),
    }
}

/// MSL with binding i at buffer(i), then the immediates, then the sizes of the bound ranges.
fn metal(name: &str, module: &Module, info: &naga::valid::ModuleInfo) -> (String, String) {
    let count = bindings(module).len() as u8;
    let mut resources = msl::EntryPointResources {
        immediates_buffer: Some(count),
        sizes_buffer: Some(count + 1),
        ..Default::default()
    };
    for (_, variable) in module.global_variables.iter() {
        if let Some(binding) = &variable.binding {
            let mutable =
                matches!(variable.space, AddressSpace::Storage { access } if access.contains(StorageAccess::STORE));
            let target = msl::BindTarget { buffer: Some(binding.binding as u8), mutable, ..Default::default() };
            resources.resources.insert(*binding, target);
        }
    }
    let options = msl::Options {
        lang_version: (2, 4),
        per_entry_point_map: [(module.entry_points[0].name.clone(), resources)].into(),
        fake_missing_bindings: false,
        zero_initialize_workgroup_memory: false,
        force_loop_bounding: false,
        emit_int_div_checks: false,
        ..msl::Options::default()
    };
    let (text, translation) = msl::write_string(module, info, &options, &msl::PipelineOptions::default())
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    let entry = translation.entry_point_names[0].as_ref().unwrap_or_else(|e| panic!("{name}: {e}")).clone();
    (text, entry)
}

/// Access of each storage binding of group 0, which are numbered from 0 without gaps.
fn bindings(module: &Module) -> Vec<StorageAccess> {
    let mut found: BTreeMap<u32, StorageAccess> = BTreeMap::new();
    for (_, variable) in module.global_variables.iter() {
        if let (Some(binding), AddressSpace::Storage { access }) = (&variable.binding, variable.space) {
            found.insert(binding.binding, access);
        }
    }
    assert!(found.keys().copied().eq(0..found.len() as u32), "bindings {found:?} have gaps");
    found.into_values().collect()
}

fn layout(module: &Module) -> naga::proc::Layouter {
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).expect("a valid module has layouts");
    layouter
}
