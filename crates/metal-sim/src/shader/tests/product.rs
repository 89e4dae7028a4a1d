#[test]
#[ignore]
fn product() {
    let mut n = 0;
    for file in std::fs::read_dir("/tmp/msl").unwrap() {
        let path = file.unwrap().path();
        let msl = std::fs::read_to_string(&path).unwrap();
        let t = std::time::Instant::now();
        match crate::shader::Library::compile(&msl) {
            Ok(l) => { n += 1; println!("{:?} {:?} {:?}", t.elapsed(), path.file_name().unwrap(), l.functions.values().map(|f| (f.meets, f.serial, f.max_threads, &f.alignments)).collect::<Vec<_>>()) }
            Err(e) => println!("FAIL {path:?}: {}", &e[..e.len().min(1500)]),
        }
    }
    println!("{n} compiled");
}
