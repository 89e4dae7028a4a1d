//! Constraints on what an answer says: schemas, expressions and grammars, as masks of allowed tokens.
//!
//! A [`Compiler`] belongs to one model. It makes a [`Grammar`] of a [`Structure`]; each answer has a [`Matcher`] of its own, which says by
//! a mask which tokens may come next, and is told the one that came.
#![forbid(unsafe_code)]

mod cache;
mod compiler;
mod error;
mod expression;
pub mod fuzz;
pub mod lark;
mod matcher;
mod schema;
mod structure;
mod vocabulary;

pub use compiler::{Compiler, Grammar};
pub use error::GrammarError;
pub use matcher::{Canceler, Matcher};
pub use schema::check as check_schema;
pub use structure::Structure;
