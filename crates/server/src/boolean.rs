//! Yes and no as etcd and its client read them: the words of Go's `strconv.ParseBool`.

/// What a word says; nothing if it is none of those.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yes_and_no_are_gos_words_and_no_others() {
        for (words, want) in [
            (&["1", "t", "T", "true", "TRUE", "True"][..], Some(true)),
            (&["0", "f", "F", "false", "FALSE", "False"], Some(false)),
            (&["", "2", "tRUE", "yes", "no", "on", "off", " true", "truely"], None),
        ] {
            for word in words {
                assert_eq!(parse_bool(word), want, "{word:?}");
            }
        }
    }
}
