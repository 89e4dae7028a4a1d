//! `MTLLibrary`, `MTLFunction` and the options of the compiler.

use super::device::SimDevice;
use super::object::{SimObject, make_on};
use crate::foundation::error::SimError;
use crate::shader::{Function, Library};
use objc2::rc::{Allocated, Retained};
use objc2::runtime::{NSObject, NSObjectProtocol};
use objc2::{DefinedClass, define_class, msg_send};
use objc2_foundation::NSString;
use objc2_metal::{
    MTLFunction, MTLFunctionType, MTLLanguageVersion, MTLLibrary, MTLLibraryOptimizationLevel, MTLMathMode,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// `MTLLibraryErrorCompileFailure`.
const COMPILE_FAILURE: isize = 3;

define_class!(
    // SAFETY: SimObject has no requirements for subclasses.
    #[unsafe(super(SimObject, NSObject))]
    #[name = "SimLibrary"]
    #[ivars = Arc<Library>]
    pub(crate) struct SimLibrary;

    // SAFETY: NSObject implements it.
    unsafe impl NSObjectProtocol for SimLibrary {}

    // SAFETY: the methods have the protocol's signatures.
    unsafe impl MTLLibrary for SimLibrary {
        #[unsafe(method_id(newFunctionWithName:))]
        fn new_function(&self, name: &NSString) -> Option<Retained<SimFunction>> {
            let function = self.ivars().function(&name.to_string());
            function.map(|function| make_on!(self.owner(), SimFunction, function))
        }
    }
);

// SAFETY: the instance variables never change.
unsafe impl Send for SimLibrary {}
// SAFETY: as above.
unsafe impl Sync for SimLibrary {}

impl SimLibrary {
    /// Compiles MSL; the error is the compiler's own words.
    pub(crate) fn compile(device: &SimDevice, source: &str) -> Result<Retained<Self>, Retained<SimError>> {
        match Library::compile(source) {
            Ok(library) => Ok(make_on!(device, SimLibrary, library)),
            Err(message) => Err(SimError::new("MTLLibraryErrorDomain", COMPILE_FAILURE, message)),
        }
    }
}

define_class!(
    // SAFETY: SimObject has no requirements for subclasses.
    #[unsafe(super(SimObject, NSObject))]
    #[name = "SimFunction"]
    #[ivars = Arc<Function>]
    pub(crate) struct SimFunction;

    // SAFETY: NSObject implements it.
    unsafe impl NSObjectProtocol for SimFunction {}

    // SAFETY: the methods have the protocol's signatures.
    unsafe impl MTLFunction for SimFunction {
        #[unsafe(method_id(name))]
        fn name(&self) -> Retained<crate::foundation::string::SimString> {
            crate::foundation::string::SimString::new(self.ivars().name())
        }

        #[unsafe(method(functionType))]
        fn function_type(&self) -> MTLFunctionType {
            MTLFunctionType::Kernel
        }
    }
);

// SAFETY: the instance variables never change.
unsafe impl Send for SimFunction {}
// SAFETY: as above.
unsafe impl Sync for SimFunction {}

/// Options as a caller set them; the simulator's compiler is precise whatever they say.
pub(crate) struct CompileOptions {
    math: AtomicUsize,
    language: AtomicUsize,
    optimization: AtomicUsize,
    fast_math: AtomicBool,
}

define_class!(
    // SAFETY: NSObject has no requirements for subclasses.
    #[unsafe(super(NSObject))]
    #[name = "MTLCompileOptions"]
    #[ivars = CompileOptions]
    pub(crate) struct SimCompileOptions;

    impl SimCompileOptions {
        #[unsafe(method_id(init))]
        fn init(this: Allocated<Self>) -> Option<Retained<Self>> {
            let this = this.set_ivars(CompileOptions {
                math: AtomicUsize::new(MTLMathMode::Fast.0 as usize),
                language: AtomicUsize::new(MTLLanguageVersion::Version3_2.0),
                optimization: AtomicUsize::new(0),
                fast_math: AtomicBool::new(true),
            });
            // SAFETY: NSObject's init.
            unsafe { msg_send![super(this), init] }
        }

        #[unsafe(method(mathMode))]
        fn math_mode(&self) -> MTLMathMode {
            MTLMathMode(self.ivars().math.load(Ordering::Relaxed) as isize)
        }

        #[unsafe(method(setMathMode:))]
        fn set_math_mode(&self, mode: MTLMathMode) {
            self.ivars().math.store(mode.0 as usize, Ordering::Relaxed);
        }

        #[unsafe(method(fastMathEnabled))]
        fn fast_math(&self) -> bool {
            self.ivars().fast_math.load(Ordering::Relaxed)
        }

        #[unsafe(method(setFastMathEnabled:))]
        fn set_fast_math(&self, enabled: bool) {
            self.ivars().fast_math.store(enabled, Ordering::Relaxed);
        }

        #[unsafe(method(languageVersion))]
        fn language_version(&self) -> MTLLanguageVersion {
            MTLLanguageVersion(self.ivars().language.load(Ordering::Relaxed))
        }

        #[unsafe(method(setLanguageVersion:))]
        fn set_language_version(&self, version: MTLLanguageVersion) {
            self.ivars().language.store(version.0, Ordering::Relaxed);
        }

        #[unsafe(method(optimizationLevel))]
        fn optimization_level(&self) -> MTLLibraryOptimizationLevel {
            MTLLibraryOptimizationLevel(self.ivars().optimization.load(Ordering::Relaxed) as isize)
        }

        #[unsafe(method(setOptimizationLevel:))]
        fn set_optimization_level(&self, level: MTLLibraryOptimizationLevel) {
            self.ivars().optimization.store(level.0 as usize, Ordering::Relaxed);
        }
    }
);
