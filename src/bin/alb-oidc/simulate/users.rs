//! The sample users, their file, and their userinfo claims. Signs nothing.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// A user of the identity provider.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct User {
    /// The name to sign in with. A name with an `@` is the email address, too.
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) groups: Vec<String>,
    /// Further userinfo claims. They replace claims of the same name that follow from the name and
    /// the groups.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub(super) claims: Map<String, Value>,
}

impl User {
    fn new(name: &str, groups: &[&str]) -> Self {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        Self {
            name: name.to_owned(),
            groups,
            claims: Map::new(),
        }
    }

    /// The user that was entered on the sign-in page.
    pub(super) fn typed(name: &str, groups: &str, claims: &str) -> Result<Self, String> {
        let groups: Vec<&str> = groups
            .split(',')
            .map(str::trim)
            .filter(|group| !group.is_empty())
            .collect();
        let mut user = Self::new(name.trim(), &groups);
        if !claims.trim().is_empty() {
            user.claims = serde_json::from_str(claims).map_err(|error| {
                format!(
                    "extra claims: {error}; expected a JSON object such as {{\"name\": \"Ann\"}}"
                )
            })?;
        }
        user.checked()
    }

    fn checked(self) -> Result<Self, String> {
        let name = &self.name;
        if name.is_empty() || name.len() > 128 || name.chars().any(char::is_control) {
            return Err(format!(
                "user {name:?}: expected 1 to 128 bytes without control characters"
            ));
        }
        Ok(self)
    }

    /// The subject: it depends on the issuer and the user only.
    pub(super) fn subject(&self, issuer: &str) -> String {
        let given = self
            .claims
            .get("sub")
            .and_then(Value::as_str)
            .map(str::to_owned);
        given.unwrap_or_else(|| {
            Uuid::new_v5(
                &Uuid::NAMESPACE_URL,
                format!("{issuer}#{}", self.name).as_bytes(),
            )
            .to_string()
        })
    }

    /// The userinfo claims. Groups have the format of Cognito's SAML mapping: one string in
    /// brackets.
    pub(super) fn userinfo(&self, issuer: &str) -> Map<String, Value> {
        let mut claims = Map::from_iter([("sub".to_owned(), json!(self.subject(issuer)))]);
        claims.insert("username".to_owned(), json!(self.name));
        if self.name.contains('@') {
            claims.insert("email".to_owned(), json!(self.name));
            claims.insert("email_verified".to_owned(), json!("true"));
        }
        if !self.groups.is_empty() {
            claims.insert(
                "custom:groups".to_owned(),
                json!(format!("[{}]", self.groups.join(", "))),
            );
        }
        claims.extend(self.claims.clone());
        claims
    }
}

/// The users on the sign-in page.
pub(super) struct Users {
    known: Vec<User>,
    file: Option<PathBuf>,
}

impl Users {
    /// Reads the users in `file`. Without a file, or before it exists, there are three.
    ///
    /// # Errors
    /// The file cannot be read, or its content is invalid.
    pub(super) fn read(file: Option<PathBuf>) -> Result<Self, String> {
        let text = match &file {
            Some(path) => match std::fs::read_to_string(path) {
                Ok(text) => Some(text),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                Err(error) => {
                    return Err(format!(
                        "cannot read the users file {}: {error}",
                        path.display()
                    ));
                }
            },
            None => None,
        };
        let known = match (&file, text) {
            (Some(path), Some(text)) => parse(path, &text)?,
            _ => vec![
                User::new("ann@example.com", &["admins", "data-science"]),
                User::new("bob@example.com", &["data-science"]),
                User::new("eve@elsewhere.example", &[]),
            ],
        };
        Ok(Self { known, file })
    }

    pub(super) fn known(&self) -> &[User] {
        &self.known
    }

    /// The user of this name.
    pub(super) fn named(&self, name: &str) -> Option<&User> {
        self.known.iter().find(|user| user.name == name)
    }

    /// Adds the user to the sign-in page and to the file, in place of one with the same name.
    ///
    /// # Errors
    /// The file cannot be written. The page lists the user nevertheless.
    pub(super) fn add(&mut self, user: User) -> Result<(), String> {
        match self.known.iter_mut().find(|known| known.name == user.name) {
            Some(known) => *known = user,
            None => self.known.push(user),
        }
        let Some(path) = &self.file else {
            return Ok(());
        };
        let failed = |error: &dyn std::fmt::Display| {
            format!("cannot write the users file {}: {error}", path.display())
        };
        let text = if is_json(path) {
            serde_json::to_string_pretty(&self.known).map_err(|error| failed(&error))?
        } else {
            let users = serde_saphyr::to_string(&self.known).map_err(|error| failed(&error))?;
            format!("# Sample users of `alb-oidc simulate`: name, groups, claims.\n{users}")
        };
        std::fs::write(path, text).map_err(|error| failed(&error))
    }
}

fn parse(path: &Path, text: &str) -> Result<Vec<User>, String> {
    let wrong = |error: &dyn std::fmt::Display| {
        let error = error.to_string();
        let line = error.lines().next().unwrap_or_default().to_owned();
        format!(
            "{}: {line}; expected a list of users with name, and optionally groups and claims",
            path.display()
        )
    };
    let users: Vec<User> = serde_saphyr::from_str(text).map_err(|error| wrong(&error))?;
    users
        .into_iter()
        .map(|user| user.checked().map_err(|error| wrong(&error)))
        .collect()
}

fn is_json(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "json")
}
