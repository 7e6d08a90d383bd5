//! Passwords of HTTP requests against their bcrypt hashes.
//!
//! Comparing is meant to be slow, so it happens off the async threads, one at a time, and results are kept.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use parking_lot::Mutex;
use ring::digest;
use tokio::sync::Semaphore;

/// Compared with what a user without a hash sends, so that the time does not tell that there is none.
const NOBODY: &str = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi";
/// Results that are kept.
const KEPT_MAX: usize = 100;
/// Comparisons that wait for their turn; further ones are refused.
const WAITING_MAX: usize = 64;

/// What a request may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Be answered.
    Allowed,
    /// Come again with a password.
    Refused,
    /// Come again later: too many are being looked at.
    Busy,
}

/// Compares passwords and remembers results.
pub(super) struct Passwords {
    turn: Semaphore,
    waiting: AtomicUsize,
    /// By the digest of user, hash and password.
    kept: Mutex<HashMap<[u8; 32], bool>>,
}

impl Passwords {
    pub(super) fn new() -> Self {
        Passwords {
            turn: Semaphore::new(1),
            waiting: AtomicUsize::new(0),
            kept: Mutex::default(),
        }
    }

    /// Whether a request with these headers comes from one of the users.
    pub(super) async fn check(
        &self,
        users: &BTreeMap<String, String>,
        headers: &HeaderMap,
    ) -> Verdict {
        if users.is_empty() {
            return Verdict::Allowed;
        }
        let Some((user, password)) = credentials(headers) else {
            return Verdict::Refused;
        };
        let hash = users.get(&user).map_or(NOBODY, String::as_str);
        let key = digest_of([&user, hash, &password]);
        let kept = self.kept.lock().get(&key).copied();
        let matches = match kept {
            Some(matches) => Some(matches),
            None => self.compare(key, hash.to_owned(), password).await,
        };
        match matches {
            Some(true) if users.contains_key(&user) => Verdict::Allowed,
            Some(_) => Verdict::Refused,
            None => Verdict::Busy,
        }
    }

    async fn compare(&self, key: [u8; 32], hash: String, password: String) -> Option<bool> {
        let _waits = Waits::new(&self.waiting)?;
        let _turn = self.turn.acquire().await.ok()?;
        let compared = tokio::task::spawn_blocking(move || bcrypt::verify(password, &hash)).await;
        let matches = match compared {
            Ok(Ok(matches)) => matches,
            Ok(Err(error)) => {
                tracing::warn!(%error, "a password cannot be compared");
                false
            }
            Err(error) => {
                tracing::error!(%error, "comparing a password panicked");
                return None;
            }
        };
        let mut kept = self.kept.lock();
        if kept.len() >= KEPT_MAX {
            let any = kept.keys().next().copied();
            any.and_then(|any| kept.remove(&any));
        }
        kept.insert(key, matches);
        Some(matches)
    }
}

/// One that waits for its turn.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(waiting: &'a AtomicUsize) -> Option<Self> {
        let waits = Waits(waiting);
        // Counted first, so that it is taken away again when there are too many.
        (waiting.fetch_add(1, Ordering::Relaxed) < WAITING_MAX).then_some(waits)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Name and password of a request.
fn credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(BASE64_STANDARD.decode(rest).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// So that no password stays in memory as it is.
fn digest_of(parts: [&str; 3]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part.as_bytes());
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn headers(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        headers
    }

    #[tokio::test]
    async fn who_is_let_in() {
        let hash = bcrypt::hash("pass:word", 4).unwrap();
        let users = BTreeMap::from([("é".to_owned(), hash)]);
        let passwords = Passwords::new();
        let basic = |text: &str| headers(&format!("bAsIc {}", BASE64_STANDARD.encode(text)));
        // Twice, for what is remembered must be the same.
        for _ in 0..2 {
            for (headers, expected) in [
                (basic("é:pass:word"), Verdict::Allowed),
                (basic("é:other"), Verdict::Refused),
                (basic("é"), Verdict::Refused),
                (basic(":"), Verdict::Refused),
                (headers("Bearer abc"), Verdict::Refused),
                (headers("Basic ***"), Verdict::Refused),
                (HeaderMap::new(), Verdict::Refused),
            ] {
                assert_eq!(
                    passwords.check(&users, &headers).await,
                    expected,
                    "{headers:?}"
                );
            }
        }
        let none = BTreeMap::new();
        let verdict = passwords.check(&none, &HeaderMap::new()).await;
        assert_eq!(verdict, Verdict::Allowed);
        assert_eq!(passwords.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn too_many_at_a_time_are_told_to_come_again() {
        let users = BTreeMap::from([("a".to_owned(), bcrypt::hash("a", 4).unwrap())]);
        let passwords = Arc::new(Passwords::new());
        let turn = passwords.turn.acquire().await.unwrap();
        let basic = |text: String| headers(&format!("Basic {}", BASE64_STANDARD.encode(text)));
        let mut waiting = Vec::new();
        for at in 0..WAITING_MAX {
            let (passwords, users) = (Arc::clone(&passwords), users.clone());
            let headers = basic(format!("a:{at}"));
            waiting.push(tokio::spawn(async move {
                passwords.check(&users, &headers).await
            }));
        }
        while passwords.waiting.load(Ordering::Relaxed) < WAITING_MAX {
            tokio::task::yield_now().await;
        }
        let late = passwords.check(&users, &basic("a:a".to_owned())).await;
        assert_eq!(late, Verdict::Busy);
        drop(turn);
        for one in waiting {
            assert_eq!(one.await.unwrap(), Verdict::Refused);
        }
        let later = passwords.check(&users, &basic("a:a".to_owned())).await;
        assert_eq!(later, Verdict::Allowed);
    }
}
