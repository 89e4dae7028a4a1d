//! Linker arguments: symbols of the interpreter stay undefined until it loads the extension.

fn main() {
    pyo3_build_config::add_extension_module_link_args();
}
