//! Protection from web pages: those of other origins may not use the server, and while only this machine can connect, no name but its
//! own leads here.

use crate::account::REQUEST_ID;
use crate::error::ApiError;
use crate::request::tools::IGNORED_TOOLS;
use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, Method, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tower_http::cors::{AllowHeaders, AllowOrigin, Any, CorsLayer};

/// Time that a browser may keep the answer to its preflight.
const PREFLIGHT: Duration = Duration::from_secs(600);

/// Names under which the server is reached, and origins whose pages may use it.
#[derive(Debug)]
pub(crate) struct Origins {
    /// True if only this machine can connect.
    loopback: AtomicBool,
    hosts: Vec<String>,
    cors: Vec<String>,
}

impl Origins {
    /// `hosts` are names, with a port or for any; `cors` origins as browsers send them. `*` in either stands for all.
    pub(crate) fn new(hosts: &[String], cors: &[String]) -> Self {
        let lower = |list: &[String]| list.iter().map(|name| name.trim_end_matches('/').to_ascii_lowercase()).collect();
        Self { loopback: AtomicBool::new(true), hosts: lower(hosts), cors: lower(cors) }
    }

    /// The address that is listened on.
    pub(crate) fn bound_to(&self, address: IpAddr) {
        self.loopback.store(address.to_canonical().is_loopback(), Ordering::Release);
    }

    /// The layer that tells browsers of the origins that are allowed, if any are.
    pub(crate) fn cors(&self) -> Option<CorsLayer> {
        if self.cors.is_empty() {
            return None;
        }
        let layer = CorsLayer::new()
            .allow_methods([Method::GET, Method::POST, Method::DELETE])
            // A `*` would leave out `Authorization`, which clients send.
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers([REQUEST_ID, RETRY_AFTER, IGNORED_TOOLS])
            .max_age(PREFLIGHT);
        Some(match self.cors.iter().any(|origin| origin == "*") {
            true => layer.allow_origin(Any),
            false => {
                let allowed = self.cors.clone();
                let allows = move |origin: &HeaderValue, _: &_| {
                    origin.to_str().is_ok_and(|origin| allowed.contains(&origin.to_ascii_lowercase()))
                };
                layer.allow_origin(AllowOrigin::predicate(allows))
            }
        })
    }

    fn check(&self, request: &Request) -> Result<(), ApiError> {
        let host = host(request)?;
        if self.loopback.load(Ordering::Acquire) {
            match &host {
                Some(host) if own(host) || self.hosts.iter().any(|allowed| same_host(allowed, host)) => {}
                Some(host) => return Err(ApiError::foreign_host(host)),
                None if request.version() == Version::HTTP_11 => {
                    return Err(ApiError::invalid("", "the request has no Host header; HTTP/1.1 demands one"));
                }
                None => {}
            }
        }
        // Reading is left to the browser's own rules: a link from elsewhere must open.
        match *request.method() {
            Method::GET | Method::HEAD | Method::OPTIONS => Ok(()),
            _ => self.check_origin(request.headers(), host.as_deref()),
        }
    }

    fn check_origin(&self, headers: &HeaderMap, host: Option<&str>) -> Result<(), ApiError> {
        let everyone = self.cors.iter().any(|allowed| allowed == "*");
        let Some(origin) = headers.get(ORIGIN) else {
            let cross = headers.get("sec-fetch-site").is_some_and(|site| site.as_bytes() == b"cross-site");
            return if cross && !everyone { Err(ApiError::foreign_origin("null")) } else { Ok(()) };
        };
        let origin = String::from_utf8_lossy(origin.as_bytes()).to_ascii_lowercase();
        let allowed = everyone || self.cors.contains(&origin);
        if allowed || host.is_some_and(|host| same_origin(&origin, host)) {
            return Ok(());
        }
        Err(ApiError::foreign_origin(&origin))
    }
}

/// Lets a request through, or refuses it.
pub(crate) async fn guard(State(origins): State<Arc<Origins>>, request: Request, next: Next) -> Response {
    match origins.check(&request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// The host that the request is for: the target's authority, else the Host header.
fn host(request: &Request) -> Result<Option<String>, ApiError> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let header = hosts.next();
    if hosts.next().is_some() {
        return Err(ApiError::invalid("", "the request has more than one Host header"));
    }
    let named = match (request.uri().authority(), header) {
        (Some(authority), _) => Some(authority.as_str().to_owned()),
        (None, Some(header)) => Some(String::from_utf8_lossy(header.as_bytes()).into_owned()),
        (None, None) => None,
    };
    Ok(named.map(|host| host.to_ascii_lowercase()))
}

/// Name and port of a host.
fn split(host: &str) -> (&str, Option<&str>) {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|b| b.is_ascii_digit()) && (!name.contains(':') || name.ends_with(']')) =>
        {
            (name, Some(port))
        }
        _ => (host, None),
    };
    (name.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.'), port)
}

/// A name that only this machine can have given.
fn own(host: &str) -> bool {
    let (name, _) = split(host);
    name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.to_canonical().is_loopback())
}

/// `host` is `allowed`, whose port counts if it has one.
fn same_host(allowed: &str, host: &str) -> bool {
    let ((allowed_name, allowed_port), (name, port)) = (split(allowed), split(host));
    allowed == "*" || (allowed_name == name && (allowed_port.is_none() || allowed_port == port))
}

/// A page of `origin` came from `host`.
fn same_origin(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let usual = if scheme == "https" { "443" } else { "80" };
    let ((from, from_port), (to, to_port)) = (split(authority), split(host));
    from == to && from_port.unwrap_or(usual) == to_port.unwrap_or(usual)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn status(origins: &Origins, method: &str, version: Version, headers: &[(&str, &str)]) -> u16 {
        let mut request = Request::builder().method(method).uri("/v1/completions").version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let checked = origins.check(&request.body(Body::empty()).unwrap());
        checked.map_or_else(|error| error.into_response().status().as_u16(), |()| 200)
    }

    #[test]
    fn while_bound_to_loopback_only_its_own_names_lead_here() {
        let origins = Origins::new(&["model.lan".into(), "proxy:8443".into()], &[]);
        for (host, expected) in [
            ("localhost", 200),
            ("LOCALHOST:8080", 200),
            ("localhost.", 200),
            ("127.0.0.1:8080", 200),
            ("127.9.8.7", 200),
            ("[::1]:8080", 200),
            ("[::1]", 200),
            ("model.lan:1", 200),
            ("proxy:8443", 200),
            ("proxy:8444", 403),
            ("evil.test:8080", 403),
            ("localhost.evil.test", 403),
            ("127.0.0.1.evil.test", 403),
            ("192.168.1.2", 403),
            ("0.0.0.0", 403),
            ("", 403),
        ] {
            assert_eq!(status(&origins, "GET", Version::HTTP_11, &[("host", host)]), expected, "{host}");
        }
        assert_eq!(status(&origins, "GET", Version::HTTP_11, &[]), 400);
        assert_eq!(status(&origins, "GET", Version::HTTP_10, &[]), 200);
        assert_eq!(status(&origins, "GET", Version::HTTP_11, &[("host", "localhost"), ("host", "evil.test")]), 400);
        origins.bound_to("0.0.0.0".parse().unwrap());
        assert_eq!(status(&origins, "GET", Version::HTTP_11, &[("host", "gpu-box.lan")]), 200);
        assert_eq!(status(&origins, "GET", Version::HTTP_11, &[]), 200);
    }

    #[test]
    fn pages_of_other_origins_may_not_post() {
        let origins = Origins::new(&[], &["https://app.example".into()]);
        origins.bound_to("192.168.1.2".parse().unwrap());
        let host = ("host", "192.168.1.2:8080");
        for (headers, expected) in [
            (vec![host], 200),
            (vec![host, ("origin", "http://192.168.1.2:8080")], 200),
            (vec![host, ("origin", "https://app.example"), ("sec-fetch-site", "cross-site")], 200),
            (vec![("host", "a.example"), ("origin", "https://a.example:443")], 200),
            (vec![host, ("origin", "http://evil.test")], 403),
            (vec![host, ("origin", "http://192.168.1.2:9090")], 403),
            (vec![host, ("origin", "null")], 403),
            (vec![("origin", "http://evil.test")], 403),
            (vec![host, ("sec-fetch-site", "cross-site")], 403),
            (vec![host, ("sec-fetch-site", "none")], 200),
        ] {
            assert_eq!(status(&origins, "POST", Version::HTTP_11, &headers), expected, "{headers:?}");
            assert_eq!(status(&origins, "GET", Version::HTTP_11, &headers), 200, "a link: {headers:?}");
        }
        let all = Origins::new(&["*".into()], &["*".into()]);
        for foreign in [("origin", "http://y"), ("origin", "null"), ("sec-fetch-site", "cross-site")] {
            assert_eq!(status(&all, "POST", Version::HTTP_11, &[("host", "x"), foreign]), 200, "{foreign:?}");
        }
    }
}
