//! Autorelease pools: a stack a thread; a pool's token is its depth. The hand-over that real runtimes optimize away becomes
//! a pool entry, which is the worst case.

use super::objects::{Object, objc_release, objc_retain};
use crate::rules;
use std::cell::RefCell;

enum Entry {
    Mark,
    Object(&'static Object),
}

thread_local! {
    static POOL: RefCell<Vec<Entry>> = const { RefCell::new(Vec::new()) };
}

#[unsafe(no_mangle)]
extern "C-unwind" fn objc_autorelease(object: Option<&'static Object>) -> Option<&'static Object> {
    let object = object?;
    if object.is_zombie() {
        rules::broken("objc_autorelease", &format!("autorelease of a released {}", object.zombie_name()));
        return Some(object);
    }
    let pooled = POOL.with_borrow_mut(|pool| {
        let open = !pool.is_empty();
        if open {
            pool.push(Entry::Object(object));
        }
        open
    });
    if !pooled {
        rules::broken("objc_autorelease", &format!("a {} autoreleased outside a pool leaks", object.class().name()));
    }
    Some(object)
}

#[unsafe(no_mangle)]
extern "C-unwind" fn objc_autoreleaseReturnValue(object: Option<&'static Object>) -> Option<&'static Object> {
    objc_autorelease(object)
}

#[unsafe(no_mangle)]
extern "C-unwind" fn objc_retainAutoreleasedReturnValue(object: Option<&'static Object>) -> Option<&'static Object> {
    objc_retain(object)
}

#[unsafe(no_mangle)]
extern "C-unwind" fn objc_autoreleasePoolPush() -> usize {
    POOL.with_borrow_mut(|pool| {
        pool.push(Entry::Mark);
        pool.len()
    })
}

#[unsafe(no_mangle)]
extern "C-unwind" fn objc_autoreleasePoolPop(token: usize) {
    loop {
        let (entry, depth) = POOL.with_borrow_mut(|pool| {
            let depth = pool.len();
            (if depth < token { None } else { pool.pop() }, depth)
        });
        match entry {
            Some(Entry::Object(object)) => objc_release(Some(object)),
            Some(Entry::Mark) if depth == token => return,
            Some(Entry::Mark) => rules::broken("objc_autoreleasePoolPop", "an inner pool is still open"),
            None => return rules::broken("objc_autoreleasePoolPop", "popped twice, or on another thread"),
        }
    }
}
