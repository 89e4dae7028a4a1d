//! The binary on the system's allocator, which leak checkers watch: mimalloc takes whole pages from the system and hands out parts of
//! them, in which none sees what is lost. `tools/memory-checks` runs it.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::process::ExitCode;

fn main() -> ExitCode {
    // A leak by design: a checker that does not report it would miss any other too.
    if std::env::var_os("PLANT_A_LEAK").is_some() {
        // On a thread of its own, so that no pointer to it stays behind on the stack.
        let leak = std::thread::spawn(|| std::mem::forget(black_box(vec![7_u8; 4321])));
        leak.join().expect("it does not panic");
    }
    mlx_serving::main()
}
