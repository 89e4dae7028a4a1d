//! The engine's own measurements, for the programs under `benchmarks/`.

use crate::failure::parse;
use crate::work::spawn;
use mlx_serving_bindings::{Code, Error, bench};
use napi::bindgen_prelude::{Env, Function, Object};
use napi::threadsafe_function::ThreadsafeFunctionCallMode::NonBlocking;
use napi_derive::napi;
use serde_json::Value;
use std::panic::catch_unwind;

/// Measures one model; `tell` is called with lines that say what goes on. Gives JSON.
#[napi]
pub fn bench_throughput<'env>(
    env: &'env Env,
    args: String,
    tell: Function<'_, String, ()>,
) -> napi::Result<Object<'env>> {
    measure(env, args, &tell, bench::throughput)
}

/// Measures the optimizations against plain runs, in the same way.
#[napi]
pub fn bench_compare<'env>(env: &'env Env, args: String, tell: Function<'_, String, ()>) -> napi::Result<Object<'env>> {
    measure(env, args, &tell, bench::compare)
}

fn measure<'env>(
    env: &'env Env,
    args: String,
    tell: &Function<'_, String, ()>,
    measurement: fn(&Value, bench::Tell<'_>) -> Result<Value, Error>,
) -> napi::Result<Object<'env>> {
    let tell = tell.build_threadsafe_function::<String>().callee_handled::<false>().weak::<true>().build()?;
    spawn(env, move || {
        let run = move || {
            measurement(&parse(&args)?, &mut |line| {
                let _ = tell.call(line.to_owned(), NonBlocking);
            })
        };
        let panicked = |_| {
            Err(Error::new(Code::Internal, "the benchmark ended in a fault of mlx-serving itself; please report it"))
        };
        catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(panicked).map(|result| result.to_string())
    })
}
