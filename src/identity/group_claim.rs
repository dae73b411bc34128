//! The group names in one claim, in each form that identity providers use. A part that cannot be
//! parsed without a guess gives no name and is counted. No header, no rule.

use serde_json::{Map, Value};

use crate::json;
use crate::token::claims::MAX_CLAIMS_DEPTH;

/// How a claim lists groups: `separator`, `members` and `decode` of `groups`.
#[derive(Clone, Debug)]
pub struct GroupClaimRules {
    /// Between the names in one text. Backslash and brackets have a meaning only with `,`.
    pub separator: char,
    /// Where an object has the name.
    pub members: Option<Members>,
    /// Applied to claims of the load balancer's token, never to those of the access token.
    pub decode: Option<Decode>,
}

/// A second encoding inside the claim: `groups.decode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decode {
    /// Each name is URL-form-encoded, as Cognito writes multi-valued SAML attributes.
    Form,
    /// The only element of an array is a JSON array as text: Entra ID's version 1 userinfo.
    Json,
}

/// Where a JSON object has the name of a group: `groups.members`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Members {
    /// `{"admins": {…}}`: each key is a group, unless its value is null, false or empty.
    Keys,
    /// `[{"name": "admins"}]`
    Name,
}

/// The groups of a claim.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) names: Vec<String>,
    /// The parts that cannot be parsed, for display only.
    pub(super) unreadable: Vec<String>,
}

/// A list that could be split in two ways: a quote is not closed, text follows a closing quote, or
/// two backslashes precede a comma.
struct Ambiguous;

impl GroupClaimRules {
    /// The names in `claim`, in its order, repeated ones included.
    pub(super) fn names(&self, claim: &Value, is_of_access_token: bool) -> Names {
        let mut found = Names::default();
        let decode = self.decode.filter(|_| !is_of_access_token);
        match claim {
            Value::Null => {}
            Value::Array(elements) => match &elements[..] {
                [Value::String(only)] if decode == Some(Decode::Json) && is_json_array(only) => {
                    found.json_array(only);
                }
                elements => self.elements(elements, &mut found),
            },
            Value::String(text) => self.text(text, &mut found),
            Value::Object(members) if self.members == Some(Members::Keys) => {
                found.names.extend(keys(members));
            }
            other => found.unreadable(other),
        }
        if decode == Some(Decode::Form) {
            found.decode_forms();
        }
        found
    }

    fn elements(&self, elements: &[Value], found: &mut Names) {
        for element in elements {
            let name = match element {
                Value::String(text) => Some(text),
                Value::Object(members) if self.members == Some(Members::Name) => {
                    match members.get("name") {
                        Some(Value::String(text)) => Some(text),
                        _ => None,
                    }
                }
                _ => None,
            };
            match name {
                Some(name) => found.names.push(name.clone()),
                None => found.unreadable(element),
            }
        }
    }

    fn text(&self, text: &str, found: &mut Names) {
        let text = text.trim();
        if is_json_array(text) {
            return found.json_array(text);
        }
        // Cognito writes a SAML list as `[a, b]`.
        let list = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'))
            .filter(|_| self.separator == ',')
            .unwrap_or(text);
        match split(list, self.separator) {
            Ok(names) => found.names.extend(names),
            Err(Ambiguous) => found.unreadable.push(text.to_owned()),
        }
    }
}

impl Names {
    fn unreadable(&mut self, part: &Value) {
        self.unreadable
            .push(serde_json::to_string(part).unwrap_or_default());
    }

    fn json_array(&mut self, text: &str) {
        let Ok(Value::Array(elements)) = json::parse(text.trim().as_bytes(), MAX_CLAIMS_DEPTH)
        else {
            return self.unreadable.push(text.to_owned());
        };
        for element in elements {
            match element {
                Value::String(name) => self.names.push(name),
                other => self.unreadable(&other),
            }
        }
    }

    fn decode_forms(&mut self) {
        for name in std::mem::take(&mut self.names) {
            // A decoded comma is ambiguous: part of a name, or between two.
            match decoded(&name).filter(|decoded| !decoded.contains(',')) {
                Some(decoded) => self.names.push(decoded),
                None => self.unreadable.push(name),
            }
        }
    }
}

/// Whether `text` can only be meant as a JSON array: a list in brackets with a quote, or an empty
/// one.
fn is_json_array(text: &str) -> bool {
    let inner = text
        .trim()
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    inner.is_some_and(|inner| inner.contains('"') || inner.trim().is_empty())
}

fn keys(members: &Map<String, Value>) -> impl Iterator<Item = String> + '_ {
    let is_empty = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(elements) => elements.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    };
    members
        .iter()
        .filter(move |(_, value)| !is_empty(value))
        .map(|(name, _)| name.clone())
}

/// The names in a list, without empty ones and without spaces around them. A name in quotes may
/// contain the separator.
fn split(list: &str, separator: char) -> Result<Vec<String>, Ambiguous> {
    let mut names = Vec::new();
    let mut rest = Some(list);
    while let Some(text) = rest {
        let text = text.trim_start();
        let (name, after) = match text.strip_prefix('"') {
            Some(quoted) => quoted_name(quoted, separator)?,
            None => plain_name(text, separator)?,
        };
        if !name.is_empty() {
            names.push(name);
        }
        rest = after;
    }
    Ok(names)
}

/// The name before the closing quote, and what follows the separator behind it.
fn quoted_name(text: &str, separator: char) -> Result<(String, Option<&str>), Ambiguous> {
    let (name, after) = text.split_once('"').ok_or(Ambiguous)?;
    if name.contains('\\') {
        return Err(Ambiguous);
    }
    let name = name.to_owned();
    let next = after.trim_start();
    if next.is_empty() {
        return Ok((name, None));
    }
    // A blank that separates has just been trimmed away.
    match after
        .strip_prefix(separator)
        .or(next.strip_prefix(separator))
    {
        Some(rest) => Ok((name, Some(rest))),
        None => Err(Ambiguous),
    }
}

/// The name before the next separator, and what follows. Cognito writes a comma inside a name as
/// `\,`. Behind two backslashes, a comma may separate or not.
fn plain_name(text: &str, separator: char) -> Result<(String, Option<&str>), Ambiguous> {
    let mut name = String::new();
    let mut rest = text;
    loop {
        let Some((part, after)) = rest.split_once(separator) else {
            name.push_str(rest);
            return Ok((name.trim().to_owned(), None));
        };
        let unescaped = part.strip_suffix('\\').filter(|_| separator == ',');
        match unescaped {
            Some(part) if part.ends_with('\\') => return Err(Ambiguous),
            Some(part) => {
                name.push_str(part);
                name.push(separator);
                rest = after;
            }
            None => {
                name.push_str(part);
                return Ok((name.trim().to_owned(), Some(after)));
            }
        }
    }
}

/// `name` without the encoding of `application/x-www-form-urlencoded` (WHATWG URL, section 5.1),
/// once; `None` where it is not of that form or not UTF-8.
fn decoded(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                u8::try_from(high << 4 | low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PLAIN: GroupClaimRules = GroupClaimRules {
        separator: ',',
        members: None,
        decode: None,
    };
    const NESTED: GroupClaimRules = GroupClaimRules {
        decode: Some(Decode::Json),
        ..PLAIN
    };

    /// The names, and how many parts cannot be parsed.
    fn names(rules: &GroupClaimRules, claim: Value) -> (Vec<String>, usize) {
        let found = rules.names(&claim, false);
        (found.names, found.unreadable.len())
    }

    fn expect(rules: &GroupClaimRules, claim: Value, expected: &[&str], unreadable: usize) {
        let expected: Vec<_> = expected.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(
            names(rules, claim.clone()),
            (expected, unreadable),
            "{claim}"
        );
    }

    #[test]
    fn accepts_arrays_lists_and_bracketed_lists() {
        for claim in [
            json!(["a", "b c"]),
            json!("a,b c"),
            json!("[a, b c]"),
            json!(" [ a ,b c ] "),
            json!(r#"["a", "b c"]"#),
            json!(r#""a","b c""#),
            json!(r#" "a" , b c"#),
        ] {
            expect(&PLAIN, claim, &["a", "b c"], 0);
        }
        for claim in [json!([]), json!(""), json!("[]"), json!(null)] {
            expect(&PLAIN, claim, &[], 0);
        }
    }

    #[test]
    fn counts_what_it_cannot_parse() {
        expect(&PLAIN, json!(7), &[], 1);
        expect(&PLAIN, json!(true), &[], 1);
        expect(&PLAIN, json!({"a": "b"}), &[], 1);
        expect(
            &PLAIN,
            json!([1, null, "a", ["b"], {"name": "c"}]),
            &["a"],
            4,
        );
    }

    #[test]
    fn parses_json_arrays_in_text_strictly() {
        expect(
            &PLAIN,
            json!(r#" ["x,admins,y", "b\u002ca", "c"] "#),
            &["x,admins,y", "b,a", "c"],
            0,
        );
        expect(&PLAIN, json!(r#"["a", 1, ["b"]]"#), &["a"], 2);
        for unreadable in [
            r#"["a", b]"#,
            r#"["x,admins,y\ud800"]"#,
            r#"["x,admins", {"a": 1, "a": 2}]"#,
        ] {
            expect(&PLAIN, json!(unreadable), &[], 1);
            expect(&NESTED, json!([unreadable]), &[], 1);
        }
        expect(&PLAIN, json!("[1001, true]"), &["1001", "true"], 0);
    }

    #[test]
    fn parses_json_in_an_array_only_alone_and_with_decode() {
        expect(&NESTED, json!([r#"["g-1"]"#]), &["g-1"], 0);
        expect(&NESTED, json!([r#"["g-1","g-2"]"#]), &["g-1", "g-2"], 0);
        expect(&NESTED, json!(["[]"]), &[], 0);
        expect(&NESTED, json!([r#"["g-1"]"#, "b"]), &[r#"["g-1"]"#, "b"], 0);
        expect(&NESTED, json!(["[a, b]"]), &["[a, b]"], 0);
        expect(&NESTED, json!([r#"["["g-1"]"]"#]), &[], 1);
        // A user who names a group like this must not be in the group inside.
        expect(&PLAIN, json!([r#"["admins"]"#]), &[r#"["admins"]"#], 0);
        let claim = json!([r#"["admins"]"#]);
        let of_access_token = NESTED.names(&claim, true);
        assert_eq!(of_access_token.names, [r#"["admins"]"#]);
    }

    #[test]
    fn a_quoted_name_ends_at_its_quote() {
        expect(&PLAIN, json!(r#""x,admins","b""#), &["x,admins", "b"], 0);
        expect(&PLAIN, json!(r#"a "b",c"#), &[r#"a "b""#, "c"], 0);
        for ambiguous in [
            r#""x,admins"#,
            r#"b,"x,admins"#,
            r#""a"b,admins"#,
            r#""a\",admins""#,
            r#""a"",admins""#,
        ] {
            expect(&PLAIN, json!(ambiguous), &[], 1);
        }
    }

    #[test]
    fn an_escaped_comma_is_part_of_a_name() {
        for (claim, names, unreadable) in [
            (r"[sales\,admins, users]", &["sales,admins", "users"][..], 0),
            (r"sales\,admins,users", &["sales,admins", "users"], 0),
            (r"[a\, b\, admins]", &["a, b, admins"], 0),
            (r"users\,", &["users,"], 0),
            (r"[users, CORP\admins]", &["users", r"CORP\admins"], 0),
            (r"users,admins\", &["users", r"admins\"], 0),
            (r"sales\\,admins,users", &[], 1),
            (r"\\\,admins", &[], 1),
        ] {
            expect(&PLAIN, json!(claim), names, unreadable);
        }
    }

    #[test]
    fn splits_at_the_configured_separator_only() {
        let with = |separator| GroupClaimRules { separator, ..PLAIN };
        expect(&with('|'), json!("a|b,c| d"), &["a", "b,c", "d"], 0);
        expect(&with(';'), json!("CN=a,OU=b;[c]"), &["CN=a,OU=b", "[c]"], 0);
        expect(&with(';'), json!(r"a\;b"), &[r"a\", "b"], 0);
        expect(&with(' '), json!("a  b c"), &["a", "b", "c"], 0);
        expect(&with(' '), json!(r#""a b" "c""#), &["a b", "c"], 0);
        expect(&with('|'), json!(["a|b"]), &["a|b"], 0);
    }

    #[test]
    fn takes_names_from_objects_where_it_is_told() {
        let with = |members| GroupClaimRules {
            members: Some(members),
            ..PLAIN
        };
        let roles = json!({
            "admin": {"org": "example"}, "editor": true, "owner": "x", "level": 0,
            "former": null, "off": false, "empty": {}, "list": [], "text": "",
        });
        let mut found = names(&with(Members::Keys), roles.clone());
        found.0.sort_unstable();
        let expected = ["admin", "editor", "level", "owner"].map(str::to_owned);
        assert_eq!(found, (expected.to_vec(), 0));
        expect(&with(Members::Name), roles, &[], 1);

        let list = json!([{"name": "admins", "id": 1}, {"id": 2}, {"name": 3}, "plain"]);
        expect(&with(Members::Name), list.clone(), &["admins", "plain"], 2);
        expect(&with(Members::Keys), list, &["plain"], 3);
        expect(&with(Members::Keys), json!("a,b"), &["a", "b"], 0);
    }

    #[test]
    fn decodes_forms_once_and_never_of_an_access_token() {
        let rules = GroupClaimRules {
            decode: Some(Decode::Form),
            ..PLAIN
        };
        expect(
            &rules,
            json!("[ML+ops, %C3%A9, a%2520b]"),
            &["ML ops", "é", "a%20b"],
            0,
        );
        expect(&rules, json!("a%2Cb,a%zz,%ff,%4"), &[], 4);
        expect(&rules, json!("a%0Ab"), &["a\nb"], 0);
        let of_access_token = rules.names(&json!(["ML+ops", "a%2Cb"]), true);
        assert_eq!(of_access_token.names, ["ML+ops", "a%2Cb"]);
    }
}
