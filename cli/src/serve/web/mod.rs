//! TLS, passwords and headers of an HTTP server, from the file behind `--http.config`.
//!
//! In reading order: [`config`] (the file), [`tls`] (what is agreed on with a client), [`names`] (of its certificate), [`passwords`] (who
//! is let in), this file (all of it applied, and read again when a file changes).
//!
//! Prometheus reads the file for each request and refuses all while it cannot be used. Here it is read when
//! it or a file that it names has changed, and while the new one cannot be used the old one counts.

mod config;
mod names;
mod passwords;
#[cfg(test)]
mod tests;
mod tls;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use tokio_rustls::TlsAcceptor;

use self::config::WebConfig;
use self::passwords::{Passwords, Verdict};
use super::accept::TlsNow;
use super::stamps::Stamps;

/// How an HTTP server is protected.
#[derive(Clone, Default)]
pub(crate) struct Protection(Option<Arc<Followed>>);

/// A configuration that follows its files.
struct Followed {
    path: PathBuf,
    passwords: Passwords,
    state: Mutex<Following>,
}

struct Following {
    /// The files as they were when they were looked at last.
    seen: Stamps,
    current: Arc<Current>,
}

/// A configuration with its files.
struct Current {
    config: WebConfig,
    tls: Option<TlsAcceptor>,
}

impl Protection {
    /// As the file says; plain text for everybody when no file is named.
    ///
    /// # Errors
    /// When it, or a file that it names, cannot be used.
    pub(crate) fn of(file: &str) -> anyhow::Result<Self> {
        if file.is_empty() {
            return Ok(Protection::default());
        }
        let path = PathBuf::from(file);
        let read = || -> anyhow::Result<Following> {
            let seen = Stamps::of([path.as_path()]);
            let current = Current::read(&path)?;
            Ok(Following {
                seen: seen.and(current.stamps()),
                current: Arc::new(current),
            })
        };
        let state = read().with_context(|| format!("--http.config={file}"))?;
        let tls = state.current.tls.is_some();
        let users = state.current.config.users.len();
        tracing::info!(file, tls, users, "the HTTP server is protected");
        Ok(Protection(Some(Arc::new(Followed {
            path,
            passwords: Passwords::new(),
            state: Mutex::new(state),
        }))))
    }

    /// The routes behind it.
    pub(super) fn around(&self, router: Router) -> Router {
        match &self.0 {
            None => router,
            Some(followed) => {
                let followed = Arc::clone(followed);
                router.layer(middleware::from_fn_with_state(followed, guard))
            }
        }
    }

    /// What clients have to agree on; `None` for plain text.
    pub(super) fn tls(&self) -> Option<TlsNow> {
        let followed = Arc::clone(self.0.as_ref()?);
        let first = followed.current().tls.clone()?;
        // It is never switched off, so the first is only for the compiler.
        Some(Arc::new(move || {
            followed
                .current()
                .tls
                .clone()
                .unwrap_or_else(|| first.clone())
        }))
    }
}

impl Followed {
    /// The configuration as the files are now.
    fn current(&self) -> Arc<Current> {
        let mut state = self.state.lock();
        if state.seen.hold() {
            return Arc::clone(&state.current);
        }
        let seen = Stamps::of([self.path.as_path()]);
        let read = Current::read(&self.path).and_then(|new| {
            let (before, after) = (state.current.tls.is_some(), new.tls.is_some());
            ensure!(
                before == after,
                "TLS is switched on and off by a restart only"
            );
            Ok(new)
        });
        match read {
            Ok(new) => {
                tracing::info!(file = %self.path.display(), "protection of the HTTP server read again");
                state.seen = seen.and(new.stamps());
                state.current = Arc::new(new);
            }
            Err(error) => {
                tracing::error!(
                    file = %self.path.display(),
                    error = format!("{error:#}"),
                    "the new protection of the HTTP server cannot be used, going on with the old one"
                );
                // Not again before something changes.
                state.seen = seen.and(state.current.stamps());
            }
        }
        Arc::clone(&state.current)
    }
}

impl Current {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path)?;
        let directory = path.parent().unwrap_or(Path::new(""));
        let config = WebConfig::parse(&text, directory)?;
        let mut remarks = config.remarks.clone();
        let tls = config.tls.as_ref();
        let tls = tls
            .map(|it| tls::acceptor(it, &mut remarks))
            .transpose()
            .context("tls_server_config")?;
        for remark in remarks {
            tracing::warn!(file = %path.display(), "{remark}");
        }
        Ok(Current { config, tls })
    }

    /// Of all files that are named.
    fn stamps(&self) -> Stamps {
        Stamps::of(self.config.files())
    }
}

/// Lets requests pass that may, and adds headers to all answers.
async fn guard(State(followed): State<Arc<Followed>>, request: Request, next: Next) -> Response {
    let current = followed.current();
    let users = &current.config.users;
    let mut response = match followed.passwords.check(users, request.headers()).await {
        Verdict::Allowed => next.run(request).await,
        Verdict::Refused => (
            StatusCode::UNAUTHORIZED,
            [(header::WWW_AUTHENTICATE, "Basic")],
            "Unauthorized\n",
        )
            .into_response(),
        Verdict::Busy => (
            StatusCode::SERVICE_UNAVAILABLE,
            [(header::RETRY_AFTER, "1")],
            "Service Unavailable: too many passwords are being compared\n",
        )
            .into_response(),
    };
    for (name, value) in &current.config.headers {
        let headers = response.headers_mut();
        headers.entry(name).or_insert_with(|| value.clone());
    }
    response
}
