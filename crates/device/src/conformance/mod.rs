//! The suite that every backend runs against the oracle.
