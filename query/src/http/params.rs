//! Request parameters: those of a form in the body first, then those of the URL. Unknown names
//! are ignored, an empty value counts as none, some names may be repeated.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Method, header};
use isobar_model::TimeRange;

use super::error::ApiError;
use super::time::{Moment, Nanos, parse_duration, parse_time, quoted};

/// The largest form that is read, as in Go.
const FORM_BYTES_MAX: usize = 10 << 20;

/// The parameters of a request.
#[derive(Debug, Default)]
pub(crate) struct Params {
    pairs: Vec<(String, String)>,
    /// The first mistake in how the parameters are written.
    malformed: Option<String>,
}

impl Params {
    /// Reads the parameters of a request.
    ///
    /// # Errors
    /// When the body cannot be read or is too large.
    pub(crate) async fn read(parts: &Parts, body: Body) -> Result<Self, ApiError> {
        let mut params = Params::default();
        let has_form = [Method::POST, Method::PUT, Method::PATCH].contains(&parts.method)
            && is_form(parts.headers.get(header::CONTENT_TYPE));
        if has_form {
            let form = axum::body::to_bytes(body, FORM_BYTES_MAX)
                .await
                .map_err(|_| {
                    ApiError::bad_data("error parsing form values: http: POST too large")
                })?;
            params.add(&form);
        }
        params.add(parts.uri.query().unwrap_or_default().as_bytes());
        Ok(params)
    }

    /// Adds `name=value&…`; a pair that is badly escaped is left out and remembered.
    fn add(&mut self, encoded: &[u8]) {
        for pair in encoded
            .split(|b| *b == b'&')
            .filter(|pair| !pair.is_empty())
        {
            match decode_pair(pair) {
                Ok(pair) => self.pairs.push(pair),
                Err(why) => self.malformed = self.malformed.take().or(Some(why)),
            }
        }
    }

    /// The first mistake in how the parameters are written.
    pub(crate) fn malformed(&self) -> Option<&str> {
        self.malformed.as_deref()
    }

    /// The first value of `name`; `""` when there is none.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.pairs
            .iter()
            .find(|(n, _)| n == name)
            .map_or("", |(_, value)| value)
    }

    /// All values of `name`, empty ones too.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs
            .iter()
            .filter(move |(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// A time that has to be given.
    pub(crate) fn time(&self, name: &str) -> Result<Moment, ApiError> {
        parse_time(self.get(name)).map_err(|why| ApiError::parameter(name, why))
    }

    /// A time that may be left out.
    pub(crate) fn time_or(&self, name: &str, default: Moment) -> Result<Moment, ApiError> {
        match self.get(name) {
            "" => Ok(default),
            text => parse_time(text).map_err(|why| {
                ApiError::parameter(name, format!("invalid time value for '{name}': {why}"))
            }),
        }
    }

    /// The range `start..=end`, all of time by default.
    pub(crate) fn time_range(&self) -> Result<TimeRange, ApiError> {
        let start = self.time_or("start", Moment::MIN)?;
        let end = self.time_or("end", Moment::MAX)?;
        Ok(TimeRange::new(start.ms(), end.ms()))
    }

    /// A duration that may be left out.
    pub(crate) fn duration(&self, name: &str) -> Result<Option<Nanos>, String> {
        match self.get(name) {
            "" => Ok(None),
            text => parse_duration(text).map(Some),
        }
    }

    /// The labels that tell replicas apart (Thanos' `dedup` and `replicaLabels[]`), none when
    /// nothing is to be deduplicated; `None` for those that are configured.
    pub(crate) fn replica_labels(&self) -> Result<Option<Vec<String>>, ApiError> {
        let text = self.get("dedup");
        match parse_bool(text) {
            _ if text.is_empty() => {}
            Some(true) => {}
            Some(false) => return Ok(Some(Vec::new())),
            None => {
                return Err(ApiError::bad_data(format!(
                    "'dedup' parameter: strconv.ParseBool: parsing {}: invalid syntax",
                    quoted(text)
                )));
            }
        }
        let labels: Vec<_> = self.all("replicaLabels[]").map(str::to_owned).collect();
        Ok((!labels.is_empty()).then_some(labels))
    }

    /// The most items to answer with; `None` for no bound.
    pub(crate) fn limit(&self) -> Result<Option<usize>, ApiError> {
        let refuse = |why: &str| Err(ApiError::parameter("limit", why));
        match self.get("limit") {
            "" => Ok(None),
            text => match parse_integer(text) {
                Err(why) => refuse(&format!("strconv.Atoi: parsing {}: {why}", quoted(text))),
                Ok(limit) if limit < 0 => refuse("limit must be non-negative"),
                Ok(limit) => Ok(usize::try_from(limit).ok().filter(|limit| *limit > 0)),
            },
        }
    }
}

/// An integer as Go's `strconv.Atoi` reads it, or why it does not.
pub(crate) fn parse_integer(text: &str) -> Result<i64, &'static str> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    text.parse::<i64>().map_err(|error| match error.kind() {
        NegOverflow | PosOverflow => "value out of range",
        _ => "invalid syntax",
    })
}

/// A truth value as Go's `strconv.ParseBool` reads it.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

fn is_form(content_type: Option<&header::HeaderValue>) -> bool {
    content_type
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| {
            let kind = value.split(';').next().unwrap_or_default().trim();
            kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
        })
}

fn decode_pair(pair: &[u8]) -> Result<(String, String), String> {
    if pair.contains(&b';') {
        return Err("invalid semicolon separator in query".into());
    }
    let mut halves = pair.splitn(2, |b| *b == b'=');
    let mut half = || {
        let plain = halves.next().unwrap_or_default().iter();
        let spaced: Vec<u8> = plain.map(|b| if *b == b'+' { b' ' } else { *b }).collect();
        let decoded = percent_decode(&spaced)?;
        Ok::<_, String>(String::from_utf8_lossy(&decoded).into_owned())
    };
    Ok((half()?, half()?))
}

/// Replaces `%2F` and its like.
///
/// # Errors
/// Go's words for a percent sign without two hexadecimal digits behind it.
pub(crate) fn percent_decode(text: &[u8]) -> Result<Vec<u8>, String> {
    let is_escape = |at: usize| {
        let digits = text.get(at + 1..at + 3);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    match (0..text.len()).find(|at| text.get(*at) == Some(&b'%') && !is_escape(*at)) {
        None => Ok(percent_encoding::percent_decode(text).collect()),
        Some(at) => {
            let bad = text.get(at..text.len().min(at + 3)).unwrap_or_default();
            Err(format!(
                "invalid URL escape {}",
                quoted(&String::from_utf8_lossy(bad))
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(encoded: &[&str]) -> Params {
        let mut params = Params::default();
        encoded.iter().for_each(|part| params.add(part.as_bytes()));
        params
    }

    #[test]
    fn body_comes_before_url_and_names_repeat() {
        let params = params(&[
            "query=a%2Bb+c&match[]=x&match[]=",
            "query=url&match%5B%5D=y&=z&&q",
        ]);
        assert_eq!(params.get("query"), "a+b c");
        assert_eq!(params.all("match[]").collect::<Vec<_>>(), ["x", "", "y"]);
        assert_eq!(
            (params.get("q"), params.get("none"), params.malformed()),
            ("", "", None)
        );
    }

    #[test]
    fn badly_escaped_pairs_are_left_out() {
        let params = params(&["a=1&b=%zz&c=2;d=3&e=%4"]);
        assert_eq!(
            (params.get("a"), params.get("b"), params.get("c")),
            ("1", "", "")
        );
        assert_eq!(params.malformed(), Some("invalid URL escape \"%zz\""));
    }

    #[test]
    fn limits() {
        let limit = |text: &str| {
            params(&[&format!("limit={text}")])
                .limit()
                .map_err(|e| e.text)
        };
        assert_eq!(limit(""), Ok(None));
        assert_eq!(limit("0"), Ok(None));
        assert_eq!(limit("17"), Ok(Some(17)));
        let refused = |why: &str| Err(format!("invalid parameter \"limit\": {why}"));
        assert_eq!(limit("-1"), refused("limit must be non-negative"));
        assert_eq!(
            limit("x"),
            refused("strconv.Atoi: parsing \"x\": invalid syntax")
        );
        assert_eq!(
            limit("99999999999999999999"),
            refused("strconv.Atoi: parsing \"99999999999999999999\": value out of range")
        );
    }

    #[test]
    fn replica_labels_of_a_request() {
        let check = |encoded: &str, expected: Result<Option<&[&str]>, &str>| {
            let labels = params(&[encoded]).replica_labels();
            let labels = labels.map_err(|error| error.text);
            let expected = expected
                .map(|labels| labels.map(|it| it.iter().map(|it| (*it).to_owned()).collect()))
                .map_err(str::to_owned);
            assert_eq!(labels, expected, "{encoded}");
        };
        check("", Ok(None));
        check("dedup=", Ok(None));
        check("dedup=1", Ok(None));
        check(
            "dedup=true&replicaLabels[]=a&replicaLabels[]=b",
            Ok(Some(&["a", "b"])),
        );
        check("dedup=false&replicaLabels[]=a", Ok(Some(&[])));
        check("dedup=F", Ok(Some(&[])));
        check(
            "dedup=maybe",
            Err("'dedup' parameter: strconv.ParseBool: parsing \"maybe\": invalid syntax"),
        );
    }
}
