"""The random checkpoints: what each is there to show."""

import copy
from dataclasses import dataclass, field


@dataclass
class Case:
    """One checkpoint and how its tokens are fed to the model."""

    name: str
    config: dict
    dtype: str = "bfloat16"  # of dense tensors, scales and quantization biases
    bits: int | None = 4  # None: not quantized
    group_size: int = 64
    mode: str = "affine"
    overrides: dict = field(default_factory=dict)  # module path -> {"bits", "group_size", "mode"}, or False
    tokens: int = 24
    prefill: int | None = None  # tokens given in one call, the rest one at a time; None: all in one call
    greedy: int = 0  # tokens of a greedy answer to the tokens, to be written down too
    window_everywhere: bool = False  # every layer slides, as Mistral 7B v0.1 does
    shards: int = 1
    embeds: bool = False  # as embedding models are published: no head, no `model.` before names, the files of sentence-transformers
    seed: int | None = None  # None: the case's place
    legacy_quantization_config: bool = False  # write the settings under both names, as mlx-lm's converter does


_COMMON = dict(
    hidden_size=64,
    num_hidden_layers=2,
    intermediate_size=128,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=131,  # odd, so that rows do not fill a kernel's tile
    max_position_embeddings=512,
    hidden_act="silu",
)

_ARCHITECTURES = {
    "qwen2": dict(rms_norm_eps=1e-6, rope_theta=1e6, tie_word_embeddings=True),
    "qwen3": dict(rms_norm_eps=1e-6, rope_theta=1e6, tie_word_embeddings=True, head_dim=32),
    "llama": dict(rms_norm_eps=1e-5, rope_theta=1e4, tie_word_embeddings=False),
    "mistral": dict(rms_norm_eps=1e-5, rope_theta=1e4, tie_word_embeddings=False),
    "smollm3": dict(rms_norm_eps=1e-6, rope_theta=2e6, tie_word_embeddings=True),
    "olmo2": dict(rms_norm_eps=1e-6, rope_theta=5e5, tie_word_embeddings=False),
    "granite": dict(
        rms_norm_eps=5e-3,  # large enough to show
        rope_theta=1e7,
        tie_word_embeddings=True,
        attention_bias=False,
        mlp_bias=False,
        # No powers of two; with a real model's 12 and 0.22, random layers would hardly change what is predicted.
        embedding_multiplier=1.5,
        attention_multiplier=0.3,
        residual_multiplier=0.6,
        logits_scaling=7.0,
    ),
    "phi3": dict(rms_norm_eps=1e-5, rope_theta=1e4, tie_word_embeddings=False),
    "glm4": dict(rms_norm_eps=1e-5, rope_theta=1e4, head_dim=32, partial_rotary_factor=0.5, attention_bias=False, tie_word_embeddings=False),
    "gemma3_text": dict(
        rms_norm_eps=1e-6,
        rope_theta=1e6,
        rope_local_base_freq=1e4,
        head_dim=32,
        query_pre_attn_scalar=24,
        sliding_window=16,
        sliding_window_pattern=2,
        hidden_act=None,
        hidden_activation="gelu_pytorch_tanh",
        tie_word_embeddings=True,
    ),
    "ministral3": dict(
        rms_norm_eps=1e-5,
        head_dim=32,
        tie_word_embeddings=False,
        rope_parameters=dict(
            type="yarn",
            rope_type="yarn",
            rope_theta=1e6,
            factor=16.0,
            beta_fast=32.0,
            beta_slow=1.0,
            mscale=1.0,
            mscale_all_dim=1.0,
            original_max_position_embeddings=16,
            llama_4_scaling_beta=0.5,  # large enough to show in so few positions
        ),
    ),
    "qwen3_moe": dict(
        rms_norm_eps=1e-6,
        rope_theta=1e6,
        tie_word_embeddings=False,
        head_dim=32,
        num_experts=8,
        num_experts_per_tok=2,
        moe_intermediate_size=64,
        decoder_sparse_step=1,
        mlp_only_layers=[],
        norm_topk_prob=True,
    ),
    "mixtral": dict(rms_norm_eps=1e-5, rope_theta=1e6, tie_word_embeddings=False, num_local_experts=4, num_experts_per_tok=2),
    "glm4_moe": dict(
        rms_norm_eps=1e-5,
        rope_theta=1e6,
        rope_scaling=dict(type="default"),
        tie_word_embeddings=False,
        head_dim=32,
        partial_rotary_factor=0.5,
        attention_bias=True,
        use_qk_norm=True,
        n_routed_experts=8,
        num_experts_per_tok=2,
        moe_intermediate_size=64,
        n_shared_experts=1,
        first_k_dense_replace=1,
        n_group=1,
        topk_group=1,
        norm_topk_prob=True,
        routed_scaling_factor=2.5,
    ),
}


def config(model_type, **changes):
    """The base shape of an architecture with some keys changed; a key set to None is left out."""
    out = dict(model_type=model_type, **{**_COMMON, **_ARCHITECTURES[model_type]})
    out.update(copy.deepcopy(changes))
    return {key: value for key, value in out.items() if value is not None}


def architectures():
    yield Case("qwen2", config("qwen2"), legacy_quantization_config=True)
    yield Case("qwen2-untied-f16", config("qwen2", tie_word_embeddings=False), dtype="float16")
    yield Case("qwen2-f32-scales", config("qwen2"), dtype="float32")
    yield Case("qwen2-long", config("qwen2"), tokens=128)
    yield Case("qwen2-sharded", config("qwen2"), shards=2)
    yield Case("qwen2-yarn", config("qwen2", rope_scaling=dict(type="yarn", factor=4.0, original_max_position_embeddings=64)), tokens=48)
    yield Case("qwen3", config("qwen3"))
    head_128 = dict(head_dim=128, num_attention_heads=2, num_key_value_heads=1)
    yield Case("qwen3-untied-f16-head-128", config("qwen3", tie_word_embeddings=False, **head_128), dtype="float16")
    yield Case("qwen3-rope-parameters", config("qwen3", rope_theta=None, rope_parameters=dict(rope_type="default", rope_theta=5e3)))
    yield Case(
        "qwen3-yarn-mscale",
        config(
            "qwen3",
            rope_scaling=dict(
                rope_type="yarn", factor=4.0, original_max_position_embeddings=48, beta_fast=4, beta_slow=1, mscale=0.7, mscale_all_dim=0.3
            ),
        ),
        tokens=48,
    )
    yield Case("llama", config("llama"))
    yield Case("llama-tied", config("llama", tie_word_embeddings=True))
    yield Case("llama-attention-bias", config("llama", attention_bias=True))
    yield Case("llama-mlp-bias", config("llama", mlp_bias=True))
    yield Case("llama-head-dim", config("llama", head_dim=32))
    yield Case("llama-rope-traditional", config("llama", rope_traditional=True))
    yield Case("llama-3-groups", config("llama", hidden_size=96, num_attention_heads=6, intermediate_size=160, num_hidden_layers=1), group_size=32)
    yield Case("llama-multi-query", config("llama", num_key_value_heads=1))
    yield Case("llama-multi-head", config("llama", num_key_value_heads=None))
    yield Case("llama-linear", config("llama", rope_scaling=dict(type="linear", factor=4.0)), tokens=48)
    dynamic = config("llama", max_position_embeddings=32, rope_scaling=dict(type="dynamic", factor=2.0))
    yield Case("llama-dynamic-decode", dynamic, tokens=48, prefill=20)
    yield Case("llama-dynamic-long-prompt", dynamic, tokens=56, prefill=44)
    llama3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
    yield Case("llama-llama3", config("llama", rope_scaling=llama3), tokens=48)
    yield Case("llama-yarn", config("llama", rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64)), tokens=48)
    yield Case("mistral", config("mistral", sliding_window=None))
    yield Case("mistral-head-dim", config("mistral", head_dim=32))
    layers = ["sliding_attention", "full_attention"]
    yield Case("mistral-layer-types", config("mistral", sliding_window=16, layer_types=layers), tokens=48)
    yield Case("mistral-window", config("mistral", sliding_window=16), tokens=48, window_everywhere=True)
    yield Case("mistral-window-decode", config("mistral", sliding_window=16), tokens=48, prefill=30, window_everywhere=True)


def quantizations():
    for bits in (2, 3, 4, 5, 6, 8):
        for group_size in (32, 64, 128):
            grid = config("qwen2", hidden_size=max(64, group_size), num_hidden_layers=1)
            yield Case(f"qwen2-{bits}bit-g{group_size}", grid, bits=bits, group_size=group_size)
    for dtype, short in (("float32", "f32"), ("float16", "f16"), ("bfloat16", "bf16")):
        yield Case(f"qwen2-dense-{short}", config("qwen2", num_hidden_layers=1), bits=None, dtype=dtype)
    yield Case(
        "qwen2-overrides",
        config("qwen2"),
        overrides={
            "model.embed_tokens": {"group_size": 32, "bits": 8},
            "model.layers.0.self_attn.v_proj": {"group_size": 64, "bits": 6},
            "model.layers.1.mlp.down_proj": False,
        },
    )
    yield Case("llama-dense-head", config("llama"), overrides={"lm_head": False, "model.embed_tokens": False})


def later_architectures():
    """A case's place decides its seed, so what was added later comes last."""
    yield Case("smollm3", config("smollm3", num_hidden_layers=4))
    yield Case(
        "smollm3-untied-no-rope-layers",
        config("smollm3", num_hidden_layers=3, tie_word_embeddings=False, attention_bias=True, no_rope_layers=[0, 1, 0]),
        tokens=48,
        prefill=30,
    )


def embedding_models():
    yield Case("qwen3-embedding", config("qwen3", tie_word_embeddings=False), tokens=40, embeds=True)


def dense_families():
    yield Case("olmo2", config("olmo2"), greedy=24)
    yield Case("olmo2-multi-head-biases", config("olmo2", num_key_value_heads=None, attention_bias=True, mlp_bias=True), tokens=40, prefill=30)
    eight_bits = {"model.layers.0.self_attn.o_proj": {"group_size": 64, "bits": 8}}
    yield Case("granite", config("granite"), overrides=eight_bits)
    yield Case("granite-untied-biases", config("granite", tie_word_embeddings=False, attention_bias=True, mlp_bias=True), tokens=40, prefill=30, greedy=24)
    yield Case("phi3", config("phi3"))
    # As Phi-4-mini; lists have a number for each of the 6 pairs of 16 · 0.75 values.
    factors = dict(long_factor=[1.0, 1.5, 2.0, 4.0, 8.0, 11.0], short_factor=[1.0] * 6)
    longrope = dict(original_max_position_embeddings=64, rope_scaling=dict(type="longrope", **factors))
    yield Case("phi3-longrope", config("phi3", partial_rotary_factor=0.75, tie_word_embeddings=True, **longrope), tokens=48, prefill=30, greedy=24)
    yield Case("phi3-dense-f16", config("phi3", num_hidden_layers=1, sliding_window=64), bits=None, dtype="float16")
    yield Case("glm4", config("glm4"), greedy=24)
    yield Case("glm4-biases", config("glm4", attention_bias=True, partial_rotary_factor=0.25), tokens=40, prefill=30)


def small_floats():
    for mode, bits, group_size in (("mxfp4", 4, 32), ("nvfp4", 4, 16), ("mxfp8", 8, 32)):
        # 96 features: the last groups of a row fill no pair.
        grid = config("qwen3", hidden_size=96, intermediate_size=160)
        yield Case(f"qwen3-{mode}", grid, bits=bits, group_size=group_size, mode=mode, greedy=24)
    yield Case(
        "llama-mixed-modes",
        config("llama"),
        bits=4,
        group_size=32,
        mode="mxfp4",
        overrides={
            "model.embed_tokens": {"group_size": 64, "bits": 8, "mode": "affine"},
            "model.layers.0.self_attn.k_proj": {"group_size": 16, "bits": 4, "mode": "nvfp4"},
            "model.layers.0.self_attn.v_proj": {"group_size": 32, "bits": 8, "mode": "mxfp8"},
            "model.layers.1.mlp.down_proj": {"group_size": 64, "bits": 6, "mode": "affine"},
            "model.layers.1.self_attn.o_proj": False,
        },
    )


def wrapped(model_type, text, **changes):
    """A model of more than text around `text`, with some keys of its own."""
    return dict(model_type=model_type, text_config=text, vocab_size=_COMMON["vocab_size"], **changes)


def windows_and_wrappers():
    """Their seeds are given, so that others may come before them."""
    yield Case("gemma3", config("gemma3_text"), tokens=48, prefill=30, greedy=24, seed=1000)
    dense = config("gemma3_text", num_hidden_layers=1, sliding_window_pattern=1, tie_word_embeddings=None)
    yield Case("gemma3-dense-f16", dense, bits=None, dtype="float16", seed=1001)
    # As gemma-3-4b: what is left out has other defaults in the wrapper.
    left_out = ("num_attention_heads", "num_key_value_heads", "vocab_size", "rms_norm_eps", "rope_theta", "rope_local_base_freq", "tie_word_embeddings")
    text = config(
        "gemma3_text", num_hidden_layers=3, sliding_window_pattern=3, rope_scaling=dict(rope_type="linear", factor=8.0), **dict.fromkeys(left_out)
    )
    yield Case("gemma3-wrapped", wrapped("gemma3", text), tokens=40, seed=1002)
    yield Case("ministral3", config("ministral3"), tokens=48, prefill=30, greedy=24, seed=1003)
    layers = dict(layer_types=["sliding_attention", "full_attention"], sliding_window=16)
    tied = config("ministral3", tie_word_embeddings=True, **layers)
    eight_bits = {"language_model.model.layers.0.self_attn.o_proj": {"group_size": 64, "bits": 8}}
    yield Case("mistral3-ministral", wrapped("mistral3", tied), tokens=40, overrides=eight_bits, seed=1004)
    text = config("mistral", tie_word_embeddings=None, head_dim=32)
    yield Case("mistral3-mistral", wrapped("mistral3", text), prefill=10, seed=1005)


def experts():
    """Their seeds are given, so that others may come before them."""
    eight_bits = {f"model.layers.{i}.mlp.gate": {"group_size": 64, "bits": 8} for i in range(4)}
    yield Case("qwen3_moe", config("qwen3_moe"), overrides=eight_bits, greedy=24, seed=2000)
    # Layer 1 has experts, and 3 would if it were not listed.
    mixed = dict(num_hidden_layers=4, decoder_sparse_step=2, mlp_only_layers=[3], norm_topk_prob=False, num_experts_per_tok=3)
    yield Case("qwen3_moe-mixed-layers", config("qwen3_moe", **mixed), overrides=eight_bits, tokens=40, prefill=30, seed=2001)
    yield Case("qwen3_moe-dense-f16", config("qwen3_moe", num_hidden_layers=1), bits=None, dtype="float16", seed=2002)
    yield Case("mixtral", config("mixtral"), greedy=24, seed=2003)
    # Seeds by which no choice is near a tie: a backend that rounds to 8 bits would choose another expert, and so compute another model.
    yield Case("mixtral-one-of-four", config("mixtral", num_hidden_layers=1, num_experts_per_tok=1), bits=8, tokens=16, prefill=10, seed=2073)
    yield Case("glm4_moe", config("glm4_moe"), greedy=24, seed=2005)
    unlike = dict(n_shared_experts=2, first_k_dense_replace=0, norm_topk_prob=False, use_qk_norm=False, attention_bias=False, routed_scaling_factor=1.0)
    yield Case("glm4_moe-two-shared", config("glm4_moe", num_hidden_layers=1, **unlike), tokens=16, prefill=10, seed=2092)


def every_case():
    cases = [*architectures(), *quantizations(), *later_architectures(), *embedding_models(), *dense_families(), *small_floats(), *windows_and_wrappers(), *experts()]
    assert len({case.name for case in cases}) == len(cases)
    return cases
