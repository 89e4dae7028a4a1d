use super::*;
use loom::sync::Arc;

/// Loom has no time: a wake-up that is lost is a deadlock, which it reports.
const EVER: Duration = Duration::from_secs(3600);

#[test]
fn loom_every_job_gets_through_a_ring_of_one_place() {
    loom::model(|| {
        let gate = Arc::new(Gate::new(ALIGN, 1));
        let producer = gate.clone();
        let producer = loom::thread::spawn(move || {
            producer.put(1, EVER, 1, |job| (job, ())).expect("no time limit");
            producer.stream(1, || (3, ()));
            producer.put(1, EVER, 2, |job| (job, ())).expect("no time limit");
            producer.close();
        });
        let mut seen = Vec::new();
        loop {
            match gate.take(|_| true) {
                Taken::Run(room, job) => {
                    seen.push(job);
                    gate.release(&room);
                }
                Taken::Abandon(job) => seen.push(job),
                Taken::End => break,
            }
        }
        producer.join().expect("the producer ends");
        seen.sort_unstable();
        assert_eq!(seen, [1, 2, 3]);
    });
}

#[test]
fn loom_two_producers_never_hold_one_place() {
    loom::model(|| {
        let gate = Arc::new(Gate::new(ALIGN, 1));
        let producers: Vec<_> = (0..2)
            .map(|job| {
                let gate = gate.clone();
                loom::thread::spawn(move || gate.put(1, EVER, job, |job| (job, ())).expect("no time limit"))
            })
            .collect();
        for _ in 0..2 {
            let Taken::Run(room, _) = gate.take(|_| true) else { panic!("nothing to run") };
            assert!(gate.lock().due.is_empty(), "the only place is held twice");
            gate.release(&room);
        }
        producers.into_iter().for_each(|p| drop(p.join()));
    });
}
