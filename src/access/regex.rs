//! Regexes on paths, and their compiled size. No rules.

use regex_lite::{Regex, RegexBuilder};

/// The largest compiled regex of the config, in bytes.
pub(crate) const MAX_COMPILED_REGEX_BYTES: usize = 256 * 1024;
/// A regex, compiled both case-sensitive and case-insensitive.
#[derive(Clone, Debug)]
pub struct PathRegex {
    exact: Regex,
    ignoring_case: Regex,
    size: usize,
}

impl PathRegex {
    /// Compiles `text`.
    ///
    /// # Errors
    /// An invalid regex, or one of more than 256 KiB compiled.
    pub fn new(text: &str) -> Result<Self, regex_lite::Error> {
        let (exact, size) = compiled(text, false)?;
        let (ignoring_case, other) = compiled(text, true)?;
        Ok(Self {
            exact,
            ignoring_case,
            size: size.saturating_add(other),
        })
    }

    /// Whether it matches anywhere in `path`. `folded`: ignoring case.
    pub(super) fn is_match(&self, path: &str, folded: bool) -> bool {
        if folded {
            self.ignoring_case.is_match(path)
        } else {
            self.exact.is_match(path)
        }
    }

    /// The case-sensitive regex.
    pub fn exact(&self) -> &Regex {
        &self.exact
    }

    /// The compiled size of both regexes, in bytes of the module's 32-bit memory. A 64-bit build
    /// estimates it: up to a fifth too high, mostly for literals, or a quarter too low, for large
    /// repeated classes.
    pub fn size(&self) -> usize {
        self.size
    }
}

/// The regex and its compiled size: the least size limit at which it compiles, as the library does
/// not report the size.
fn compiled(text: &str, ignoring_case: bool) -> Result<(Regex, usize), regex_lite::Error> {
    let build = |limit| {
        RegexBuilder::new(text)
            .case_insensitive(ignoring_case)
            .size_limit(limit)
            .build()
    };
    let regex = build(MAX_COMPILED_REGEX_BYTES)?;
    let (mut broken, mut kept) = (0, 64);
    while kept < MAX_COMPILED_REGEX_BYTES && build(kept).is_err() {
        broken = kept;
        kept = kept.saturating_mul(2);
    }
    while kept.saturating_sub(broken) > 1 {
        let middle = broken.midpoint(kept);
        *(if build(middle).is_ok() {
            &mut kept
        } else {
            &mut broken
        }) = middle;
    }
    // A state has 32 bytes with 64-bit pointers and 20 in the module. A range of a class has 8 in
    // both.
    let size = if size_of::<usize>() == size_of::<u64>() {
        kept.saturating_mul(3).div_ceil(4)
    } else {
        kept
    };
    Ok((regex, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_is_the_least_limit_that_compiles() {
        for (text, least, most) in [
            ("^/v[0-9]+/ready$", 500, 1000),
            ("[^/]{1,1000}xN", 70_000, 140_000),
        ] {
            let size = PathRegex::new(text).unwrap().size();
            assert!((least..=most).contains(&size), "{text}: {size} bytes");
        }
        let limit = compiled("[a-z]+x", true).unwrap().1 * 4 / 3;
        let build = |limit| {
            RegexBuilder::new("[a-z]+x")
                .case_insensitive(true)
                .size_limit(limit)
                .build()
        };
        assert!(
            build(limit).is_ok() && build(limit - 2).is_err(),
            "{limit} bytes"
        );
        for text in ["(", "(?:a{100}){200}"] {
            assert!(PathRegex::new(text).is_err(), "{text}");
        }
    }
}
