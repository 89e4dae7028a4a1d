//! The routes, in the router and in a table: from it errors name them, and requests find those that they mean.

use crate::state::AppState;
use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::http::Uri;
use axum::http::uri::PathAndQuery;
use axum::routing::{delete, get, post};
use std::sync::Arc;

/// The beginning of most paths, which clients leave out who know it for a part of the address.
const VERSION: &str = "/v1";

/// Routes and their table.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    router: Router<Arc<AppState>>,
    table: Vec<Route>,
}

#[derive(Debug, Clone, Copy)]
struct Route {
    method: &'static str,
    /// A path, at whose end `{name}` stands for one part, and `{*name}` for any number of them.
    path: &'static str,
}

impl Routes {
    /// Adds a route that answers GET and HEAD.
    pub(crate) fn get<T: 'static>(self, path: &'static str, handler: impl Handler<T, Arc<AppState>>) -> Self {
        let Self { router, mut table } = self;
        table.push(Route { method: "GET", path });
        Self { router: router.route(path, get(handler)), table }
    }

    /// Adds a route that answers POST.
    pub(crate) fn post<T: 'static>(self, path: &'static str, handler: impl Handler<T, Arc<AppState>>) -> Self {
        let Self { router, mut table } = self;
        table.push(Route { method: "POST", path });
        Self { router: router.route(path, post(handler)), table }
    }

    /// Adds a route that answers DELETE.
    pub(crate) fn delete<T: 'static>(self, path: &'static str, handler: impl Handler<T, Arc<AppState>>) -> Self {
        let Self { router, mut table } = self;
        table.push(Route { method: "DELETE", path });
        Self { router: router.route(path, delete(handler)), table }
    }

    /// Adds another's routes.
    pub(crate) fn merge(mut self, other: Self) -> Self {
        self.table.extend(other.table);
        Self { router: self.router.merge(other.router), table: self.table }
    }

    /// The router and the table.
    pub(crate) fn into_parts(self) -> (Router<Arc<AppState>>, Arc<Table>) {
        (self.router, Arc::new(Table(self.table)))
    }
}

/// The routes by their methods and paths.
#[derive(Debug)]
pub(crate) struct Table(Vec<Route>);

impl Route {
    fn is_of(&self, path: &str) -> bool {
        match self.path.split_once('{') {
            Some((beginning, name)) => path
                .strip_prefix(beginning)
                .is_some_and(|rest| !rest.is_empty() && (name.starts_with('*') || !rest.contains('/'))),
            None => self.path == path,
        }
    }
}

impl Table {
    /// All routes as an error lists them.
    pub(crate) fn list(&self) -> String {
        let routes: Vec<String> = self.0.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
        routes.join(", ").replace("{*", "{")
    }

    /// The methods that a path answers, as an error lists them.
    pub(crate) fn methods(&self, path: &str) -> String {
        let of = self.0.iter().filter(|route| route.is_of(path));
        let methods: Vec<&str> =
            of.map(|route| if route.method == "GET" { "GET and HEAD" } else { route.method }).collect();
        methods.join(" and ")
    }

    fn has(&self, path: &str) -> bool {
        self.0.iter().any(|route| route.is_of(path))
    }

    /// The path of the route that is meant by one with further slashes or without the version, if it differs.
    fn meant(&self, path: &str) -> Option<String> {
        let plain: String = path.split('/').filter(|part| !part.is_empty()).flat_map(|part| ["/", part]).collect();
        let versioned = format!("{VERSION}{plain}");
        let meant = if self.has(&plain) { plain } else { Some(versioned).filter(|path| self.has(path))? };
        (meant != path).then_some(meant)
    }

    /// The request with the path of the route that it means.
    pub(crate) fn direct(&self, mut request: Request) -> Request {
        if let Some(uri) = self.meant(request.uri().path()).and_then(|path| with_path(request.uri(), path)) {
            *request.uri_mut() = uri;
        }
        request
    }
}

fn with_path(uri: &Uri, path: String) -> Option<Uri> {
    let query = uri.query().map_or(String::new(), |query| format!("?{query}"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path + &query).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_and_the_version_lead_to_the_route_that_is_meant() {
        let route = |path| Route { method: "GET", path };
        let table =
            Table(vec![route("/v1/models"), route("/v1/models/{*id}"), route("/v1/responses/{id}"), route("/ready")]);
        for (path, meant) in [
            ("/v1/models/", Some("/v1/models")),
            ("//v1//models", Some("/v1/models")),
            ("/models", Some("/v1/models")),
            ("/models/org/name/", Some("/v1/models/org/name")),
            ("/responses/a/", Some("/v1/responses/a")),
            ("/responses/a/b", None),
            ("/ready/", Some("/ready")),
            ("/v1/models", None),
            ("/v1/models/a", None),
            ("/v1/ready", None),
            ("/v2/models", None),
            ("/v1/v1/models", None),
            ("/", None),
        ] {
            assert_eq!(table.meant(path).as_deref(), meant, "{path}");
        }
        let uri = with_path(&"http://h:1/models/?a=b".parse().unwrap(), "/v1/models".into()).unwrap();
        assert_eq!(uri.to_string(), "http://h:1/v1/models?a=b");
    }
}
