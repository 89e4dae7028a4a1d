use crate::answers::{ids, start_with};
use crate::logits::relative_l2;
use crate::repository;
use mlx_serving_device::Device;
use mlx_serving_engine::{Engine, Event, Pooling, Request, Stream};
use serde_json::Value;
use std::sync::Arc;

/// Embeddings of a random embedding model, of the last token and of the mean, against mlx-lm's: relative L2 errors of at most `limit`.
/// Alone with no optimization on, and in company with all, they must be the same, bit by bit.
///
/// # Panics
/// An embedding is further off, or depends on company or optimizations.
pub fn embeddings(device: impl Fn() -> Arc<dyn Device>, limit: f64) {
    let folder = repository("crates/model/tests/goldens/qwen3-embedding");
    let golden: Value = serde_json::from_slice(&std::fs::read(folder.join("embeddings.json")).unwrap()).unwrap();
    let (tokens, poolings) = (ids(&golden["tokens"]), [("last", Pooling::Last), ("mean", Pooling::Mean)]);
    let request =
        |pooling, length| Request { prompt: tokens[..length].to_vec(), embed: Some(pooling), ..Request::default() };
    let engine = start_with(&folder, device(), "none");
    let alone = poolings.map(|(_, pooling)| read(ask(&engine, request(pooling, tokens.len()))));
    for ((name, _), found) in poolings.iter().zip(&alone) {
        let expected: Vec<f32> = golden[name].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect();
        let length = found.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
        let scaled: Vec<f32> = found.iter().map(|&x| (f64::from(x) / length) as f32).collect();
        let error = relative_l2(&scaled, &expected);
        assert!(error <= limit, "{name}: {error:e} from mlx-lm");
    }
    drop(engine);
    let engine = start_with(&folder, device(), "all");
    let company: Vec<Stream> = (1..20).map(|length| ask(&engine, request(Pooling::Mean, length))).collect();
    let asked = poolings.map(|(_, pooling)| ask(&engine, request(pooling, tokens.len())));
    let bits = |vector: &Vec<f32>| vector.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(asked.map(|stream| bits(&read(stream))), alone.each_ref().map(bits));
    company.into_iter().for_each(|stream| drop(read(stream)));
}

fn ask(engine: &Engine, request: Request) -> Stream {
    engine.submit(request).unwrap()
}

fn read(mut stream: Stream) -> Vec<f32> {
    let mut found = None;
    loop {
        match stream.next_blocking().expect("a stream ends with its last event") {
            Event::Embedding(values) => found = Some(values),
            Event::Finished(_) => return found.expect("an embedding comes before the end"),
            other => panic!("{other:?}"),
        }
    }
}
