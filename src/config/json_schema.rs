//! `pluginConfig` as a JSON Schema (draft 7), for editors and for the Helm chart. It says what
//! [`super::reference`] says: names, types, bounds and defaults. It cannot say which fields
//! contradict each other, and it counts characters where the reader counts bytes: it accepts a
//! config that the reader rejects, and never the reverse.

use serde_json::{Map, Value, json};

use super::reference::{Field, Kind, children};

/// The schema of the whole config.
pub fn config_schema() -> Value {
    object("")
}

fn object(path: &str) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in children(path) {
        properties.insert(field.name().to_owned(), property(field));
        if field.is_required() {
            required.push(field.name());
        }
    }
    let mut schema = json!({
        "type": "object", "additionalProperties": false, "properties": properties,
    });
    if !required.is_empty()
        && let Some(schema) = schema.as_object_mut()
    {
        schema.insert("required".to_owned(), json!(required));
    }
    schema
}

fn property(field: &Field) -> Value {
    let mut schema = match field.kind {
        Kind::Boolean => json!({"type": "boolean"}),
        Kind::Number { least, most } => {
            json!({"type": "integer", "minimum": least, "maximum": most})
        }
        Kind::String { least, most } => {
            json!({"type": "string", "minLength": least.min(1), "maxLength": most})
        }
        Kind::StringOrNull { most } => {
            json!({"type": ["string", "null"], "minLength": 1, "maxLength": most})
        }
        Kind::Choice(words) => json!({"enum": words}),
        Kind::Strings { least, most } => json!({
            "type": "array", "minItems": least, "maxItems": most, "items": {"type": "string"},
        }),
        Kind::StringOrStrings { bytes, most } => {
            let string = json!({"type": "string", "minLength": 1, "maxLength": bytes});
            json!({"anyOf": [string, {
                "type": "array", "minItems": 1, "maxItems": most, "items": string,
            }]})
        }
        Kind::Object => object(field.path),
        Kind::Objects { least, most } => json!({
            "type": "array", "minItems": least, "maxItems": most, "items": object(field.path),
        }),
    };
    if let (Some(schema), Ok(default)) = (
        schema.as_object_mut(),
        serde_json::from_str(&field.default_json()),
    ) {
        schema.insert("default".to_owned(), default);
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_each_kind_of_field_may_hold() {
        let schema = config_schema();
        let at = |path: &str| {
            path.split('.').fold(&schema, |schema, name| {
                let object = if schema["type"] == "array" {
                    &schema["items"]
                } else {
                    schema
                };
                &object["properties"][name]
            })
        };
        for (path, expected) in [
            (
                "publicKeys.timeoutMs",
                json!({"type": "integer", "minimum": 100, "maximum": 10_000, "default": 1000}),
            ),
            (
                "loadBalancers.issuer",
                json!({"type": ["string", "null"], "minLength": 1, "maxLength": 512}),
            ),
            (
                "groups.keep",
                json!({"type": "string", "minLength": 0, "maxLength": 1024, "default": ""}),
            ),
            // Two bytes may be one character.
            (
                "logout.path",
                json!({"type": "string", "minLength": 1, "maxLength": 256}),
            ),
            (
                "mode",
                json!({"enum": ["enforce", "report"], "default": "enforce"}),
            ),
            (
                "userId.lowercase",
                json!({"type": "boolean", "default": false}),
            ),
            (
                "logout.sessionCookie",
                json!({
                    "anyOf": [
                        {"type": "string", "minLength": 1, "maxLength": 64},
                        {"type": "array", "minItems": 1, "maxItems": 8, "items": {"type": "string", "minLength": 1, "maxLength": 64}},
                    ],
                    "default": "AWSELBAuthSessionCookie",
                }),
            ),
            (
                "upgrades",
                json!({"type": "array", "minItems": 0, "maxItems": 16, "items": {"type": "string"}, "default": ["websocket"]}),
            ),
        ] {
            assert_eq!(at(path), &expected, "{path}");
        }
        assert_eq!(schema["required"], json!(["loadBalancers"]));
        let load_balancer = &at("loadBalancers")["items"];
        assert_eq!(load_balancer["additionalProperties"], false);
        assert_eq!(
            load_balancer["required"],
            json!(["arn", "issuer", "clientId"])
        );
    }
}
