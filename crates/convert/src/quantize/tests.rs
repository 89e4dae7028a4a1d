use super::*;
use safetensors::SafeTensors;

#[test]
fn codes_scales_and_biases_are_mlxs_of_every_format_and_type() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/quantized.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let goldens = SafeTensors::deserialize(&bytes).unwrap();
    let mut seen = 0;
    for (name, float) in [("float32", Float::F32), ("float16", Float::F16), ("bfloat16", Float::Bf16)] {
        let rows = float.widen(goldens.tensor(name).unwrap().data());
        let affine = [2, 3, 4, 5, 6, 8].iter().flat_map(|bits| [32, 64, 128].map(|group| format!("{bits}:{group}")));
        for label in affine.chain(["mxfp4", "nvfp4", "mxfp8"].map(str::to_owned)) {
            let golden = |tensor: &str| goldens.tensor(&format!("{name}.{label}.{tensor}")).map(|t| t.data().to_vec());
            let found = quantize(label.parse().unwrap(), &rows, float).unwrap();
            let expected = Packed {
                values: golden("weight").unwrap(),
                scales: golden("scales").unwrap(),
                biases: golden("biases").unwrap_or_default(),
            };
            assert!(found.scales == expected.scales, "{name} {label}: scales differ");
            assert!(found.biases == expected.biases, "{name} {label}: biases differ");
            assert!(found.values == expected.values, "{name} {label}: codes differ");
            seen += 1;
        }
    }
    assert_eq!(seen, 63);
}

#[test]
fn what_is_not_finite_has_no_code() {
    for format in ["4", "mxfp4", "nvfp4", "mxfp8"] {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut row = [1.0; 64];
            row[37] = value;
            assert_eq!(quantize(format.parse().unwrap(), &row, Float::F32), None, "{format}");
        }
    }
}
