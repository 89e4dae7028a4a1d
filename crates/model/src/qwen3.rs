//! Qwen3: no biases, RMS norms on each query and key head, a head width of its own.

use crate::ModelError;
use crate::load::{Loader, Module};
use crate::pass::Pass;
use mlx_serving_checkpoint::Config;
use mlx_serving_device::Result;
use mlx_serving_device::ops::Norm;

/// One layer; fields are named after the checkpoint's.
#[derive(Debug)]
pub(crate) struct Layer {
    input_layernorm: Norm,
    q_proj: Module, // (heads · head_dim, hidden)
    k_proj: Module, // (kv heads · head_dim, hidden)
    v_proj: Module, // (kv heads · head_dim, hidden)
    q_norm: Norm,   // head_dim
    k_norm: Norm,   // head_dim
    o_proj: Module, // (hidden, heads · head_dim)
    post_attention_layernorm: Norm,
    gate_proj: Module, // (intermediate, hidden)
    up_proj: Module,   // (intermediate, hidden)
    down_proj: Module, // (hidden, intermediate)
}

impl Layer {
    pub(crate) fn load(loader: &mut Loader<'_>, c: &Config, prefix: &str) -> std::result::Result<Self, ModelError> {
        let (q, kv) = (c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim);
        let name = |module: &str| format!("{prefix}.{module}");
        Ok(Self {
            input_layernorm: loader.norm(&name("input_layernorm"), c.hidden_size)?,
            q_proj: loader.linear(&name("self_attn.q_proj"), q, c.hidden_size, false)?,
            k_proj: loader.linear(&name("self_attn.k_proj"), kv, c.hidden_size, false)?,
            v_proj: loader.linear(&name("self_attn.v_proj"), kv, c.hidden_size, false)?,
            q_norm: loader.norm(&name("self_attn.q_norm"), c.head_dim)?,
            k_norm: loader.norm(&name("self_attn.k_norm"), c.head_dim)?,
            o_proj: loader.linear(&name("self_attn.o_proj"), c.hidden_size, q, false)?,
            post_attention_layernorm: loader.norm(&name("post_attention_layernorm"), c.hidden_size)?,
            gate_proj: loader.undivided(&name("mlp.gate_proj"), c.intermediate_size, c.hidden_size, false)?,
            up_proj: loader.undivided(&name("mlp.up_proj"), c.intermediate_size, c.hidden_size, false)?,
            down_proj: loader.linear(&name("mlp.down_proj"), c.hidden_size, c.intermediate_size, false)?,
        })
    }

    pub(crate) fn forward(&self, pass: &mut Pass<'_>) -> Result<()> {
        pass.project(&self.input_layernorm, &self.q_proj, &self.k_proj, &self.v_proj)?;
        pass.attend(Some(&self.q_norm), Some(&self.k_norm))?;
        pass.add_attended(&self.o_proj)?;
        pass.feed_forward(&self.post_attention_layernorm, &self.gate_proj, &self.up_proj, &self.down_proj)
    }
}
