use super::*;

fn reading(at_ms: u64, busy_ms: u64) -> Reading {
    Reading { at: Duration::from_millis(at_ms), busy: Duration::from_millis(busy_ms) }
}

fn watch() -> Utilization {
    let start = reading(0, 0);
    Utilization { window: Duration::from_secs(1), marks: Mutex::new(Marks { from: start, next: start }) }
}

#[test]
fn it_is_busy_time_over_time() {
    let watch = watch();
    assert_eq!(watch.up_to(reading(0, 0)), 0.0);
    assert_eq!(watch.up_to(reading(500, 250)), 0.5);
}

#[test]
fn what_was_long_ago_does_not_count() {
    let watch = watch();
    for second in 1..=5 {
        watch.up_to(reading(1000 * second, 0));
    }
    let share = watch.up_to(reading(5900, 900));
    assert!((share - 900.0 / 1900.0).abs() < 1e-9, "{share}");
    // A step that has just been counted may have begun before the window.
    assert_eq!(watch.up_to(reading(6000, 9000)), 1.0);
}
