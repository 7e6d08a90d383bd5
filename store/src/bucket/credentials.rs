//! Where credentials come from when the configuration has none: the environment, and the file
//! that AWS' tools keep. The roles of instances are asked by `object_store`.

use super::text::Secret;

/// Reads the environment; passed in so that a test can hold it.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Keys for S3.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Keys {
    pub(super) access: String,
    pub(super) secret: String,
    pub(super) token: Option<String>,
}

/// The first of some variables that is set and not empty.
pub(super) fn first(environment: Environment<'_>, names: &[&str]) -> Option<String> {
    let set = |name: &&str| environment(name).filter(|value| !value.is_empty());
    names.iter().find_map(set)
}

/// Keys from the environment, or from the file.
pub(super) fn aws_keys(environment: Environment<'_>) -> Option<Keys> {
    let access = first(environment, &["AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY"]);
    let secret = first(environment, &["AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY"]);
    if let (Some(access), Some(secret)) = (access, secret) {
        let token = first(environment, &["AWS_SESSION_TOKEN"]);
        return Some(Keys {
            access,
            secret,
            token,
        });
    }
    let home = || first(environment, &["HOME"]).map(|home| format!("{home}/.aws/credentials"));
    let path = first(environment, &["AWS_SHARED_CREDENTIALS_FILE"]).or_else(home)?;
    let text = std::fs::read_to_string(path).ok()?;
    let profile = first(environment, &["AWS_PROFILE"]);
    profile_keys(&text, profile.as_deref().unwrap_or("default"))
}

/// The keys of a profile in a file of sections and `name = value` lines.
fn profile_keys(text: &str, profile: &str) -> Option<Keys> {
    let (mut access, mut secret, mut token) = (None, None, None);
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            inside = section.trim_end_matches(']').trim() == profile;
        } else if let (true, Some((name, value))) = (inside, line.split_once('=')) {
            let value = Some(value.trim().to_owned());
            match name.trim() {
                "aws_access_key_id" => access = value,
                "aws_secret_access_key" => secret = value,
                "aws_session_token" => token = value,
                _ => (),
            }
        }
    }
    let (access, secret) = (access?, secret?);
    Some(Keys {
        access,
        secret,
        token,
    })
}

/// What an Azure connection string says.
#[derive(Debug, Default)]
pub(super) struct Connection {
    pub(super) account: Option<String>,
    pub(super) key: Option<String>,
    pub(super) endpoint: Option<String>,
}

/// Reads `AccountName=…;AccountKey=…;EndpointSuffix=…`.
pub(super) fn azure_connection(text: &Secret) -> Connection {
    let mut connection = Connection::default();
    let (mut protocol, mut suffix) = ("https", None);
    for part in text.expose().split(';') {
        let Some((name, value)) = part.trim().split_once('=') else {
            continue;
        };
        match name {
            "AccountName" => connection.account = Some(value.to_owned()),
            "AccountKey" => connection.key = Some(value.to_owned()),
            "BlobEndpoint" => connection.endpoint = Some(value.trim_end_matches('/').to_owned()),
            "DefaultEndpointsProtocol" => protocol = value,
            "EndpointSuffix" => suffix = Some(value),
            _ => (),
        }
    }
    if let (None, Some(account), Some(suffix)) = (&connection.endpoint, &connection.account, suffix)
    {
        connection.endpoint = Some(format!("{protocol}://{account}.blob.{suffix}"));
    }
    connection
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_of_the_credentials_file() {
        let text = "[default]\naws_access_key_id = a\naws_secret_access_key=b=\n\n[x]\naws_access_key_id=c\naws_secret_access_key=d\naws_session_token=e\n[y]\naws_access_key_id=f\n";
        let check = |profile: &str, expected: &str| {
            let keys = profile_keys(text, profile);
            let keys = keys.map(|k| format!("{} {} {:?}", k.access, k.secret, k.token));
            assert_eq!(keys.unwrap_or_default(), expected);
        };
        check("default", "a b= None");
        check("x", "c d Some(\"e\")");
        check("y", "");
        check("z", "");
    }

    #[test]
    fn connection_strings() {
        let check = |text: &str, expected: &str| {
            let secret = serde_yaml_ng::from_str(&format!("{text:?}")).unwrap();
            let c = azure_connection(&secret);
            assert_eq!(
                format!("{:?} {:?} {:?}", c.account, c.key, c.endpoint),
                expected
            );
        };
        check(
            "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=k==;EndpointSuffix=core.windows.net",
            "Some(\"a\") Some(\"k==\") Some(\"https://a.blob.core.windows.net\")",
        );
        check(
            "AccountName=a;BlobEndpoint=http://x:1/a/",
            "Some(\"a\") None Some(\"http://x:1/a\")",
        );
    }
}
