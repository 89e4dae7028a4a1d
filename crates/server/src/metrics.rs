//! `GET /metrics`: the engines' counters, the answers of this server, the process.

use crate::error::ApiError;
use crate::state::AppState;
use axum::http::{Method, StatusCode};
use mlx_serving_metrics::{Families, Format, process};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Answers of this server, by route, method and status. All three come from short lists, whatever clients send.
#[derive(Debug, Default)]
pub(crate) struct HttpAnswers(Mutex<BTreeMap<(String, &'static str, u16), u64>>);

impl HttpAnswers {
    /// Notes an answer. `route` is the template that the path matched, or empty where it matched none.
    pub(crate) fn note(&self, route: &str, method: &Method, status: StatusCode) {
        const METHODS: [&str; 7] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"];
        let method = METHODS.into_iter().find(|known| *known == method.as_str()).unwrap_or("other");
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((route.to_owned(), method, status.as_u16())).or_default() += 1;
    }

    fn tell(&self, families: &mut Families) {
        for ((route, method, status), count) in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            let labels = [("handler", route.as_str()), ("method", method), ("status", &*status.to_string())];
            families.labeled(&labels).counter("http_requests", "HTTP answers by route, method and status.", *count);
        }
    }
}

/// The text of everything.
pub(crate) fn exposition(state: &AppState, format: Format) -> Result<String, ApiError> {
    let mut families = Families::default();
    for model in state.models() {
        model.tell_metrics(&mut families.labeled(&[("model_name", &model.card().id)]));
    }
    state.http.tell(&mut families);
    process(&mut families.labeled(&[]));
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    families.labeled(&version).gauge("mlx_serving_build_info", "Version of this program.", 1u64);
    families.write(format).map_err(|e| ApiError::internal(format!("the metrics could not be written: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_under_names_that_clients_do_not_choose() {
        let answers = HttpAnswers::default();
        answers.note("/v1/models/{*id}", &Method::GET, StatusCode::OK);
        answers.note("/v1/models/{*id}", &Method::GET, StatusCode::OK);
        answers.note("", &Method::from_bytes(b"BREW").unwrap(), StatusCode::NOT_FOUND);
        let mut families = Families::default();
        answers.tell(&mut families);
        let text = families.write(Format::Prometheus).unwrap();
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            samples,
            [
                "http_requests_total{handler=\"\",method=\"other\",status=\"404\"} 1",
                "http_requests_total{handler=\"/v1/models/{*id}\",method=\"GET\",status=\"200\"} 2",
            ]
        );
    }
}
