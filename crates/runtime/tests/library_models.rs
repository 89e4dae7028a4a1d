//! A library's bundled model; alone in its process, for which the folder is set.

use mlx_serving_runtime::{Source, set_bundled_models};

#[test]
fn a_librarys_own_bundled_model_comes_first() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = Source::Bundled.here().unwrap().unwrap();
    set_bundled_models(dir.path().to_owned());
    assert_eq!(Source::Bundled.here().unwrap().unwrap(), elsewhere, "there is none in the folder");

    let folder = dir.path().join(Source::Bundled.id());
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("config.json"), "{}").unwrap();
    assert_eq!(Source::Bundled.here().unwrap().unwrap(), folder);
}
