{% include "lib/prelude.wgsl" %}
{% include "lib/math.wgsl" %}
{% include "lib/linear.wgsl" %}
// Prepares rows for tiles: u in whole chunks, then the sum of every chunk, then the norm's factors. 32 lanes a row. For matrix units
// u is rounded, two columns a word as f16, and the chunks' steps follow the sums.
@group(0) @binding(0) var<storage, read> input: array<f32>;
@group(0) @binding(1) var<storage, read> norm: array<f32>;
@group(0) @binding(2) var<storage, read> gather: array<u32>;
@group(0) @binding(3) var<storage, read_write> prepared: array<u32>;
@group(0) @binding(4) var<storage, read> fault: array<u32>;
var<workgroup> squares: array<f32, 128>;

fn column(first: u32, col: u32) -> f32 {
    if (col < params.cols) {
        return input[first + col];
    }
    return 0.0;
}

fn weight_column(col: u32) -> f32 {
    if (has(HAS_NORM) && col < params.cols) {
        return norm[base(params.head, 1u) + col];
    }
    return 1.0;
}

@compute @workgroup_size(128)
fn linear_rows(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (fault[0] != 0u) {
        return;
    }
    let p = lane & 31u;
    let row = group.x * 4u + (lane >> 5u);
    var sum_squares = 0.0;
    if (row < params.rows) {
        var from_row = row;
        if (has(HAS_GATHER)) {
            from_row = gather[base(params.head, 2u) + row];
        }
        let first = base(params.head, 0u) + from_row * params.cols;
        let words = select(32u, 16u, has(ROUNDS));
        let out = base(params.head, 3u) + row * params.chunks * words;
        let sums = base(params.head, 3u) + (params.rows * words + row) * params.chunks;
        for (var chunk = p; chunk < params.chunks; chunk += 32u) {
            var sum = 0.0;
            var highest = 0u;
            for (var i = 0u; i < 32u; i++) {
                let col = chunk * 32u + i;
                let x = column(first, col);
                let weight = weight_column(col);
                sum_squares = fma(x, x, sum_squares);
                sum = fma(x, weight, sum);
                let u = x * weight;
                if (has(ROUNDS)) {
                    highest = max(highest, bitcast<u32>(u) & 0x7fffffffu);
                } else {
                    prepared[out + col] = bitcast<u32>(u);
                }
            }
            if (has(ROUNDS)) {
                let step = step_of(highest);
                sum = 0.0;
                for (var i = 0u; i < 16u; i++) {
                    let col = chunk * 32u + 2u * i;
                    let u = vec2<f32>(column(first, col) * weight_column(col), column(first, col + 1u) * weight_column(col + 1u));
                    let rounded = round(u * step.x);
                    sum += rounded.x + rounded.y;
                    prepared[out + chunk * 16u + i] = pack2x16float(rounded);
                }
                prepared[sums + params.rows * params.chunks + chunk] = bitcast<u32>(step.y);
            }
            prepared[sums + chunk] = bitcast<u32>(sum);
        }
    }
    squares[lane] = sum_squares;
    workgroupBarrier();
    if (p == 0u && row < params.rows) {
        var total = 0.0;
        for (var i = 0u; i < 32u; i++) {
            total += squares[lane + i];
        }
        var factor = 1.0;
        if (has(HAS_NORM)) {
            factor = norm_factor(total);
        }
        let before = params.rows * params.chunks * select(33u, 18u, has(ROUNDS));
        prepared[base(params.head, 3u) + before + row] = bitcast<u32>(factor);
    }
}
