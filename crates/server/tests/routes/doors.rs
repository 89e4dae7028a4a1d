//! Paths, methods, hosts and origins.

use crate::house::House;
use crate::script::Script;
use mlx_serving_server::Settings;

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn an_unknown_path_says_where_the_routes_are_listed() {
    let house = House::new();
    let (_, code, message) = house.get("/v1/embeddings").await.error(404);
    assert_eq!(code, "not_found");
    assert_eq!(message, "GET /v1/embeddings is not a route of this server; docs/API.md lists them under Routes");
}

#[tokio::test]
async fn a_known_path_says_which_method_it_does_not_answer() {
    let house = House::new();
    for (method, path) in [("GET", CHAT), ("DELETE", "/v1/models"), ("PUT", "/v1/tokenize"), ("POST", "/health")] {
        let (_, code, message) = house.call(method, path, &[], "").await.error(405);
        assert_eq!((code.as_str(), message), ("method_not_allowed", format!("{path} does not answer {method}")));
    }
}

#[tokio::test]
async fn names_that_do_not_lead_here_are_refused() {
    let house = House::set(Settings { allowed_hosts: vec!["box.lan".into()], ..Settings::default() }, Script::new("m"));
    for (host, status) in [("127.0.0.1:8080", 200), ("box.lan", 200), ("evil.test", 403)] {
        assert_eq!(house.call("GET", "/v1/models", &[("host", host)], "").await.status, status, "{host}");
    }
    let (_, code, message) = house.call("GET", "/ready", &[("host", "evil.test")], "").await.error(403);
    assert!(code == "foreign_host" && message.contains("server.allowed_hosts"), "{message}");
}

#[tokio::test]
async fn pages_of_other_origins_may_not_post_unless_they_are_allowed() {
    let body = r#"{"messages": [{"role": "user", "content": "hi"}]}"#;
    let page = |origin: &'static str| [("origin", origin)];
    let house = House::new();
    assert_eq!(house.call("POST", CHAT, &page("http://localhost"), body).await.status, 200, "its own");
    let (_, code, message) = house.call("POST", CHAT, &page("http://app.test"), body).await.error(403);
    assert!(code == "foreign_origin" && message.contains("server.cors_origins"), "{message}");
    assert!(house.model.asked().len() == 1);

    let settings = Settings { cors_origins: vec!["http://app.test".into()], ..Settings::default() };
    let house = House::set(settings, Script::new("m"));
    let reply = house.call("POST", CHAT, &page("http://app.test"), body).await;
    assert_eq!(
        (reply.status, &reply.headers["access-control-allow-origin"]),
        (200, &"http://app.test".parse().unwrap())
    );
    assert_eq!(house.call("POST", CHAT, &page("http://other.test"), body).await.status, 403);
}

#[tokio::test]
async fn browsers_are_told_what_they_may_send() {
    let settings = Settings { cors_origins: vec!["http://app.test".into()], ..Settings::default() };
    let house = House::set(settings, Script::new("m"));
    let asks = [
        ("origin", "http://app.test"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type"),
    ];
    let reply = house.call("OPTIONS", CHAT, &asks, "").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.headers["access-control-allow-headers"], "authorization,content-type");
    assert_eq!(reply.headers["access-control-max-age"], "600");
}
