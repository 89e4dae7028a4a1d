//! Names of the host's symbols for the linker.

fn main() {
    napi_build::setup();
}
