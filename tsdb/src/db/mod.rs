//! Head and blocks of one data directory behind one interface.

use isobar_model::{Matcher, Tenant, TimeRange};

use crate::Error;
use crate::head::incoming::{Append, CommitTicket, IncomingSeries};
use crate::merge::SeriesIter;

/// Called once when a write is durable, or with the reason why it may not be.
pub type OnDurable = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// A data directory that is open for reading and writing.
pub struct Db {}

impl Db {
    /// Stores the samples of a request in the head and puts them into the log. They are visible
    /// at once, and durable when [`Db::commit_wait`] or [`Db::when_durable`] says so.
    ///
    /// # Errors
    /// [`Error::Unavailable`] while the log cannot be written; nothing is stored then. Bad series
    /// and samples are no error: they are counted in [`Append::rejected`].
    pub fn append<S: IncomingSeries>(
        &self,
        _tenant: &Tenant,
        _series: &[S],
    ) -> Result<Append, Error> {
        Err(Error::Unsupported("append is not built yet".to_owned()))
    }

    /// Blocks until the write is durable.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the log could not be written: the write may be lost, and the
    /// sender has to repeat it.
    pub fn commit_wait(&self, _ticket: CommitTicket) -> Result<(), Error> {
        Err(Error::Unsupported("commit is not built yet".to_owned()))
    }

    /// Calls `done` when the write is durable, at once if it is so already; otherwise from the
    /// thread that writes the log, so `done` must be quick and must not block.
    pub fn when_durable(&self, _ticket: CommitTicket, done: OnDurable) {
        done(Err(Error::Unsupported("commit is not built yet".to_owned())));
    }

    /// The series that match, with the chunks that overlap `range`, of one tenant or of all.
    /// Series with equal labels are one, their chunks side by side.
    ///
    /// # Errors
    /// When a block cannot be read.
    pub fn select(
        &self,
        _tenant: Option<&Tenant>,
        _matchers: &[Matcher],
        _range: TimeRange,
    ) -> Result<SeriesIter, Error> {
        Err(Error::Unsupported("select is not built yet".to_owned()))
    }

    /// The names of all labels of the series that match and have samples in `range`, sorted.
    ///
    /// # Errors
    /// When a block cannot be read.
    pub fn label_names(
        &self,
        _tenant: Option<&Tenant>,
        _matchers: &[Matcher],
        _range: TimeRange,
    ) -> Result<Vec<String>, Error> {
        Err(Error::Unsupported("label names are not built yet".to_owned()))
    }

    /// The values of label `name` of the series that match and have samples in `range`, sorted.
    ///
    /// # Errors
    /// When a block cannot be read.
    pub fn label_values(
        &self,
        _tenant: Option<&Tenant>,
        _name: &str,
        _matchers: &[Matcher],
        _range: TimeRange,
    ) -> Result<Vec<String>, Error> {
        Err(Error::Unsupported("label values are not built yet".to_owned()))
    }
}
