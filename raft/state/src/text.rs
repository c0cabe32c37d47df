//! Texts that are too long, cut off.

/// The beginning of a text: at most so many bytes, up to a character's end.
#[must_use]
pub fn head(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The text, or its [`head`] and an ellipsis, which comes on top of the bound.
#[must_use]
pub fn clip_to(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    format!("{}…", head(text, bytes_max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_at_a_characters_end() {
        assert_eq!(head("größe", 3), "gr");
        assert_eq!(head("größe", 4), "grö");
        assert_eq!((head("größe", 7), head("größe", 0)), ("größe", ""));
        assert_eq!((clip_to("größe", 7), clip_to("größe", 3)), ("größe".into(), "gr…".into()));
    }
}
