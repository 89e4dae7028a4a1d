//! Pulling from a stand-in hub on loopback, and what the cache holds afterward.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod standin;

use mlx_serving_hub::{Hub, HubError, ModelId, Options, Progress};
use standin::{COMMIT, EARLIER, Faults, ID, StandIn};
use std::path::{Path, PathBuf};

/// Weights that are large enough to be cut in the middle.
fn weights() -> Vec<u8> {
    (0..300_000u32).flat_map(u32::to_le_bytes).collect()
}

fn stand_in() -> StandIn {
    StandIn::start(&[
        ("config.json", b"{}"),
        ("tokenizer.json", b"{\"version\": \"1.0\"}"),
        ("added_tokens.json", b"{\"<t>\": 9}"),
        ("model.safetensors", &weights()),
        ("modules.json", b"[]"),
        ("1_Pooling/config.json", b"{  }"),
        ("2_Normalize/config.json", b"{}"),
        ("README.md", b"# nobody runs this"),
        ("pytorch_model.bin", b"\x80"),
        ("consolidated.safetensors", b"the same again"),
        ("onnx/model.safetensors", b"nested"),
        ("../../evil.safetensors", b"outside"),
    ])
}

fn options(hub: &StandIn, cache: &Path) -> Options {
    Options { cache: cache.to_owned(), endpoint: hub.url.clone(), token: None, offline: false }
}

fn id() -> ModelId {
    ModelId::parse(ID).unwrap()
}

fn pull(options: &Options) -> Result<PathBuf, HubError> {
    Hub::new(options.clone()).pull(&id(), &mut |_| ())
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_pulled_model_has_the_files_that_it_needs_in_the_shared_layout() {
    let (hub, dir) = (stand_in(), tempfile::tempdir().unwrap());
    let options = options(&hub, dir.path());
    let mut seen = Vec::new();
    let path = Hub::new(options.clone()).pull(&id(), &mut |p: Progress| seen.push((p.done, p.total))).unwrap();
    assert_eq!(path, dir.path().join("models--someone--tiny-4bit/snapshots").join(COMMIT));
    let own = ["1_Pooling", "added_tokens.json", "config.json", "model.safetensors", "modules.json", "tokenizer.json"];
    assert_eq!(names(&path), own);
    assert_eq!(std::fs::read(path.join("1_Pooling/config.json")).unwrap(), b"{  }");
    assert_eq!(std::fs::read(path.join("model.safetensors")).unwrap(), weights());
    #[cfg(unix)]
    {
        let target = std::fs::read_link(path.join("model.safetensors")).unwrap();
        assert!(target.starts_with("../../blobs") && target.file_name().unwrap().len() == 64, "{target:?}");
    }
    let main = std::fs::read_to_string(dir.path().join("models--someone--tiny-4bit/refs/main")).unwrap();
    assert_eq!(main, COMMIT);
    assert!(seen.is_sorted() && seen.last().is_some_and(|(done, total)| done == total), "{seen:?}");
    // A second time, only the listing is asked for; resolving asks for nothing.
    hub.requests();
    pull(&options).unwrap();
    assert_eq!(hub.requests().len(), 1);
    assert_eq!(Hub::new(options).resolve(&id(), &mut |_| ()).unwrap(), path);
    assert!(hub.requests().is_empty());
}

#[test]
fn a_connection_that_breaks_is_taken_up_where_it_stopped() {
    let (hub, dir) = (stand_in(), tempfile::tempdir().unwrap());
    hub.faults(Faults { cut: Some((3, 200_000)), ..Faults::default() });
    let path = pull(&options(&hub, dir.path())).unwrap();
    assert_eq!(std::fs::read(path.join("model.safetensors")).unwrap(), weights());
    let ranges: Vec<_> = hub.requests().into_iter().filter(|r| r.path.starts_with("/cdn/")).map(|r| r.range).collect();
    let from = |bytes: u32| Some(format!("bytes={bytes}-"));
    assert_eq!(ranges, [None, from(200_000), from(400_000), from(600_000)]);
}

#[test]
fn a_pull_that_was_given_up_goes_on_with_the_next() {
    let (hub, dir) = (stand_in(), tempfile::tempdir().unwrap());
    let options = options(&hub, dir.path());
    hub.faults(Faults { cut: Some((1, 500_000)), ..Faults::default() });
    // The process dies in the middle of the first connection.
    let died = std::panic::catch_unwind(|| {
        Hub::new(options.clone()).pull(&id(), &mut |p| assert!(p.done < 300_000, "the process dies"))
    });
    assert!(died.is_err());
    assert!(Hub::new(options.clone()).cache().snapshot(&id()).unwrap().is_none(), "half a model was found");
    hub.faults(Faults::default());
    hub.requests();
    let path = pull(&options).unwrap();
    assert_eq!(std::fs::read(path.join("model.safetensors")).unwrap(), weights());
    let ranges: Vec<_> = hub.requests().into_iter().filter_map(|r| r.range).collect();
    assert!(!ranges.is_empty() && ranges[0] != "bytes=0-", "{ranges:?}");
    let blobs = names(&dir.path().join("models--someone--tiny-4bit/blobs"));
    assert!(blobs.iter().all(|name| !name.ends_with("incomplete")), "{blobs:?}");
}

#[test]
fn a_hub_that_knows_no_ranges_sends_the_file_again() {
    let (hub, dir) = (stand_in(), tempfile::tempdir().unwrap());
    hub.faults(Faults { cut: Some((1, 200_000)), whole_only: true, ..Faults::default() });
    let path = pull(&options(&hub, dir.path())).unwrap();
    assert_eq!(std::fs::read(path.join("model.safetensors")).unwrap(), weights());
}

#[test]
fn a_connection_that_brings_nothing_is_given_up() {
    let (hub, dir) = (stand_in(), tempfile::tempdir().unwrap());
    hub.faults(Faults { cut: Some((usize::MAX, 0)), ..Faults::default() });
    let error = pull(&options(&hub, dir.path())).unwrap_err();
    assert!(
        matches!(error, HubError::Network { .. }) && error.to_string().contains("go on where they stopped"),
        "{error}"
    );
}

#[test]
fn damaged_files_are_noticed_deleted_and_not_found() {
    let (hub, dir) = (stand_in(), tempfile::tempdir().unwrap());
    let options = options(&hub, dir.path());
    hub.faults(Faults { damaged: true, ..Faults::default() });
    let error = pull(&options).unwrap_err();
    assert!(matches!(&error, HubError::Damaged { file, .. } if file == "config.json"), "{error}");
    assert!(Hub::new(options.clone()).cache().snapshot(&id()).unwrap().is_none());
    hub.faults(Faults::default());
    pull(&options).unwrap();
}

#[test]
fn a_file_longer_than_listed_is_refused_and_none_is_allocated_for_a_claim() {
    let (hub, dir) = (stand_in(), tempfile::tempdir().unwrap());
    let hash = "a".repeat(64);
    let listing = |size: u64| {
        let lfs = serde_json::json!({ "sha256": hash, "size": size });
        let config = serde_json::json!({ "rfilename": "config.json", "size": size, "lfs": lfs });
        let weights = serde_json::json!({ "rfilename": "model.safetensors", "size": size, "lfs": lfs });
        Some(serde_json::json!({ "sha": COMMIT, "siblings": [config, weights] }).to_string())
    };
    hub.faults(Faults { listing: listing(1), ..Faults::default() });
    let error = pull(&options(&hub, dir.path())).unwrap_err();
    assert!(matches!(error, HubError::Damaged { .. }), "{error}");
    hub.faults(Faults { listing: listing(u64::MAX / 4), ..Faults::default() });
    let error = pull(&options(&hub, dir.path())).unwrap_err();
    assert!(matches!(error, HubError::Network { .. }), "{error}");
}

#[test]
fn refusals_say_what_to_do_and_name_the_model() {
    let (hub, dir) = (stand_in(), tempfile::tempdir().unwrap());
    for (status, code, words) in [
        (404, "", "check the spelling"),
        (401, "RepoNotFound", "check the spelling"),
        (401, "GatedRepo", "accept its conditions"),
        (403, "GatedRepo", "HF_TOKEN"),
        (401, "", "HF_TOKEN"),
        (503, "", "answered 503: no; try again later"),
    ] {
        hub.faults(Faults { refuse: Some((status, code)), ..Faults::default() });
        let error = pull(&options(&hub, dir.path())).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains(ID), "{status} {code}: {error}");
    }
}

#[test]
fn the_token_goes_to_the_hub_and_to_nobody_that_it_points_to() {
    let (hub, dir) = (stand_in(), tempfile::tempdir().unwrap());
    pull(&Options { token: Some("secret".into()), ..options(&hub, dir.path()) }).unwrap();
    for request in hub.requests() {
        let expected = (!request.path.starts_with("/cdn/")).then_some("Bearer secret");
        assert_eq!(request.authorization.as_deref(), expected, "{}", request.path);
    }
}

#[test]
fn offline_asks_nobody() {
    let (hub, dir) = (stand_in(), tempfile::tempdir().unwrap());
    let offline = Options { offline: true, ..options(&hub, dir.path()) };
    let error = Hub::new(offline.clone()).resolve(&id(), &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains(ID) && error.contains("HF_HUB_OFFLINE"), "{error}");
    assert!(hub.requests().is_empty());
    let path = pull(&options(&hub, dir.path())).unwrap();
    assert_eq!(Hub::new(offline).resolve(&id(), &mut |_| ()).unwrap(), path);
}

#[test]
fn an_unreachable_hub_and_one_that_is_none_are_told_apart() {
    let (hub, dir) = (stand_in(), tempfile::tempdir().unwrap());
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nobody = Options { endpoint: format!("http://127.0.0.1:{port}"), ..options(&hub, dir.path()) };
    assert!(matches!(pull(&nobody).unwrap_err(), HubError::Network { .. }));
    for listing in ["<html>", "{}", r#"{"sha": "../..", "siblings": []}"#] {
        hub.faults(Faults { listing: Some(listing.into()), ..Faults::default() });
        let error = pull(&options(&hub, dir.path())).unwrap_err();
        assert!(matches!(error, HubError::Answer { .. }), "{listing}: {error}");
    }
    hub.faults(Faults {
        listing: Some(serde_json::json!({ "sha": COMMIT, "siblings": [] }).to_string()),
        ..Faults::default()
    });
    assert!(matches!(pull(&options(&hub, dir.path())).unwrap_err(), HubError::NoModel { missing: "config.json", .. }));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_named() {
    let (hub, dir) = (stand_in(), tempfile::tempdir().unwrap());
    let blobs = dir.path().join("models--someone--tiny-4bit/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    // The hash of the empty object in git's words; the device refuses every byte.
    let hash = "9e26dfeeb6e641a33dae4961196235bdb965b21b";
    std::os::unix::fs::symlink("/dev/full", blobs.join(format!("{hash}.incomplete"))).unwrap();
    let error = pull(&options(&hub, dir.path())).unwrap_err();
    assert!(matches!(error, HubError::DiskFull { .. }) && error.to_string().contains("HF_HUB_CACHE"), "{error}");
}

#[test]
fn two_at_once_share_one_download() {
    let (hub, dir) = (stand_in(), tempfile::tempdir().unwrap());
    let options = options(&hub, dir.path());
    let paths: Vec<PathBuf> = std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..4).map(|_| scope.spawn(|| pull(&options).unwrap())).collect();
        pulls.into_iter().map(|pull| pull.join().unwrap()).collect()
    });
    assert!(paths.iter().all(|path| std::fs::read(path.join("model.safetensors")).unwrap() == weights()));
    let downloads = hub.requests().iter().filter(|r| r.path.starts_with("/cdn/")).count();
    assert_eq!(downloads, 1);
}

#[test]
fn models_are_listed_with_their_sizes_and_removed_with_their_blobs() {
    let (hub, dir) = (stand_in(), tempfile::tempdir().unwrap());
    let cache = Hub::new(options(&hub, dir.path())).cache().clone();
    assert!(cache.list().unwrap().is_empty());
    let path = pull(&options(&hub, dir.path())).unwrap();
    std::fs::create_dir_all(dir.path().join("datasets--a--b/snapshots/x")).unwrap();
    let models = cache.list().unwrap();
    let size = weights().len() as u64 + 10 + 2 + 18 + 2 + 4;
    assert_eq!(models.len(), 1);
    assert_eq!((&models[0].id, models[0].size, &models[0].path), (&id(), size, &path));
    assert!(models[0].complete && models[0].revision == COMMIT && models[0].last_used.is_some());
    assert_eq!(cache.remove(&id()).unwrap(), size);
    assert!(cache.list().unwrap().is_empty() && cache.snapshot(&id()).unwrap().is_none());
    assert!(matches!(cache.remove(&id()), Err(HubError::NotCached { .. })));
}

#[test]
fn a_snapshot_that_lacks_a_shard_is_pulled_again() {
    let (hub, dir) = (stand_in(), tempfile::tempdir().unwrap());
    hub.set_file(
        "model.safetensors.index.json",
        br#"{"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}"#,
    );
    hub.set_file("model-2.safetensors", b"more");
    let hub_here = Hub::new(options(&hub, dir.path()));
    let path = hub_here.pull(&id(), &mut |_| ()).unwrap();
    assert_eq!(hub_here.cache().snapshot(&id()).unwrap().as_ref(), Some(&path));
    std::fs::remove_file(path.join("model-2.safetensors")).unwrap();
    assert!(hub_here.cache().snapshot(&id()).unwrap().is_none());
    assert!(!hub_here.cache().list().unwrap()[0].complete);
    hub_here.resolve(&id(), &mut |_| ()).unwrap();
    assert_eq!(std::fs::read(path.join("model-2.safetensors")).unwrap(), b"more");
}

fn revision(name: &str) -> ModelId {
    ModelId::parse(&format!("{ID}@{name}")).unwrap()
}

#[test]
fn revisions_are_pulled_found_listed_and_removed_one_by_one() {
    let (standin, dir) = (stand_in(), tempfile::tempdir().unwrap());
    let hub = Hub::new(options(&standin, dir.path()));
    let folder = dir.path().join("models--someone--tiny-4bit");
    let pull = |id: &ModelId| hub.pull(id, &mut |_| ()).unwrap();
    assert!(hub.cache().snapshot(&revision("v1")).unwrap().is_none());
    let (main, tagged) = (pull(&id()), pull(&revision("v1")));
    assert_eq!((main.file_name().unwrap(), tagged.file_name().unwrap()), (COMMIT.as_ref(), EARLIER.as_ref()));
    assert_eq!(std::fs::read_to_string(tagged.join("config.json")).unwrap(), "{} ");
    pull(&revision("refs/pr/1"));
    assert_eq!(std::fs::read_to_string(folder.join("refs/refs/pr/1")).unwrap(), EARLIER);
    // A commit needs no name of its own.
    pull(&revision(EARLIER));
    assert!(!folder.join("refs").join(EARLIER).exists());
    standin.requests();
    for (name, path) in
        [("v1", &tagged), ("refs/pr/1", &tagged), (EARLIER, &tagged), ("main", &main), (&COMMIT[..8], &main)]
    {
        assert_eq!(&hub.resolve(&revision(name), &mut |_| ()).unwrap(), path, "{name}");
    }
    assert_eq!(hub.resolve(&id(), &mut |_| ()).unwrap(), main);
    assert!(standin.requests().is_empty(), "all of them were there");
    // Too short, and two begin so.
    for name in ["012345", &COMMIT[..7]] {
        assert!(hub.cache().snapshot(&revision(name)).unwrap().is_none(), "{name}");
    }
    let listed: Vec<(String, Vec<String>)> =
        hub.cache().list().unwrap().into_iter().map(|m| (m.revision, m.refs)).collect();
    let named = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    assert_eq!(listed, [(COMMIT.to_owned(), named(&["main"])), (EARLIER.to_owned(), named(&["refs/pr/1", "v1"]))]);
    // The weights are one blob for both.
    assert_eq!(hub.cache().remove(&revision("v1")).unwrap(), if cfg!(unix) { 3 } else { 0 });
    assert!(hub.cache().snapshot(&revision("refs/pr/1")).unwrap().is_none() && !folder.join("refs/v1").exists());
    assert!(matches!(hub.cache().remove(&revision("v1")), Err(HubError::NotCached { .. })));
    assert_eq!(std::fs::read(main.join("model.safetensors")).unwrap(), weights());
    assert!(hub.cache().remove(&revision(&COMMIT[..7])).unwrap() >= weights().len() as u64);
    assert!(!folder.exists());
}

#[test]
fn a_revision_that_the_hub_does_not_have_is_named() {
    let (hub, dir) = (stand_in(), tempfile::tempdir().unwrap());
    let error = Hub::new(options(&hub, dir.path())).resolve(&revision("v9"), &mut |_| ()).unwrap_err();
    assert!(matches!(error, HubError::NoRevision { .. }), "{error}");
    assert!(error.to_string().contains(&format!("no revision \"v9\" of {ID}:")), "{error}");
}

#[test]
fn a_stale_index_is_no_reason_to_pull_again() {
    let (standin, dir) = (stand_in(), tempfile::tempdir().unwrap());
    standin.set_file("model.safetensors.index.json", br#"{"weight_map": {"a": "model-00001-of-00002.safetensors"}}"#);
    let hub = Hub::new(options(&standin, dir.path()));
    let path = hub.pull(&id(), &mut |_| ()).unwrap();
    standin.requests();
    assert_eq!(hub.resolve(&id(), &mut |_| ()).unwrap(), path);
    assert!(standin.requests().is_empty() && hub.cache().list().unwrap()[0].complete);
    // Shards without an index are a model too, if all are there.
    std::fs::remove_file(path.join("model.safetensors.index.json")).unwrap();
    std::fs::rename(path.join("model.safetensors"), path.join("model-00001-of-00002.safetensors")).unwrap();
    assert!(hub.cache().snapshot(&id()).unwrap().is_none() && !hub.cache().list().unwrap()[0].complete);
    std::fs::write(path.join("model-00002-of-00002.safetensors"), b"").unwrap();
    assert_eq!(hub.cache().snapshot(&id()).unwrap(), Some(path));
}
