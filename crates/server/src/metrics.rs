//! `GET /metrics`: the engines' own counters.

use crate::error::ApiError;
use crate::state::AppState;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// OpenMetrics text of everything.
pub(crate) fn exposition(state: &AppState) -> Result<String, ApiError> {
    let mut registry = Registry::default();
    for model in state.models() {
        let labelled = registry.sub_registry_with_label(("model_name".into(), model.id.clone().into()));
        model.engine.register_metrics(labelled);
    }
    let mut text = String::new();
    encode(&mut text, &registry).map_err(|e| ApiError::internal(format!("the metrics could not be written: {e}")))?;
    Ok(text)
}
