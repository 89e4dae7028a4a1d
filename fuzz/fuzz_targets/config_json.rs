#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mlx_serving_model::fuzz::config_json(data));
