//! Satisfies `-lobjc`, `-lgnustep-base` and `-ldispatch`, which the bindings ask for, with empty archives: the symbols come
//! from this crate, and no shared library is needed at run time.
use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for library in ["objc", "gnustep-base", "dispatch"] {
        fs::write(out.join(format!("lib{library}.a")), b"!<arch>\n").expect("OUT_DIR can be written");
    }
    println!("cargo:rustc-link-search=native={}", out.display());
}
