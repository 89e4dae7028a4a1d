//! Rules of the Objective-C runtime, each broken on purpose: messages, references, pools, blocks.
mod common;

use block2::RcBlock;
use common::*;
use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::{AnyObject, NSObject, ProtocolObject, Sel};
use objc2::{ClassType, msg_send, sel};
use objc2_foundation::{NSArray, NSString, NSURL};
use objc2_metal::*;
use std::ffi::c_void;
use std::mem;

/// The message of a panic. The bindings check messages themselves, with what the runtime tells them.
fn refusal(send: impl FnOnce(&MTLHeapDescriptor)) -> String {
    let descriptor = MTLHeapDescriptor::new();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| send(&descriptor)));
    *outcome.expect_err("it panics").downcast::<String>().expect("with a message")
}

#[test]
fn an_unknown_selector_is_named() {
    // SAFETY: the bindings refuse the message, here and below.
    let message = refusal(|descriptor| unsafe { msg_send![descriptor, frobnicate] });
    assert!(message.contains("-[MTLHeapDescriptor frobnicate]"), "{message}");
    // SAFETY: as above.
    let message = refusal(|_| unsafe { msg_send![MTLHeapDescriptor::class(), frobnicate] });
    assert!(message.contains("+[MTLHeapDescriptor frobnicate]"), "{message}");
}

#[test]
fn a_message_has_the_methods_types() {
    // SAFETY: as above.
    let message = refusal(|descriptor| unsafe { msg_send![descriptor, setSize: 1u8] });
    assert!(message.contains("setSize:"), "{message}");
}

#[test]
fn a_released_object_takes_no_message() {
    // The bindings ask for the class first, where they check types.
    breaks("use of a released SimDevice", || {
        let device = device();
        // SAFETY: the object becomes a zombie, which only reports.
        unsafe { drop(Retained::from_raw(Retained::as_ptr(&device).cast_mut())) };
        device.name();
        mem::forget(device);
    });
}

#[test]
fn a_released_object_is_not_retained() {
    breaks("objc_retain: retain of a released MTLHeapDescriptor", || {
        let descriptor = MTLHeapDescriptor::new();
        // SAFETY: as above.
        unsafe { drop(Retained::from_raw(Retained::as_ptr(&descriptor).cast_mut())) };
        let second = descriptor.clone();
        mem::forget((descriptor, second));
    });
}

#[test]
fn releases_balance_retains() {
    breaks("objc_release: unbalanced release of a MTLHeapDescriptor that is already gone", || {
        let descriptor = MTLHeapDescriptor::new();
        // SAFETY: as above.
        unsafe { drop(Retained::from_raw(Retained::as_ptr(&descriptor).cast_mut())) };
        drop(descriptor);
    });
}

#[test]
fn a_leaked_object_is_listed() {
    assert_eq!(metal_sim::leaks(), Vec::<String>::new());
    let descriptor = MTLHeapDescriptor::new();
    let leaks = metal_sim::leaks();
    assert!(leaks.len() == 1 && leaks[0].starts_with("MTLHeapDescriptor #"), "{leaks:?}");
    drop(descriptor);
    let block = RcBlock::new(|| {});
    let handler = block.clone();
    assert_eq!(metal_sim::leaks(), ["1 blocks"]);
    drop((block, handler));
    assert_eq!(metal_sim::leaks(), Vec::<String>::new());
}

#[test]
fn nothing_is_autoreleased_outside_a_pool() {
    let descriptor = MTLHeapDescriptor::new();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = Retained::autorelease_ptr(descriptor.clone());
    }));
    assert!(outcome.is_err());
    let reports = metal_sim::take_violations();
    assert_eq!(reports, ["objc_autorelease: a MTLHeapDescriptor autoreleased outside a pool leaks"]);
}

#[test]
fn methods_that_return_autoreleased_objects_need_a_pool() {
    let queue = device().newCommandQueue().expect("a queue");
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| queue.commandBuffer())).is_err());
    assert!(metal_sim::take_violations()[0].contains("SimCommandBuffer autoreleased outside a pool"));
}

unsafe extern "C-unwind" {
    safe fn objc_autoreleasePoolPush() -> usize;
    safe fn objc_autoreleasePoolPop(token: usize);
    fn objc_msg_lookup(receiver: *const AnyObject, selector: Sel) -> *const c_void;
    fn _Block_copy(block: *const c_void) -> *const c_void;
    fn _Block_release(block: *const c_void);
}

#[test]
fn a_lookup_refuses_what_the_bindings_do_not_check() {
    let descriptor = MTLHeapDescriptor::new();
    let receiver: *const AnyObject = Retained::as_ptr(&descriptor).cast();
    breaks("-[MTLHeapDescriptor frobnicate]: unrecognized selector", || {
        // SAFETY: the receiver is alive; the lookup refuses the selector.
        unsafe { objc_msg_lookup(receiver, sel!(frobnicate)) };
    });
    drop(descriptor);
    breaks("-[MTLHeapDescriptor size]: use of a released MTLHeapDescriptor", || {
        // SAFETY: the receiver is a zombie, which only reports.
        unsafe { objc_msg_lookup(receiver, sel!(size)) };
    });
}

#[test]
fn a_released_object_is_not_autoreleased() {
    breaks("objc_autorelease: autorelease of a released MTLHeapDescriptor", || {
        let descriptor = MTLHeapDescriptor::new();
        // SAFETY: the object becomes a zombie, which only reports.
        unsafe { drop(Retained::from_raw(Retained::as_ptr(&descriptor).cast_mut())) };
        let _ = Retained::autorelease_ptr(descriptor);
    });
}

#[test]
fn a_released_block_is_not_copied() {
    let block = RcBlock::new(|| {});
    let address: *const c_void = RcBlock::as_ptr(&block).cast();
    drop(block);
    // SAFETY: the block's memory stays mapped, so that the copy only reports.
    breaks("_Block_copy: copy of a released block", || unsafe {
        _Block_copy(address);
    });
}

#[test]
fn an_argument_has_the_right_class() {
    breaks("setComputePipelineState:]: an argument is a SimBuffer", || {
        let device = device();
        let command_buffer =
            device.newCommandQueue().and_then(|queue| queue.commandBuffer()).expect("a command buffer");
        let buffer = shared(&device, 16);
        // SAFETY: both are pointers to an object; the simulator looks at its class first.
        let wrong: &ProtocolObject<dyn MTLComputePipelineState> =
            unsafe { &*Retained::as_ptr(&buffer).cast::<ProtocolObject<dyn MTLComputePipelineState>>() };
        pass(&command_buffer, MTLDispatchType::Serial, |encoder| encoder.setComputePipelineState(wrong));
    });
}

#[test]
fn an_array_ends() {
    breaks("objectAtIndex:]: index 1 of 1 objects", || {
        NSArray::from_retained_slice(&[NSObject::new()]).objectAtIndex(1);
    });
}

#[test]
fn pools_are_popped_inside_out_and_once() {
    breaks("objc_autoreleasePoolPop: an inner pool is still open", || {
        let outer = objc_autoreleasePoolPush();
        let _inner = objc_autoreleasePoolPush();
        objc_autoreleasePoolPop(outer);
    });
}

#[test]
fn a_pool_is_popped_once() {
    let outcome = std::panic::catch_unwind(|| {
        let token = objc_autoreleasePoolPush();
        objc_autoreleasePoolPop(token);
        objc_autoreleasePoolPop(token);
    });
    assert!(outcome.is_err());
    assert_eq!(metal_sim::take_violations(), ["objc_autoreleasePoolPop: popped twice, or on another thread"]);
}

#[test]
fn block_releases_balance_copies() {
    breaks("_Block_release: unbalanced release of a block that is already gone", || {
        let value = String::from("captured");
        let block = RcBlock::new(move || drop(value.clone()));
        // SAFETY: the block's memory stays mapped, so that the second release only reports.
        unsafe { _Block_release(RcBlock::as_ptr(&block).cast()) };
        drop(block);
    });
}

#[test]
fn a_pool_releases_what_it_holds_at_its_end() {
    let descriptor = MTLHeapDescriptor::new();
    autoreleasepool(|_| {
        let _ = Retained::autorelease_ptr(descriptor.clone());
        drop(descriptor);
        assert_eq!(metal_sim::leaks().len(), 1, "the pool holds it");
    });
    assert_eq!(metal_sim::leaks(), Vec::<String>::new());
}

#[test]
fn strings_arrays_and_urls_hold_what_they_were_given() {
    keeps_the_rules(|| {
        let string = NSString::from_str("grüße");
        assert_eq!((string.to_string(), string.length(), string.len()), ("grüße".into(), 5, 7));
        assert!(string.isEqualToString(&NSString::from_str("grüße")));
        let (first, second) = (NSObject::new(), NSObject::new());
        let array = NSArray::from_retained_slice(&[first.clone(), second]);
        assert_eq!(array.count(), 2);
        assert!(array.objectAtIndex(0) == first && array.objectAtIndex(1) != first);
        let url = NSURL::fileURLWithPath(&NSString::from_str("/tmp/archive"));
        assert_eq!(url.path().map(|path| path.to_string()).as_deref(), Some("/tmp/archive"));
    });
}

#[test]
fn objects_know_their_class_and_methods() {
    keeps_the_rules(|| {
        let string = NSString::from_str("text");
        let object: &AnyObject = &string;
        assert_eq!(object.class().name().to_str(), Ok("NSString"));
        assert!(object.downcast_ref::<NSString>().is_some() && object.downcast_ref::<NSURL>().is_none());
        let device = device();
        // SAFETY: the method has this signature.
        let answers = |name| -> bool { unsafe { msg_send![&device, respondsToSelector: name] } };
        assert!(answers(objc2::sel!(newSharedEvent)) && !answers(objc2::sel!(newSamplerStateWithDescriptor:)));
    });
}

#[test]
fn threads_may_share_objects() {
    keeps_the_rules(|| {
        let device = device();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let queue = device.newCommandQueue().expect("a queue");
                    for value in 0..50 {
                        autoreleasepool(|_| {
                            let buffer = shared(&device, 64);
                            run(&queue, |command_buffer| fill(command_buffer, &buffer, value));
                            assert_eq!(bytes(&buffer), [value; 64]);
                        });
                    }
                });
            }
        });
    });
}
