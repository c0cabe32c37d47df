//! What lies behind an error.

use std::error::Error;

/// The innermost cause, which says most: what is around it often only names what was tried.
pub(crate) fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}
