//! Paths, methods, hosts and origins.

use crate::house::House;
use crate::script::Script;
use mlx_serving_server::Settings;

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn an_unknown_path_is_told_the_routes_that_there_are() {
    let house = House::new();
    let (_, code, message) = house.get("/v1/nowhere").await.error(404);
    assert_eq!(code, "not_found");
    // The OpenAPI document has the rest of them.
    let begins =
        "GET /v1/nowhere is not a route of this server, which has POST /v1/chat/completions, POST /v1/completions";
    assert!(message.starts_with(begins), "{message}");
}

#[tokio::test]
async fn paths_are_found_with_further_slashes_and_without_the_version() {
    let house = House::new();
    let body = r#"{"messages": [{"role": "user", "content": "hi"}], "prompt": "x"}"#;
    for path in ["/chat/completions", "/v1/chat/completions/", "//v1/chat/completions", "/completions", "/completions/"]
    {
        let body =
            if path.contains("chat") { body.replace(", \"prompt\": \"x\"", "") } else { r#"{"prompt": "x"}"#.into() };
        assert_eq!(house.call("POST", path, &[], body).await.status, 200, "{path}");
    }
    for path in [
        "/models",
        "/models/",
        "/v1/models/",
        "/models/m",
        "/v1/models/m/",
        "/ready/",
        "/metrics/",
        "/metal/stats?model=m",
    ] {
        assert_eq!(house.get(path).await.status, 200, "{path}");
    }
    assert_eq!(house.get("/metal/stats?model=none").await.status, 404, "the query goes with it");
    assert_eq!(house.get("/nowhere/").await.error(404).2.split(" is not").next(), Some("GET /nowhere/"));
    let metrics = house.get("/metrics").await.text;
    assert!(metrics.contains("handler=\"/v1/models\",method=\"GET\",status=\"200\"} 3"), "{metrics}");
}

#[tokio::test]
async fn every_answer_has_its_requests_id() {
    let house = House::new();
    for (method, path, status) in
        [("GET", "/v1/models", 200), ("GET", "/nowhere", 404), ("PUT", CHAT, 405), ("POST", CHAT, 400)]
    {
        let reply = house.call(method, path, &[("x-request-id", "abc-1")], "").await;
        assert_eq!((reply.status, &reply.headers["x-request-id"]), (status, &"abc-1".parse().unwrap()), "{path}");
    }
    let refused = house.call("GET", "/ready", &[("host", "evil.test"), ("x-request-id", "abc-2")], "").await;
    assert_eq!((refused.status, &refused.headers["x-request-id"]), (403, &"abc-2".parse().unwrap()));
    let made = [house.get("/ready").await, house.call("GET", "/ready", &[("x-request-id", "a b")], "").await];
    let [a, b] = made.map(|reply| reply.headers["x-request-id"].to_str().unwrap().to_owned());
    assert!(a.starts_with("req-") && b.starts_with("req-") && a != b, "{a} {b}");
}

#[tokio::test]
async fn a_known_path_says_which_method_it_does_not_answer() {
    let house = House::new();
    for (method, path, answers) in [
        ("GET", CHAT, "POST"),
        ("DELETE", "/v1/models", "GET and HEAD"),
        ("DELETE", "/v1/models/org/name", "GET and HEAD"),
        ("PUT", "/v1/tokenize", "POST"),
        ("POST", "/health", "GET and HEAD"),
    ] {
        let reply = house.call(method, path, &[], "").await;
        let (_, code, message) = reply.error(405);
        assert_eq!(code, "method_not_allowed");
        assert_eq!(message, format!("{path} does not answer {method}; it answers {answers}"));
        assert!(reply.headers["allow"].to_str().unwrap().starts_with(&answers[..3]), "{:?}", reply.headers);
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
    let reply = house.call("GET", "/v1/models", &asks[..1], "").await;
    assert_eq!(reply.headers["access-control-expose-headers"], "x-request-id,retry-after,x-ignored-tools");
    let delete = [asks[0], ("access-control-request-method", "DELETE")];
    let reply = house.call("OPTIONS", "/v1/responses/resp_x", &delete, "").await;
    assert_eq!(reply.headers["access-control-allow-methods"], "GET,POST,DELETE");
}

/// A server that pages of one origin, or of all, may use.
fn opened(origin: &str) -> House {
    House::set(Settings { cors_origins: vec![origin.into()], ..Settings::default() }, Script::new("m"))
}

#[tokio::test]
async fn pages_can_read_answers_streams_and_errors_alike() {
    let body = r#"{"messages": [{"role": "user", "content": "hi"}], "stream": true}"#;
    for (allowed, told) in [("http://app.test", "http://app.test"), ("*", "*")] {
        let house = opened(allowed);
        for (method, path, body, status) in [
            ("GET", "/v1/models", "", 200),
            ("POST", CHAT, body, 200),
            ("POST", CHAT, "{", 400),
            ("POST", CHAT, r#"{"messages": [], "model": "none"}"#, 404),
            ("GET", "/nowhere", "", 404),
            ("PUT", CHAT, "", 405),
            ("GET", "/health", "", 200),
        ] {
            let reply = house.call(method, path, &[("origin", "http://app.test")], body).await;
            assert_eq!(reply.status, status, "{path}");
            assert_eq!(reply.headers["access-control-allow-origin"], told, "{method} {path}");
            let exposed = reply.headers["access-control-expose-headers"].to_str().unwrap();
            assert_eq!(exposed, "x-request-id,retry-after,x-ignored-tools", "{path}");
            assert!(reply.headers.get("access-control-allow-credentials").is_none());
            // Caches must not give one page's answer to another, if they differ.
            let varies = reply.headers.get_all("vary").iter().any(|vary| vary.to_str().unwrap().contains("origin"));
            assert_eq!(varies, allowed != "*", "{path}: {:?}", reply.headers);
        }
        house.model.fills(8);
        let reply = house.call("POST", CHAT, &[("origin", "http://app.test")], body).await;
        assert_eq!((reply.status, &reply.headers["access-control-allow-origin"]), (429, &told.parse().unwrap()));
    }
}

#[tokio::test]
async fn pages_that_may_not_use_the_server_are_told_nothing() {
    let asks = [("origin", "http://other.test"), ("access-control-request-method", "POST")];
    for house in [House::new(), opened("http://app.test")] {
        for reply in [
            house.call("OPTIONS", CHAT, &asks, "").await,
            house.call("GET", "/v1/models", &asks[..1], "").await,
            house.call("POST", CHAT, &asks[..1], "{}").await,
        ] {
            assert!(reply.headers.get("access-control-allow-origin").is_none(), "{:?}", reply.headers);
        }
    }
    // Where nobody may, there is no preflight either.
    let (_, code, _) = House::new().call("OPTIONS", CHAT, &asks, "").await.error(405);
    assert_eq!(code, "method_not_allowed");
}
