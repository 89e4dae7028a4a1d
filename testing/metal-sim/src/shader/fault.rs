//! Signals that a kernel raises end its thread with an error instead of the process.

use super::fiber;
use libc::{c_int, c_void, sigaction, siginfo_t, ucontext_t};
use std::fmt;
use std::sync::OnceLock;

/// Operation that the processor refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    signal: c_int,
    /// Address of a memory access; 0 if it is not known.
    pub(super) address: usize,
    write: bool,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.signal {
            // An x86 without the address: it is not canonical, or alignment was broken.
            libc::SIGSEGV if self.address == 0 => write!(f, "accesses an invalid or misaligned address"),
            libc::SIGSEGV | libc::SIGBUS if self.write => write!(f, "writes at {:#x}", self.address),
            libc::SIGSEGV | libc::SIGBUS => write!(f, "reads at {:#x}", self.address),
            libc::SIGFPE => write!(f, "divides an integer by zero"),
            _ => write!(f, "executes an unreachable instruction"),
        }
    }
}

const SIGNALS: [c_int; 4] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL];

/// The handlers that were there before, in the order of `SIGNALS`.
static OTHERS: OnceLock<[sigaction; SIGNALS.len()]> = OnceLock::new();

/// Installs the handlers, once a process: faults of kernels become errors, all others go where they went before.
pub(super) fn catch() {
    OTHERS.get_or_init(|| {
        SIGNALS.map(|signal| {
            // SAFETY: a zeroed sigaction is a valid one; the handler has the signature that SA_SIGINFO asks for, and
            // touches nothing that it could find half-written.
            unsafe {
                let mut action: sigaction = std::mem::zeroed();
                let mut old: sigaction = std::mem::zeroed();
                let function: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = handler;
                action.sa_sigaction = function as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                libc::sigaction(signal, &action, &mut old);
                old
            }
        })
    });
}

extern "C" fn handler(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let running = fiber::running();
    // SAFETY: the kernel gives a valid context to the handler alone.
    let registers = unsafe { &mut (*context.cast::<ucontext_t>()).uc_mcontext.gregs };
    // SAFETY: set, it points at the running fiber's state.
    let trap = unsafe { running.as_ref() }.map(|r| r.trap);
    let stack = registers[libc::REG_RSP as usize] as usize;
    let Some(trap) = trap.filter(|t| t.stack_ptr_in_bounds(stack)) else {
        return pass_on(signal, info, context);
    };
    // SAFETY: for these signals the kernel fills in the address.
    let address = unsafe { (*info).si_addr() } as usize;
    // Bit 1 of a page fault's error code: the access was a write.
    let write = registers[libc::REG_ERR as usize] & 2 != 0;
    let fault = Fault { signal, address, write };
    // SAFETY: the signal came from code on the fiber's stack, which holds nothing that must be dropped; the registers
    // are set as the call demands, so that the fiber ends with `fault` when this handler returns.
    let landing = unsafe { trap.setup_trap_handler(move || fault) };
    registers[libc::REG_RIP as usize] = landing.rip as i64;
    registers[libc::REG_RSP as usize] = landing.rsp as i64;
    registers[libc::REG_RBP as usize] = landing.rbp as i64;
    registers[libc::REG_RDI as usize] = landing.rdi as i64;
    registers[libc::REG_RSI as usize] = landing.rsi as i64;
}

/// Passes on a signal that is not ours: to the earlier handler, or to the default, which ends the process at the next try.
fn pass_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let other = SIGNALS.iter().position(|s| *s == signal).and_then(|at| Some(OTHERS.get()?[at]));
    match other {
        Some(other) if other.sa_sigaction > libc::SIG_IGN && other.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: SA_SIGINFO says that the address is such a function.
            let function: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
                unsafe { std::mem::transmute(other.sa_sigaction) };
            function(signal, info, context);
        }
        // SAFETY: sets a default handler, which is always allowed.
        _ => unsafe {
            libc::signal(signal, libc::SIG_DFL);
        },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    const CHILD: &str = "METAL_SIM_TEST_FAULT";

    #[test]
    fn faults_of_others_still_end_the_process() {
        let test = "shader::fault::tests::a_fault_outside_of_kernels";
        let mut child = Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", test]).env(CHILD, "1").output().unwrap();
        assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{output:?}");
    }

    /// The child of the test above; does nothing elsewhere.
    #[test]
    fn a_fault_outside_of_kernels() {
        if std::env::var_os(CHILD).is_some() {
            super::catch();
            // SAFETY: the child is to end here: page 0 is never mapped.
            unsafe { std::ptr::read_volatile(std::ptr::without_provenance::<u32>(16)) };
        }
    }
}
