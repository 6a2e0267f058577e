//! Keyset pages: bounds and opaque tokens. A token is the last row's sort key, so that a page costs the same at any depth.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::status::Error;

/// Rows in a page when the caller names no number.
pub const DEFAULT_SIZE: i32 = 50;
/// Rows in a page at most.
pub const MAX_SIZE: i32 = 500;

/// One page asked for: how many rows, and after which key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page<K> {
    /// Rows to return, 1 to [`MAX_SIZE`].
    pub size: usize,
    /// Sort key of the last row the caller has; `None` on the first page.
    pub after: Option<K>,
}

impl<K: Serialize + DeserializeOwned> Page<K> {
    /// Parses the two request fields; a negative size or a foreign token is the caller's error.
    pub fn parse(page_size: i32, page_token: &str) -> Result<Self, Error> {
        let size = match page_size {
            0 => DEFAULT_SIZE,
            n if n > 0 => n.min(MAX_SIZE),
            _ => return Err(Error::invalid("page_size", "must be 0 (default) to 500")),
        };
        let after = if page_token.is_empty() {
            None
        } else {
            let bytes = URL_SAFE_NO_PAD.decode(page_token).ok();
            let key = bytes.and_then(|b| serde_json::from_slice(&b).ok());
            Some(key.ok_or_else(|| {
                Error::invalid("page_token", "must be a next_page_token of the same list, unchanged")
            })?)
        };
        Ok(Self { size: size as usize, after })
    }

    /// Rows to read: one more than the page, which tells whether another follows.
    pub fn limit(&self) -> i64 {
        self.size as i64 + 1
    }

    /// Cuts `rows` (read with [`Page::limit`]) to the page and makes the token for the next one, empty on the last.
    pub fn cut<R>(&self, mut rows: Vec<R>, key: impl Fn(&R) -> K) -> (Vec<R>, String) {
        if rows.len() <= self.size {
            return (rows, String::new());
        }
        rows.truncate(self.size);
        let token = rows.last().map(|row| {
            let json = serde_json::to_vec(&key(row)).expect("a sort key of plain values always serialises");
            URL_SAFE_NO_PAD.encode(json)
        });
        (rows, token.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_to_the_end() {
        let all: Vec<i64> = (1..=7).collect();
        let (mut token, mut seen) = (String::new(), vec![]);
        loop {
            let page = Page::<i64>::parse(3, &token).expect("page");
            let rows = all.iter().copied().filter(|n| page.after.is_none_or(|a| *n > a));
            let (rows, next) = page.cut(rows.take(page.limit() as usize).collect(), |n| *n);
            seen.extend(rows);
            token = next;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, all);
    }

    #[test]
    fn a_foreign_token_or_a_negative_size_is_refused() {
        assert!(Page::<i64>::parse(-1, "").is_err());
        assert!(Page::<i64>::parse(1, "not a token").is_err());
        assert_eq!(Page::<i64>::parse(100_000, "").expect("clamped").size, 500);
    }
}
