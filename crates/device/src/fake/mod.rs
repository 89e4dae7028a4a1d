//! A device whose ops are the oracle's, with settable latencies and failures.
