//! Heaps, buffers and their accounting.

use super::rig::{LIMIT, room, submit, upload};
use crate::ops::Copy;
use crate::{Device, DeviceError, Op, Storage};
use std::ops::Range;
use std::sync::Arc;

/// Placement obeys alignment and length, and nothing else.
pub fn heaps_place_what_fits_and_is_aligned(device: &Arc<dyn Device>) {
    let needs = device.placement(100);
    assert!(needs.align.is_power_of_two() && needs.size >= 100, "{needs:?}");
    assert_eq!(device.placement(needs.size).size, needs.size, "rounded once, it stays");
    let len = 16 * needs.size.next_multiple_of(needs.align);
    let heap = device.new_heap(len, Storage::Shared).expect("a small heap is granted");
    assert!(heap.len() >= len && !heap.is_empty());
    let buffer = heap.place(needs.align, 100).expect("aligned and within");
    assert_eq!((buffer.offset(), buffer.len()), (needs.align, 100));
    assert!(heap.place(0, len).is_ok());
    if needs.align > 1 {
        assert!(matches!(heap.place(needs.align / 2, 1), Err(DeviceError::Contract(_))), "not aligned");
    }
    let beyond = !(needs.align - 1);
    for (offset, len) in [(heap.len(), needs.align), (0, heap.len() + 1), (needs.align, u64::MAX), (beyond, 1 << 20)] {
        assert!(matches!(heap.place(offset, len), Err(DeviceError::Contract(_))), "{len} bytes at {offset}");
    }
}

/// Views outlive the heap, and overlapping ones are windows on the same bytes.
pub fn views_keep_their_memory_and_share_its_bytes(device: &Arc<dyn Device>) {
    let align = device.placement(1).align;
    let heap = device.new_heap(4 * align, Storage::Shared).expect("a small heap is granted");
    let whole = heap.place(0, 4 * align).expect("within");
    let part = heap.place(align, align).expect("within");
    let other = heap.place(2 * align, align).expect("within");
    drop(heap);
    assert!(whole.overlaps(&part) && !part.overlaps(&other));
    part.write(0, &[7u8, 8]).expect("shared");
    other.write(0, &[9u8]).expect("shared");
    let mut found = [0u8; 2];
    whole.read(align, &mut found).expect("shared");
    assert_eq!(found, [7, 8]);
    let inner = whole.slice(2 * align..2 * align + 1).expect("within");
    assert_eq!(inner.to_vec::<u8>().expect("shared"), [9]);
    assert!(inner.slice(0..2).is_err());
    assert!(device.counters().bytes_allocated >= 4 * align);
    drop((whole, part, other, inner));
    assert_eq!(device.counters().bytes_allocated, 0);
}

/// Reads, writes and loans beyond a view are refused and change nothing.
pub fn host_access_stays_within_a_view(device: &Arc<dyn Device>) {
    let memory = upload(device, &[1u8, 2, 3, 4, 5, 6, 7, 8]);
    let view = memory.slice(2..6).expect("within");
    assert!(view.write(3, &[0u8, 0]).is_err() && view.write(u64::MAX, &[0u8]).is_err());
    assert!(view.read(1, &mut [0u8; 4]).is_err() && view.read(5, &mut [0u8; 0]).is_err());
    view.lend(&mut |bytes| bytes.copy_from_slice(&[30, 40, 50, 60])).expect("shared");
    assert_eq!(memory.to_vec::<u8>().expect("shared"), [1, 2, 30, 40, 50, 60, 7, 8]);
    let memory = memory.memory();
    assert!(memory.write(8, &[0]).is_err() && memory.read(7, &mut [0; 2]).is_err());
    for range in [Range { start: 5, end: 4 }, 8..9, 0..u64::MAX] {
        assert!(memory.lend(range.clone(), &mut |_| panic!("nothing to lend")).is_err(), "{range:?}");
    }
}

/// Copies in and out of private memory, dedicated and placed, on both queues.
pub fn private_memory_is_reached_through_either_queue(device: &Arc<dyn Device>) {
    let bytes: Vec<u8> = (0..5000).map(|i| i as u8).collect();
    let heap = device.new_heap(device.placement(5000).size, Storage::Private).expect("a small heap is granted");
    let placed = heap.place(0, 5000).expect("within");
    let dedicated = device.new_buffer(5000, Storage::Private).expect("a small buffer is granted");
    assert_eq!(placed.memory().storage(), Storage::Private);
    for queue in [device.compute_queue(), device.transfer_queue()] {
        let (from, to) = (upload(device, &bytes), room(device, 5000));
        let copy = |from: &crate::Buffer, to: &crate::Buffer| Op::Copy(Copy { from: from.clone(), to: to.clone() });
        let ops = [copy(&from, &placed), copy(&placed, &dedicated), copy(&dedicated, &to)];
        submit(&queue, ops, &[], None).and_then(|copies| copies.wait(LIMIT)).expect("valid copies run");
        assert!(to.to_vec::<u8>().expect("shared") == bytes, "{queue:?}");
    }
}

/// Checks that backing a heap with memory early changes no byte of it.
pub fn touching_keeps_the_contents(device: &Arc<dyn Device>) {
    const LEN: u64 = 3 << 20;
    let heap = device.new_heap(LEN, Storage::Shared).expect("a small heap is granted");
    let all = heap.place(0, LEN).expect("within");
    let bytes: Vec<u8> = (0..LEN).map(|i| (i % 251) as u8).collect();
    all.write(0, &bytes).expect("shared");
    heap.touch(4096..LEN).expect("within");
    assert!(all.to_vec::<u8>().expect("shared") == bytes);
    assert!(heap.touch(0..LEN + 1).is_err() && heap.touch(u64::MAX - 1..u64::MAX).is_err());
}

/// Heaps and dedicated buffers count, placed ones do not, and released ones count no more.
pub fn counters_follow_allocations(device: &Arc<dyn Device>) {
    let before = device.counters();
    let heap = device.new_heap(1 << 16, Storage::Shared).expect("a small heap is granted");
    let buffer = device.new_buffer(1000, Storage::Private).expect("a small buffer is granted");
    let placed: Vec<_> = (0..8).map(|i| heap.place(i << 13, 64).expect("within")).collect();
    let during = device.counters();
    assert_eq!(during.allocations, before.allocations + 2);
    assert!(during.bytes_allocated >= before.bytes_allocated + (1 << 16) + 1000);
    drop((heap, buffer, placed));
    assert_eq!(device.counters().allocations, during.allocations, "ever allocated");
    assert_eq!(device.counters().bytes_allocated, before.bytes_allocated);
}

/// An allocation that no machine has is an error that says how much, and is not counted.
pub fn too_much_is_refused(device: &Arc<dyn Device>) {
    const MUCH: u64 = 1 << 60;
    let before = device.counters();
    for refused in [
        device.new_heap(MUCH, Storage::Shared).err(),
        device.new_heap(MUCH, Storage::Private).err(),
        device.new_buffer(MUCH, Storage::Shared).err(),
        device.new_buffer(MUCH, Storage::Private).err(),
    ] {
        assert!(matches!(refused, Some(DeviceError::OutOfMemory { requested: MUCH, .. })), "{refused:?}");
    }
    assert_eq!(device.counters(), before);
}
