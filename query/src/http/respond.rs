//! Answers and errors as HTTP responses.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use isobar_model::{OverBudget, Warnings};
use isobar_store::compute::Pool;
use serde::Serialize;

use super::body::{Begun, BodyWriter, Memory, WriteError};
use super::error::{ApiError, ErrorType};
use super::json::answer::{AnswerWriter, Data};
use super::json::text::write_json;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// What an endpoint answers.
pub(crate) enum Reply {
    /// A body whose writing has begun on the pool.
    Begun(Box<Begun>),
    /// Small data that are written at once.
    Small(Vec<u8>),
    /// Nothing at all, which is a success.
    Empty,
}

impl Reply {
    /// `value` as a small answer.
    pub(crate) fn small<T: Serialize + ?Sized>(value: &T) -> Result<Self, ApiError> {
        to_json(value).map(Reply::Small)
    }

    /// `data` with the first piece written; to be called on the pool. The memory of `data` and of
    /// its text is `memory`.
    ///
    /// # Errors
    /// When there is none for its text.
    pub(crate) fn begin(
        data: Data,
        warnings: &Warnings,
        gzip: bool,
        memory: Option<Memory>,
    ) -> Result<Self, ApiError> {
        let begun = BodyWriter::new(AnswerWriter::new(data, warnings), gzip, memory).begin()?;
        Ok(Reply::Begun(Box::new(begun)))
    }
}

impl From<OverBudget> for ApiError {
    fn from(error: OverBudget) -> Self {
        ApiError::new(ErrorType::Execution, error.to_string())
    }
}

impl From<WriteError> for ApiError {
    fn from(error: WriteError) -> Self {
        let kind = match error {
            WriteError::Memory(_) => ErrorType::Execution,
            WriteError::Compress(_) => ErrorType::Internal,
        };
        ApiError::new(kind, error.to_string())
    }
}

/// `value` as Go's `encoding/json` writes it.
pub(crate) fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, ApiError> {
    let mut json = Vec::new();
    write_json(&mut json, value)
        .map_err(|error| ApiError::new(ErrorType::Internal, error.to_string()))?;
    Ok(json)
}

/// The response to an API request.
pub(crate) fn api_response(
    reply: Result<Reply, ApiError>,
    gzip: bool,
    pool: &Arc<Pool>,
) -> Response {
    let begun = match reply {
        Err(error) => return error_response(&error),
        Ok(Reply::Empty) => return empty(StatusCode::NO_CONTENT),
        Ok(Reply::Begun(begun)) => Ok(*begun),
        Ok(Reply::Small(json)) => BodyWriter::new(
            AnswerWriter::new(Data::Json(json), &Warnings::default()),
            gzip,
            None,
        )
        .begin()
        .map_err(ApiError::from),
    };
    match begun {
        Err(error) => error_response(&error),
        Ok(begun) => {
            let mut response = Response::new(begun.into_body(Arc::clone(pool)));
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, JSON);
            if gzip {
                headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            response
        }
    }
}

fn error_response(error: &ApiError) -> Response {
    if error.kind == ErrorType::Internal {
        tracing::error!(error = error.text, "request failed");
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Envelope<'a> {
        status: &'static str,
        error_type: &'static str,
        error: &'a str,
    }
    let envelope = Envelope {
        status: "error",
        error_type: error.kind.as_str(),
        error: &error.text,
    };
    let json = to_json(&envelope).unwrap_or_else(|_| {
        br#"{"status":"error","errorType":"internal","error":"cannot be written"}"#.to_vec()
    });
    let mut response = Response::new(Body::from(json));
    *response.status_mut() = error.kind.status();
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

/// A response without a body.
pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A plain text.
pub(crate) fn text(status: StatusCode, text: impl Into<Body>) -> Response {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, TEXT);
    response
}

/// A refusal in the words of Go's `http.Error`.
pub(crate) fn refusal(status: StatusCode, why: &'static str) -> Response {
    let mut response = text(status, why);
    response.headers_mut().insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// Adds the headers of every API answer: any origin may read it, as with Prometheus' default.
pub(crate) fn add_cors(response: &mut Response, origin: Option<&HeaderValue>) {
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = origin.filter(|origin| !origin.is_empty()) else {
        return;
    };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    for (name, value) in [
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "Accept, Authorization, Content-Type, Origin",
        ),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, "Date"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// Whether the client takes gzip.
pub(crate) fn takes_gzip(headers: &HeaderMap) -> bool {
    let offers = headers.get_all(header::ACCEPT_ENCODING).iter();
    offers
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|offer| {
            let mut parts = offer.split(';').map(str::trim);
            let is_gzip = parts
                .next()
                .is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
            let refused = parts.any(|part| {
                let quality = part.strip_prefix("q=").and_then(|q| q.parse::<f32>().ok());
                quality == Some(0.0)
            });
            is_gzip && !refused
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_taken_when_it_is_offered() {
        for (offer, expected) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("zstd,gzip", true),
            ("gzip;q=0", false),
            ("zstd", false),
            ("*", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(
                header::ACCEPT_ENCODING,
                HeaderValue::from_str(offer).unwrap(),
            );
            assert_eq!(takes_gzip(&headers), expected, "{offer}");
        }
    }
}
