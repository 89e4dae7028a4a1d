//! `NSString`, immutable UTF-8.

use super::make;
use objc2::rc::{Allocated, Retained};
use objc2::runtime::NSObject;
use objc2::{DefinedClass, define_class, msg_send};
use objc2_foundation::NSString;
use std::ffi::{CStr, c_char, c_void};
use std::slice;

const UTF8: i32 = 4;

/// The bytes, and a terminating zero.
pub(crate) struct Text(Vec<u8>);

define_class!(
    // SAFETY: NSObject has no requirements for subclasses.
    #[unsafe(super(NSObject))]
    #[name = "NSString"]
    #[ivars = Text]
    pub(crate) struct SimString;

    impl SimString {
        #[unsafe(method_id(initWithBytes:length:encoding:))]
        fn init_with_bytes(
            this: Allocated<Self>,
            bytes: *const c_void,
            length: usize,
            encoding: i32,
        ) -> Option<Retained<Self>> {
            assert_eq!(encoding, UTF8, "metal-sim: NSString knows UTF-8 only");
            // SAFETY: the caller passes `length` readable bytes; a null pointer comes with no bytes.
            let bytes = if length == 0 { &[] } else { unsafe { slice::from_raw_parts(bytes.cast::<u8>(), length) } };
            let this = this.set_ivars(Text(terminated(bytes)));
            // SAFETY: NSObject's init.
            unsafe { msg_send![super(this), init] }
        }

        #[unsafe(method_id(stringWithUTF8String:))]
        fn string_with_utf8(text: *const c_char) -> Retained<Self> {
            // SAFETY: the caller passes a terminated string.
            make!(Self, Text(unsafe { CStr::from_ptr(text) }.to_bytes_with_nul().to_vec()))
        }

        #[unsafe(method_id(copy))]
        fn copy(&self) -> Retained<Self> {
            make!(Self, Text(self.ivars().0.clone()))
        }

        #[unsafe(method(UTF8String))]
        fn utf8(&self) -> *const c_char {
            self.ivars().0.as_ptr().cast()
        }

        #[unsafe(method(lengthOfBytesUsingEncoding:))]
        fn length_in(&self, _encoding: i32) -> usize {
            self.bytes().len()
        }

        #[unsafe(method(length))]
        fn length(&self) -> usize {
            String::from_utf8_lossy(self.bytes()).encode_utf16().count()
        }

        #[unsafe(method(isEqualToString:))]
        fn is_equal_to(&self, other: &NSString) -> u8 {
            (self.bytes() == other.to_string().as_bytes()).into()
        }
    }
);

impl SimString {
    pub(crate) fn new(text: &str) -> Retained<Self> {
        make!(Self, Text(terminated(text.as_bytes())))
    }

    fn bytes(&self) -> &[u8] {
        self.ivars().0.strip_suffix(&[0]).unwrap_or_default()
    }
}

fn terminated(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().chain([0]).collect()
}
