//! How things look to people. Pure: values in, text out; the time and whether to colour are given.

mod explain;
pub mod foresee;
pub mod lists;
mod page;
mod steps;
mod style;
#[cfg(test)]
mod tests;
pub mod vitals;
pub mod words;

pub use explain::explain;
pub use style::{Style, Table, span};
