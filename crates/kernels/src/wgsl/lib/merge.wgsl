// Softmax over two stretches of keys, from the results of each: what `attend` and `attend_merge` do alike.
struct Weights {
    largest: f32,
    sum: f32,
    // Factors of the sums of values before and of the new stretch.
    before: f32,
    stretch: f32,
}

fn merge(largest: f32, sum: f32, new_largest: f32, new_sum: f32) -> Weights {
    var w: Weights;
    w.largest = max(largest, new_largest);
    w.before = exact_exp(largest - w.largest);
    w.stretch = exact_exp(new_largest - w.largest);
    w.sum = fma(sum, w.before, new_sum * w.stretch);
    return w;
}
