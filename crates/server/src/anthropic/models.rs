//! Models, as this dialect describes them.

use jiff::Timestamp;
use mlx_serving_runtime::Generate;
use serde_json::{Value, json};

/// A model under one of its names.
pub(crate) fn model(name: &str, model: &dyn Generate) -> Value {
    let card = model.card();
    let created = i64::try_from(card.created).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    json!({
        "type": "model", "id": name, "display_name": name, "created_at": created.unwrap_or_default().to_string(),
        "lifecycle": "active", "max_input_tokens": card.info.max_context, "max_tokens": card.info.max_context,
    })
}
