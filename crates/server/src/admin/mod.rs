//! Small routes beside the dialects: health, models, metrics, statistics, tokens, what this program is.

mod health;
mod metrics;
mod models;
mod stats;
mod tokens;
mod version;

use crate::openapi::openapi;
use crate::routes::Routes;

/// Their routes.
pub(crate) fn routes() -> Routes {
    Routes::default()
        .get("/v1/models", models::models)
        .get("/v1/models/{*id}", models::model)
        .post("/v1/tokenize", tokens::tokenize)
        .post("/v1/detokenize", tokens::detokenize)
        .get("/v1/metal/stats", stats::metal_stats)
        .get("/health", health::health)
        .get("/ready", health::ready)
        .get("/metrics", metrics::metrics)
        .get("/version", version::version)
        .get("/openapi.json", openapi)
}
