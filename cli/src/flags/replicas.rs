//! Flags that say which series are replicas of each other.

use clap::Args;
use isobar_query::replicas::{Deduplication, Function};

/// Which labels tell replicas apart, and how replicas are made one series.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReplicaFlags {
    /// A label that tells apart collectors of the same targets. Series that are equal without it
    /// are one in answers; dedup=false in a request shows them apart. May be given several times,
    /// or as a list with commas. Without any, nothing is deduplicated.
    #[arg(
        long = "query.replica-label",
        value_name = "LABEL",
        value_delimiter = ',',
        help_heading = "Queries"
    )]
    labels: Vec<String>,

    /// How replicas are made one series: "window" computes each window from the replica that
    /// covers it best, "penalty" and "chain" give the numbers that Thanos gives.
    #[arg(
        long = "deduplication.func",
        value_name = "FUNCTION",
        default_value = "window",
        help_heading = "Queries"
    )]
    function: FunctionName,
}

/// A way to make replicas one series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum FunctionName {
    /// Each window from one replica.
    Window,
    /// One replica until it has a gap.
    Penalty,
    /// The samples of all replicas.
    Chain,
}

impl ReplicaFlags {
    /// What is deduplicated, and how.
    pub(crate) fn deduplication(&self) -> Deduplication {
        Deduplication {
            labels: self.sorted().into(),
            function: match self.function {
                FunctionName::Window => Function::Window,
                FunctionName::Penalty => Function::Penalty,
                FunctionName::Chain => Function::Chain,
            },
        }
    }

    /// The value of `--query.replica-label`.
    pub(crate) fn labels(&self) -> String {
        self.sorted().join(",")
    }

    /// The value of `--deduplication.func`.
    pub(crate) fn function(&self) -> String {
        format!("{:?}", self.function).to_lowercase()
    }

    fn sorted(&self) -> Vec<String> {
        let mut labels = self.labels.clone();
        labels.retain(|it| !it.is_empty());
        labels.sort();
        labels.dedup();
        labels
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        replicas: ReplicaFlags,
    }

    #[test]
    fn labels_come_in_lists_and_one_by_one() {
        let check = |args: &[&str], labels: &str, function: &str| {
            let parsed = Command::try_parse_from([&["x"], args].concat());
            let flags = parsed.unwrap_or_else(|e| panic!("{e}")).replicas;
            assert_eq!(
                (flags.labels().as_str(), flags.function().as_str()),
                (labels, function)
            );
        };
        check(&[], "", "window");
        check(&["--query.replica-label="], "", "window");
        check(
            &[
                "--query.replica-label=b,a",
                "--query.replica-label=c",
                "--query.replica-label=a",
            ],
            "a,b,c",
            "window",
        );
        check(&["--deduplication.func=penalty"], "", "penalty");
        assert!(Command::try_parse_from(["x", "--deduplication.func=best"]).is_err());
    }
}
