//! The HTML layout of every page, the error page, and the check against cross-site requests.

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use maud::{DOCTYPE, Markup, PreEscaped, html};

const STYLE: &str = "
:root { color-scheme: light dark; --line: #8884; --accent: #2563eb }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 44rem; margin: 8vh auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2rem }
code { font-size: .9em; overflow-wrap: anywhere }
dt { font-weight: 600; margin-top: .5rem } dd { margin: 0 }
fieldset { border: 1px solid var(--line); border-radius: .5rem; margin: 0 0 1rem; padding: .5rem 1rem }
label { display: block; margin: .5rem 0 } label input:not([type=checkbox]), textarea { display: block }
.switch { display: flex; gap: .6rem; align-items: baseline }
input:not([type=checkbox]), textarea, button, .button { font: inherit; box-sizing: border-box; padding: .5rem .8rem; border: 1px solid var(--line); border-radius: .5rem }
input:not([type=checkbox]), textarea { width: 100% }
button, .button { cursor: pointer; display: inline-block; text-decoration: none }
.user button { width: 100%; display: flex; justify-content: space-between; gap: 1rem; margin: .4rem 0; text-align: left }
.primary, .button { background: var(--accent); color: #fff }
[role=alert], [role=status] { border-left: .25rem solid #dc2626; padding-left: .8rem } [role=status] { border-color: #16a34a }
table { border-collapse: collapse; width: 100% } td, th { border-top: 1px solid var(--line); padding: .3rem .6rem .3rem 0; text-align: left; vertical-align: top; overflow-wrap: anywhere }
th { font-weight: 500; white-space: nowrap }
nav a { margin-right: 1rem }";

/// A page with this title, which is its heading too.
pub(crate) fn layout(title: &str, body: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { h1 { (title) } (body) }
        }
    }
}

/// An error page.
pub(crate) fn error(status: StatusCode, text: &str) -> Response {
    let title = format!(
        "{} {}",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default()
    );
    let body = html! { p { (text) } p { "This page is from alb-oidc simulate." } };
    (status, layout(&title, body)).into_response()
}

/// Rejects changes that a page of another site makes a browser send.
pub(crate) async fn same_site(request: Request, next: Next) -> Response {
    if request.method().is_safe() || is_same_site(request.headers()) {
        return next.run(request).await;
    }
    error(
        StatusCode::FORBIDDEN,
        "A page of another site sent this request.",
    )
}

/// Old browsers send no `sec-fetch-site`. Every browser sends `origin` with a POST to another site.
fn is_same_site(headers: &HeaderMap) -> bool {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let is_own_origin =
        header("origin").is_none_or(|origin| origin.strip_prefix("http://") == header("host"));
    is_own_origin
        && matches!(
            header("sec-fetch-site"),
            None | Some("same-origin" | "none")
        )
}
