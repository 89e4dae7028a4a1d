//! Manual pages and completions, by the programs that read them; and `health`, which asks a server.

use crate::common::{Server, run, stdout};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Standard error of a program that reads a file, if the program is there and refuses it.
fn refused(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().ok()?;
    (!output.status.success()).then(|| format!("{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn shells_read_their_completions() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = dir.path().join(shell);
        std::fs::write(&script, stdout(&["completions", shell])).unwrap();
        // Those that are here and read a script without running it.
        if ["bash", "zsh", "fish"].contains(&shell) {
            assert_eq!(refused(shell, &["-n", script.to_str().unwrap()]), None);
        }
    }
}

/// What a shell offers for a command line, if the shell is here.
fn offered(shell: &str, ask: &str) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("completions");
    std::fs::write(&script, stdout(&["completions", shell])).unwrap();
    let asked = format!("source {}; {ask}", script.display());
    let output = Command::new(shell).args(["-c", &asked]).env("HOME", dir.path()).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

#[test]
fn shells_complete_a_flag_of_a_command_of_a_command() {
    let words = "COMP_WORDS=(mlx-serving bench throughput --conc); COMP_CWORD=3";
    let ask = format!("{words}; _mlx__serving mlx-serving --conc throughput; echo \"${{COMPREPLY[*]}}\"");
    if let Some(offered) = offered("bash", &ask) {
        assert_eq!(offered, "--concurrency\n");
    }
    if let Some(offered) = offered("fish", "complete -C 'mlx-serving bench throughput --conc'") {
        let (flag, about) = offered.split_once('\t').unwrap_or_else(|| panic!("{offered:?}"));
        assert!(flag == "--concurrency" && about.starts_with("Requests at a time"), "{offered:?}");
    }
}

#[test]
fn the_manual_is_one_page_a_command_and_formatters_take_it() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("new/man1");
    assert_eq!(stdout(&["man", "--out", folder.to_str().unwrap()]), "");
    let pages: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(pages.len() > 15, "{pages:?}");
    for page in &pages {
        let page = page.to_str().unwrap();
        assert_eq!(refused("mandoc", &["-Tlint", "-Werror", page]), None);
        assert_eq!(refused("man", &["--warnings=all", "-l", page]), None);
    }
    let first = std::fs::read_to_string(folder.join("mlx-serving.1")).unwrap();
    assert_eq!(stdout(&["man"]), first);
    assert!(first.contains(r"mlx\-serving\-bench(1)"), "{first}");
}

#[test]
fn health_says_whether_a_server_answers() {
    let server = Server::start(&[]);
    let port = server.address.rsplit(':').next().unwrap().to_owned();
    for host in ["127.0.0.1", "0.0.0.0", "localhost"] {
        let said = stdout(&["health", "--host", host, "--port", &port]);
        assert!(said.starts_with(r#"{"status":"ok""#), "{said}");
    }
    drop(server);
    let output = run(&["health", "--port", &port]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&format!("127.0.0.1:{port} does not answer")), "{said}");
}

#[test]
fn health_takes_nothing_but_http_for_an_answer_and_waits_five_seconds_in_all() {
    let ask = |talk: fn(TcpStream)| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        std::thread::spawn(move || talk(listener.accept().unwrap().0));
        let begun = Instant::now();
        let output = run(&["health", "--host", "127.0.0.1", "--port", &port]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned(), begun.elapsed())
    };
    let (code, said, _) = ask(|mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        stream.write_all(b"SSH-2.0 200 x\r\n").unwrap();
    });
    assert!(code == Some(1) && said.contains("is not an HTTP server"), "{code:?} {said}");
    let (code, said, _) = ask(|mut stream| {
        let mut request = [0; 4096];
        let _ = stream.read(&mut request);
        stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\n\r\nloading").unwrap();
    });
    assert!(code == Some(1) && said.contains("answers /health with 503: loading"), "{code:?} {said}");
    // One that says nothing, and one that says a little now and then, for longer than a run of this test may take.
    let silent: fn(TcpStream) =
        |mut stream| drop(stream.read(&mut [0; 4096]).and_then(|_| stream.read(&mut [0; 4096])));
    let dripping: fn(TcpStream) = |mut stream| {
        while stream.write_all(b"H").is_ok() {
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    for talk in [silent, dripping] {
        let (code, said, took) = ask(talk);
        assert!(code == Some(1) && said.contains("does not answer: no answer within 5 s"), "{code:?} {said}");
        assert!(took < Duration::from_secs(30), "{took:?}");
    }
}
