//! C++ to a shared object, kept in a cache.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Names another directory for compiled shaders.
const CACHE_VARIABLE: &str = "METAL_SIM_CACHE";
const DEFAULT_CACHE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/metal-sim/shaders");

const COMPILER: &str = "clang++";
/// Single-precision constants, as in MSL, and no rounding or overflow but the text's.
const FLAGS: &[&str] = &[
    "-std=c++17",
    "-O2",
    "-shared",
    "-fPIC",
    "-w",
    "-fno-exceptions",
    "-fno-rtti",
    "-fno-strict-aliasing",
    "-fno-math-errno",
    "-fwrapv",
    "-ffp-contract=off",
    "-Xclang",
    "-cl-single-precision-constant",
];

const SHIM_DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/shader/shim");
/// The shim's text, for the cache's key: a changed header makes every object stale.
const SHIM: &[&str] = &[
    include_str!("shim/metal_stdlib"),
    include_str!("shim/sim_types.h"),
    include_str!("shim/sim_math.h"),
    include_str!("shim/sim_pack.h"),
    include_str!("shim/sim_matrix.h"),
    include_str!("shim/sim_atomic.h"),
    include_str!("shim/sim_sync.h"),
    include_str!("shim/sim_simdgroup_matrix.h"),
    include_str!("shim/sim_entry.h"),
    include_str!("shim/sim_words.h"),
];

/// The shared object for `unit`.
///
/// # Errors
/// The compiler's messages, that there is no compiler, or that the cache cannot be written.
pub(super) fn compile(unit: &str) -> Result<PathBuf, String> {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    let directory =
        DIRECTORY.get_or_init(|| std::env::var_os(CACHE_VARIABLE).map_or(DEFAULT_CACHE.into(), PathBuf::from));
    compile_in(directory, unit)
}

fn compile_in(directory: &Path, unit: &str) -> Result<PathBuf, String> {
    let mut hasher = DefaultHasher::new();
    (unit, SHIM, FLAGS, host_flags(), version()?).hash(&mut hasher);
    let file = |ending: &str| directory.join(format!("{:016x}.{ending}", hasher.finish()));
    let (source, partial, object) = (file("cpp"), file("partial"), file("so"));
    if object.exists() {
        return Ok(object);
    }
    let error =
        |e: io::Error| format!("the shader cache {} cannot be written: {e}; set {CACHE_VARIABLE}", directory.display());
    fs::create_dir_all(directory).map_err(error)?;
    let mut text = File::options().write(true).create(true).truncate(false).open(&source).map_err(error)?;
    // Tests in other processes want the same shaders at the same time: one compiles.
    text.lock().map_err(error)?;
    if object.exists() {
        return Ok(object);
    }
    text.set_len(0).and_then(|()| text.write_all(unit.as_bytes())).map_err(error)?;
    run_compiler(&source, &partial)?;
    // Whoever finds the object finds all of it.
    fs::rename(&partial, &object).map_err(error)?;
    Ok(object)
}

fn run_compiler(source: &Path, object: &Path) -> Result<(), String> {
    let mut command = Command::new(COMPILER);
    command.args(FLAGS).args(host_flags()).arg("-I").arg(SHIM_DIRECTORY).arg(source).arg("-o").arg(object);
    let output = command.output().map_err(no_compiler)?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// The instructions without which fma is a library call and f16 has no conversions.
fn host_flags() -> Vec<&'static str> {
    let has = [
        ("-mavx2", is_x86_feature_detected!("avx2")),
        ("-mfma", is_x86_feature_detected!("fma")),
        ("-mf16c", is_x86_feature_detected!("f16c")),
    ];
    has.iter().filter(|(_, has)| *has).map(|(flag, _)| *flag).collect()
}

fn version() -> Result<&'static str, String> {
    static VERSION: OnceLock<Result<String, String>> = OnceLock::new();
    let ask = || {
        let output = Command::new(COMPILER).arg("--version").output().map_err(no_compiler)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    VERSION.get_or_init(ask).as_deref().map_err(String::clone)
}

fn no_compiler(e: io::Error) -> String {
    format!("{COMPILER} cannot be run: {e}; install clang (on Debian: apt-get install clang)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_compiled_once() {
        let directory = tempfile::tempdir().unwrap();
        let first = compile_in(directory.path(), "int a;").unwrap();
        let written = fs::metadata(&first).unwrap().modified().unwrap();
        assert_eq!(compile_in(directory.path(), "int a;").unwrap(), first);
        assert_eq!(fs::metadata(&first).unwrap().modified().unwrap(), written);
        assert_ne!(compile_in(directory.path(), "int b;").unwrap(), first);
    }

    #[test]
    fn one_of_several_compiles_and_all_find_the_object() {
        let directory = tempfile::tempdir().unwrap();
        let compile = || compile_in(directory.path(), "int a;").unwrap();
        let all: Vec<PathBuf> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(compile)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(all.iter().all(|path| *path == all[0] && path.exists()));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "the source and the object");
    }

    #[test]
    fn errors_are_the_compilers_each_time() {
        let directory = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let error = compile_in(directory.path(), "#line 7 \"kernel.metal\"\nint = 3;").unwrap_err();
            assert!(error.contains("kernel.metal:7"), "{error}");
        }
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = compile_in(file.path(), "int a;").unwrap_err();
        assert!(error.contains(CACHE_VARIABLE), "{error}");
    }
}
