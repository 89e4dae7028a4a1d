//! Web pages of other origins, and names that lead to this machine.

use crate::common;
use crate::common::Server;
use crate::common::raw::{exchange, post, status};

const QUESTION: &str = r#"{"prompt": "x", "max_tokens": 7, "temperature": 0}"#;

fn ask(server: &Server, headers: &str) -> String {
    exchange(server, &post(server, "/v1/completions", &format!("connection: close\r\n{headers}"), QUESTION))
}

fn get(server: &Server, path: &str, headers: &str) -> String {
    exchange(server, format!("GET {path} HTTP/1.1\r\nconnection: close\r\n{headers}\r\n").as_bytes())
}

#[test]
fn a_page_of_another_origin_generates_nothing() {
    let server = Server::start(&["--device", "cpu"]);
    for headers in [
        "origin: http://evil.test\r\ncontent-type: text/plain\r\n",
        "origin: null\r\n",
        "origin: http://127.0.0.1:1\r\n",
        "sec-fetch-site: cross-site\r\n",
    ] {
        let answer = ask(&server, headers);
        assert!(status(&answer) == 403 && answer.contains("foreign_origin"), "{headers}: {answer}");
        assert!(!answer.to_lowercase().contains("access-control-allow-origin"), "{answer}");
    }
    assert_eq!(server.metric("vllm:generation_tokens_total"), 0.0);
    let own = format!("origin: http://{}\r\nsec-fetch-site: same-origin\r\n", server.address);
    assert_eq!(status(&ask(&server, &own)), 200);
    // A link from elsewhere opens.
    let host = format!("host: {}\r\n", server.address);
    let link = format!("{host}sec-fetch-site: cross-site\r\nsec-fetch-mode: navigate\r\n");
    assert_eq!(status(&get(&server, "/v1/models", &link)), 200);
}

#[test]
fn a_name_that_is_rebound_to_this_machine_leads_nowhere() {
    let server = Server::configured("server: { allowed_hosts: [model.lan] }\n");
    let port = server.address.rsplit(':').next().unwrap();
    for path in ["/v1/models", "/ready", "/metrics"] {
        for (host, expected) in [
            (format!("host: evil.test:{port}\r\n"), 403),
            (format!("host: localhost:{port}\r\n"), 200),
            ("host: model.lan\r\n".to_owned(), 200),
            (String::new(), 400),
        ] {
            let answer = get(&server, path, &host);
            assert_eq!(status(&answer), expected, "{path} {host}: {answer}");
            assert_eq!(answer.contains("server.allowed_hosts"), expected == 403, "{answer}");
        }
    }
    assert_eq!(status(&exchange(&server, b"GET /ready HTTP/1.0\r\n\r\n")), 200);
    assert_eq!(status(&ask(&server, "host: evil.test\r\n")), 403);
}

#[test]
fn allowed_origins_may_ask_and_read() {
    let server = Server::start(&["--device", "cpu", "--cors-origin", "https://app.example"]);
    let preflight = format!(
        "OPTIONS /v1/completions HTTP/1.1\r\nhost: {}\r\nconnection: close\r\norigin: https://app.example\r\n\
         access-control-request-method: POST\r\naccess-control-request-headers: content-type,authorization\r\n\r\n",
        server.address
    );
    let answer = exchange(&server, preflight.as_bytes()).to_lowercase();
    assert_eq!(status(&answer), 200, "{answer}");
    for header in [
        "access-control-allow-origin: https://app.example",
        "access-control-allow-headers",
        "access-control-allow-methods",
    ] {
        assert!(answer.contains(header), "{header}: {answer}");
    }
    let answer = ask(&server, "origin: https://app.example\r\nsec-fetch-site: cross-site\r\n");
    assert!(status(&answer) == 200 && answer.contains("access-control-allow-origin: https://app.example"), "{answer}");
    assert_eq!(status(&ask(&server, "origin: https://other.example\r\n")), 403);
    let output = common::run(&["serve", "--cors-origin", "app.example"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("app.example"), "{output:?}");
}

#[test]
fn bound_wider_clients_of_the_network_are_served_and_pages_are_not() {
    let mut server = Server::start(&["--device", "cpu", "--host", "0.0.0.0"]);
    assert!(server.logged("anybody who reaches this port"), "{:?}", server.lines());
    server.address = server.address.replace("0.0.0.0", "127.0.0.1");
    for host in ["host: gpu-box.lan:8080\r\n", "host: 192.168.1.2\r\n", ""] {
        assert_eq!(status(&get(&server, "/ready", host)), 200, "{host}");
    }
    assert_eq!(status(&ask(&server, "host: gpu-box.lan\r\n")), 200);
    assert_eq!(status(&ask(&server, "host: gpu-box.lan\r\norigin: http://evil.test\r\n")), 403);
}
