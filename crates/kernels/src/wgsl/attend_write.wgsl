{% include "lib/prelude.wgsl" %}
{% include "lib/attention.wgsl" %}
// Checks the batch, and writes one row's key and value of one kv head into the cache.
@group(0) @binding(0) var<storage, read> qkv: array<f32>;
@group(0) @binding(1) var<storage, read> angles: array<f32>;
@group(0) @binding(2) var<storage, read> k_norm: array<f32>;
@group(0) @binding(3) var<storage, read> spans: array<u32>;
@group(0) @binding(4) var<storage, read> tables: array<u32>;
@group(0) @binding(5) var<storage, read_write> cache: array<u32>;
@group(0) @binding(6) var<storage, read_write> fault: array<atomic<u32>>;
{% include "lib/raise.wgsl" %}
var<workgroup> key: array<f32, 256>;
var<workgroup> squares: array<f32, 16>;

fn word_of(a: f32, b: f32) -> u32 {
    return pack2x16float(vec2<f32>(a, b));
}

@compute @workgroup_size(64)
fn attend_write(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.x;
    let head = group.y;
    let dim = params.head_dim;
    // The span that has the row. All lanes look, and all find the same.
    var sequence = 0u;
    var span = base(params.head, 3u);
    var found = false;
    for (; sequence < params.sequences; sequence++) {
        let first = spans[span];
        let rows = spans[span + 1u];
        // Written so that nothing overflows.
        let good = first <= params.rows && rows <= params.rows - first && rows <= params.max_context
            && spans[span + 2u] <= params.max_context - rows;
        let used = (spans[span + 2u] + rows + params.block_tokens - 1u) / params.block_tokens;
        if (!good || used > params.table_len || spans[span + 3u] > params.table_len - used) {
            raise(4u, sequence);
            break;
        }
        if (row >= first && row - first < rows) {
            found = true;
            break;
        }
        span += 4u;
    }
    if (!found && lane == 0u) {
        raise(4u, sequence);
    }
    var position = 0u;
    var block = 0u;
    if (found) {
        position = spans[span + 2u] + row - spans[span];
        let table = base(params.head, 4u) + spans[span + 3u];
        block = tables[table + position / params.block_tokens];
        if (block >= params.blocks) {
            found = false;
            raise(5u, block);
        }
        // The first row looks after the blocks that earlier steps have written.
        if (row == spans[span] && head == 0u) {
            for (var i = lane; i < position / params.block_tokens; i += 64u) {
                if (tables[table + i] >= params.blocks) {
                    raise(5u, tables[table + i]);
                }
            }
        }
    }

    let width = (params.heads + 2u * params.kv_heads) * dim;
    let from_key = base(params.head, 0u) + row * width + (params.heads + head) * dim;
    for (var i = lane; i < dim; i += 64u) {
        key[i] = qkv[from_key + i];
    }
    workgroupBarrier();
    if (has(K_NORM)) {
        if (lane < 16u) {
            var sum = 0.0;
            for (var i = lane; i < dim; i += 16u) {
                sum = fma(key[i], key[i], sum);
            }
            squares[lane] = sum;
        }
        workgroupBarrier();
        var total = 0.0;
        for (var i = 0u; i < 16u; i++) {
            total += squares[i];
        }
        let factor = inverseSqrt(total / f32(dim) + params.k_eps);
        for (var i = lane; i < dim; i += 64u) {
            key[i] = key[i] * factor * k_norm[base(params.head, 2u) + i];
        }
        workgroupBarrier();
    }
    for (var i = lane; i < params.pairs; i += 64u) {
        let at = partners(i);
        let angle = base(params.head, 1u) + 2u * (row * params.pairs + i);
        let turned = rotated(vec2<f32>(key[at.x], key[at.y]), vec2<f32>(angles[angle], angles[angle + 1u]));
        key[at.x] = turned.x;
        key[at.y] = turned.y;
    }
    workgroupBarrier();
    if (!found) {
        return;
    }
    let row_words = padded(){{ " / 2u" if KV == 16 else "" }};
    let token = position % params.block_tokens;
    let head_words = params.block_tokens * row_words;
    let keys_at = base(params.head, 5u) + (2u * block * params.kv_heads + head) * head_words + token * row_words;
    let values_at = keys_at + params.kv_heads * head_words;
    let from_value = from_key + params.kv_heads * dim;
    for (var i = lane; i < row_words; i += 64u) {
{% if KV == 16 %}
        var k = vec2<f32>(0.0);
        var v = vec2<f32>(0.0);
        if (2u * i < dim) {
            k = vec2<f32>(key[2u * i], key[2u * i + 1u]);
            v = vec2<f32>(qkv[from_value + 2u * i], qkv[from_value + 2u * i + 1u]);
        }
        cache[keys_at + i] = word_of(k.x, k.y);
        cache[values_at + i] = word_of(v.x, v.y);
{% else %}
        var k = 0.0;
        var v = 0.0;
        if (i < dim) {
            k = key[i];
            v = qkv[from_value + i];
        }
        cache[keys_at + i] = bitcast<u32>(k);
        cache[values_at + i] = bitcast<u32>(v);
{% endif %}
    }
}
