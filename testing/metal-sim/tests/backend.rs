//! Behavior of the backend beyond the contract's suite, such as dependent blits and kernels kept from run to run.
mod rig;

use metal_sim::faults;
use mlx_serving_device::{Device, DeviceError, Point, Status};
use mlx_serving_metal::{MetalDevice, MetalOptions};
use rig::{LIMIT, bytes, close, copy, filled, open, point, submit};
use std::fs;

#[test]
fn blits_that_depend_on_each_other_run_in_order() {
    faults::reset();
    faults::set_seed(3);
    let device = open();
    let chain: Vec<_> = (0..8).map(|byte| filled(&device, byte, 4096)).collect();
    let copies = chain.windows(2).map(|pair| copy(&pair[0], &pair[1]));
    submit(&device.transfer_queue(), copies, &[], None).wait(LIMIT).expect("copies succeed");
    assert_eq!(bytes(&chain[7]), [0; 4096]);
    drop(chain);
    close(device);
}

/// Parts of a word belong to neither copy alone.
#[test]
fn copies_side_by_side_in_one_word_do_not_disturb_each_other() {
    faults::reset();
    faults::set_seed(5);
    let device = open();
    let (from, to) = (filled(&device, 7, 64), filled(&device, 0, 64));
    let part = |of: &mlx_serving_device::Buffer, at: u64| of.slice(at..at + 5).expect("within");
    let copies = (0..12).map(|i| copy(&part(&from, 5 * i), &part(&to, 5 * i)));
    for queue in [device.compute_queue(), device.transfer_queue()] {
        to.write(0, &[0u8; 64]).expect("shared");
        submit(&queue, copies.clone(), &[], None).wait(LIMIT).expect("copies succeed");
        let mut expected = [7; 64];
        expected[60..].fill(0);
        assert_eq!(bytes(&to), expected, "{queue:?}");
    }
    drop((from, to));
    close(device);
}

/// Hands a buffer back and forth between two queues without the host.
#[test]
fn queues_take_turns_on_the_device() {
    faults::reset();
    let device = open();
    let [a, b] = [1, 2].map(|byte| filled(&device, byte, 1024));
    let turn = device.new_timeline().expect("granted");
    let at = |value| Point { timeline: turn.clone(), value };
    let (compute, transfer) = (device.compute_queue(), device.transfer_queue());
    for i in 0..50 {
        submit(&compute, [copy(&a, &b)], &[at(2 * i)], Some(&at(2 * i + 1)));
        submit(&transfer, [copy(&b, &a)], &[at(2 * i + 1)], Some(&at(2 * i + 2)));
    }
    at(100).wait(LIMIT).expect("each turn leads to the next");
    assert_eq!((bytes(&a), bytes(&b)), (vec![1; 1024], vec![1; 1024]));
    drop((a, b, turn, compute, transfer));
    close(device);
}

/// Tries the units out when a device is opened: whether they are used shows in its description, and in none of its counters.
#[test]
fn matrix_units_are_used_if_their_sums_are_exact() {
    for (coarse, unified, used) in [(false, true, true), (true, true, false), (false, false, false)] {
        faults::reset();
        faults::set_coarse_matrices(coarse);
        faults::set_unified_memory(unified);
        let device = open();
        let (counters, features) = (device.counters(), &device.info().features);
        assert_eq!(features.iter().any(|feature| feature == "8x8 matrix units"), used, "{features:?}");
        assert_eq!((counters.submissions, counters.allocations), (0, 0));
        close(device);
    }
    faults::reset();
}

#[test]
fn compiled_kernels_are_kept_and_a_broken_file_is_replaced() {
    faults::reset();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pipelines/metal.binarchive");
    let run = || {
        let pipeline_cache = Some(folder.path().join("pipelines"));
        let device = MetalDevice::open(&MetalOptions { pipeline_cache, ..MetalOptions::default() }).expect("a device");
        let [a, b] = [1, 2].map(|byte| filled(&device, byte, 64));
        submit(&device.compute_queue(), [copy(&a, &b)], &[], None).wait(LIMIT).expect("copies succeed");
        drop((a, b));
        close(device);
        fs::read_to_string(&file).expect("the file is written")
    };
    let first = run();
    assert!(first.contains("copy"), "{first}");
    assert_eq!(run(), first);
    fs::write(&file, "no archive").expect("writable");
    assert_eq!(run(), first);
    assert_eq!(fs::read_dir(folder.path().join("pipelines")).expect("a folder").count(), 1, "no draft is left");
}

#[test]
fn a_device_may_be_dropped_while_it_compiles() {
    faults::reset();
    let device = open();
    device.warm();
    let gate = point(&device, 1);
    let last = submit(&device.compute_queue(), [], std::slice::from_ref(&gate), None);
    gate.timeline.signal(1);
    drop(device);
    last.wait(LIMIT).expect("what was submitted runs");
}

/// A submission of 40 copies, each waiting for the one before, in as many command buffers as there may be.
#[test]
fn long_submissions_run_in_pieces_and_end_as_one() {
    faults::reset();
    let options = MetalOptions { piece_work: Some(1), ..MetalOptions::default() };
    let device = MetalDevice::open(&options).expect("a device");
    let queue = device.compute_queue();
    let timeline = device.new_timeline().expect("granted");
    let chain: Vec<_> = (0..=40).map(|byte| filled(&device, byte, 64)).collect();
    let run = |value| {
        let copies = chain.windows(2).map(|pair| copy(&pair[0], &pair[1]));
        submit(&queue, copies, &[], Some(&Point { timeline: timeline.clone(), value }))
    };
    let good = run(1);
    good.wait(LIMIT).expect("copies succeed");
    assert_eq!(bytes(&chain[40]), [0; 64]);
    assert!(good.times().is_some_and(|(began, ended)| began < ended && ended <= device.now()));
    for piece in 0..8 {
        faults::fail_command_buffer(piece);
        let failed = run(2 + piece);
        timeline.wait(2 + piece, LIMIT).expect("a failure signals");
        assert!(matches!(failed.status(), Status::Failed(DeviceError::CommandFailed(_))), "{:?}", failed.status());
    }
    faults::fail_command_buffer(8);
    run(10).wait(LIMIT).expect("there is no ninth piece");
    assert!(run(11).wait(LIMIT).is_err(), "the next submission's first is struck");
    drop((queue, timeline, chain, good));
    close(device);
}
