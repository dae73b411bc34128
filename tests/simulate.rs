//! `alb-oidc simulate` from outside: as browsers, gateways and operators use it. The library and a
//! real Envoy verify its tokens.

use alb_oidc_filter::{
    Config, P256_PROVIDER, P256Key, Reason, Timestamp, UntrustedToken, Verifier,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use hyper::body::Bytes;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use support::client::{Reply, Request, send, send_body};
use support::envoy::gateway_config;
use support::server::{Server, full};
use support::simulator::{Browser, Simulator, Tool};
use support::token::{ARN, CLIENT, ISSUER};
use support::upstream::Upstream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

const ANN: &str = "name=ann@example.com";

/// An upstream, the simulator in front of it, and the browser of Ann, who has signed in.
async fn signed_in(more: &[&str]) -> (Upstream, Simulator, Browser) {
    let upstream = Upstream::start().await;
    let simulator = Simulator::start(upstream.address(), more).await;
    let mut ann = Browser::default();
    ann.sign_in(&simulator.url("/"), ANN).await;
    upstream.take_seen();
    (upstream, simulator, ann)
}

/// The values of the header `name` that upstream receives from this browser.
async fn seen(
    upstream: &Upstream,
    simulator: &Simulator,
    browser: &mut Browser,
    name: &str,
) -> Vec<String> {
    let reply = browser.get(&simulator.url("/seen")).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let seen = upstream.take_seen().pop().expect("a request");
    seen.header(name).into_iter().map(str::to_owned).collect()
}

fn part(token: &str, number: usize) -> Value {
    let part = token
        .split('.')
        .nth(number)
        .expect("a part")
        .trim_end_matches('=');
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64")).expect("JSON")
}

/// The claims of this token, verified by the library with the key that the simulator publishes.
async fn verified(simulator: &Simulator, token: &str) -> Result<Value, Reason> {
    let kid = part(token, 0)["kid"].as_str().expect("a kid").to_owned();
    let pem = Browser::default()
        .get(&simulator.elsewhere(&format!("/{kid}")))
        .await;
    assert_eq!(pem.status, 200, "no key {kid}");
    let key = P256Key::from_pem(pem.body.as_bytes()).expect("a P-256 key");
    let config = json!({"loadBalancers": [{"arn": ARN, "issuer": ISSUER, "clientId": CLIENT}]});
    let config = Config::from_value(&config).expect("a config");
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("now")
        .as_secs();
    let (now, skew) = (Timestamp::from_seconds(now), Duration::ZERO);
    let token =
        UntrustedToken::parse(token.as_bytes())?.screen(&config.load_balancers, now, skew)?;
    let claims = Verifier::install(&P256_PROVIDER)
        .verify(&token, &key)?
        .claims(now, skew)?;
    Ok(Value::Object(claims.by_name().clone()))
}

#[tokio::test]
async fn redirects_request_without_session_to_sign_in() {
    let upstream = Upstream::start().await;
    let simulator = Simulator::start(upstream.address(), &[]).await;
    let mut script = Browser::sending(&[
        ("x-requested-with", "XMLHttpRequest"),
        ("accept", "application/json"),
    ]);
    let idp = simulator.elsewhere("/idp/authorize?");
    for reply in [
        script.get(&simulator.url("/api")).await,
        script.post(&simulator.url("/api"), "x=1").await,
    ] {
        assert_eq!(reply.status, 302);
        assert!(
            reply.header("location")[0].starts_with(&idp),
            "{:?}",
            reply.headers
        );
    }
    assert!(upstream.take_seen().is_empty());

    let (url, reply) = Browser::default()
        .sign_in(&simulator.url("/a/b?c=d&e=%2F"), ANN)
        .await;
    assert_eq!((url, reply.status), (simulator.url("/a/b?c=d&e=%2F"), 200));
    assert_eq!(
        upstream.take_seen().pop().expect("a request").path,
        "/a/b?c=d&e=%2F"
    );
}

#[tokio::test]
async fn session_cookies_have_names_and_sizes_of_the_alb() {
    let upstream = Upstream::start().await;
    let simulator = Simulator::start(upstream.address(), &[]).await;
    let mut browser = Browser::default();
    let shards = |reply: &Reply| -> Vec<String> {
        let session = |cookie: &&&str| cookie.starts_with("AWSELBAuthSessionCookie-");
        reply
            .header("set-cookie")
            .iter()
            .filter(session)
            .map(|cookie| (*cookie).to_owned())
            .collect()
    };
    let large = format!(
        "name=big@example.com&groups=&claims={{\"x\":\"{}\"}}",
        "y".repeat(7_000)
    );
    let (page, _) = browser.open(&simulator.url("/")).await;
    let back = browser.post(&page, &large).await;
    let large = browser.get(back.header("location")[0]).await;
    let names: Vec<_> = shards(&large)
        .iter()
        .map(|cookie| cookie.split_once('=').unwrap().0.to_owned())
        .collect();
    assert_eq!(
        names,
        [
            "AWSELBAuthSessionCookie-0",
            "AWSELBAuthSessionCookie-1",
            "AWSELBAuthSessionCookie-2"
        ]
    );
    for cookie in shards(&large) {
        let (pair, attributes) = cookie.split_once("; ").expect("attributes");
        assert!(pair.len() <= 4097, "{} bytes", pair.len());
        for attribute in ["Path=/", "Secure", "HttpOnly", "Expires="] {
            assert!(attributes.contains(attribute), "{attributes}");
        }
    }
    assert_eq!(browser.get(&simulator.url("/")).await.status, 200);

    // A smaller session replaces all cookies of the larger one.
    browser.cookies.remove("idp-session");
    browser.cookies.remove("AWSELBAuthSessionCookie-0");
    let (_, reply) = browser.sign_in(&simulator.url("/"), ANN).await;
    let left: Vec<_> = browser
        .cookies
        .keys()
        .map(String::as_str)
        .filter(|name| name.starts_with("AWSELB"))
        .collect();
    assert_eq!(
        (reply.status, left),
        (200, vec!["AWSELBAuthSessionCookie-0"])
    );

    let mut browser = Browser::default();
    let huge = format!(
        "name=huge@example.com&groups=&claims={{\"x\":\"{}\"}}",
        "y".repeat(11_000)
    );
    assert_eq!(
        browser.sign_in(&simulator.url("/"), &huge).await.1.status,
        500
    );
}

#[tokio::test]
async fn ignores_expired_or_modified_session() {
    let (_upstream, simulator, mut ann) = signed_in(&["--session-lifetime", "1"]).await;
    let session = ann.cookies["AWSELBAuthSessionCookie-0"].clone();
    let last = if session.ends_with('A') { "B" } else { "A" };
    ann.cookies.insert(
        "AWSELBAuthSessionCookie-0".into(),
        format!("{}{last}", &session[..session.len() - 1]),
    );
    assert_eq!(ann.get(&simulator.url("/")).await.status, 302);
    ann.cookies
        .insert("AWSELBAuthSessionCookie-0".into(), session);
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    assert_eq!(ann.get(&simulator.url("/")).await.status, 302);
}

#[tokio::test]
async fn tokens_verify_with_published_keys_after_rotation() {
    let (upstream, simulator, mut ann) = signed_in(&[]).await;
    let first = seen(&upstream, &simulator, &mut ann, "x-amzn-oidc-data")
        .await
        .remove(0);
    let members: Vec<String> = part(&first, 0)
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    assert_eq!(
        members,
        ["alg", "client", "exp", "iss", "kid", "signer", "typ"]
    );
    let claims = verified(&simulator, &first).await.expect("a good token");
    assert_eq!(
        (&claims["email"], &claims["email_verified"]),
        (&json!("ann@example.com"), &json!("true"))
    );
    assert_eq!(claims["custom:groups"], "[admins, data-science]");
    let identity = seen(&upstream, &simulator, &mut ann, "x-amzn-oidc-identity").await;
    assert_eq!(json!(identity), json!([claims["sub"]]));

    let rotated = Browser::default()
        .post(&simulator.elsewhere("/rotate"), "")
        .await;
    assert_eq!(rotated.status, 303);
    let second = seen(&upstream, &simulator, &mut ann, "x-amzn-oidc-data")
        .await
        .remove(0);
    assert_ne!(part(&second, 0)["kid"], part(&first, 0)["kid"]);
    for token in [first, second] {
        verified(&simulator, &token).await.expect("a good token");
    }
}

#[tokio::test]
async fn access_tokens_verify_with_published_jwks() {
    let (upstream, simulator, mut ann) = signed_in(&[]).await;
    let token = seen(&upstream, &simulator, &mut ann, "x-amzn-oidc-accesstoken")
        .await
        .remove(0);
    let subject = seen(&upstream, &simulator, &mut ann, "x-amzn-oidc-identity")
        .await
        .remove(0);
    let claims = part(&token, 1);
    assert_eq!(
        (&claims["iss"], &claims["client_id"], &claims["token_use"]),
        (&json!(ISSUER), &json!(CLIENT), &json!("access"))
    );
    assert_eq!(
        (&claims["sub"], &claims["cognito:groups"]),
        (&json!(subject), &json!(["admins", "data-science"]))
    );

    let keys = Browser::default()
        .get(&simulator.elsewhere("/us-west-2_EXAMPLE/.well-known/jwks.json"))
        .await;
    let keys: Value = serde_json::from_str(&keys.body).expect("a key set");
    let key = keys["keys"]
        .as_array()
        .unwrap()
        .iter()
        .find(|key| key["kid"] == part(&token, 0)["kid"])
        .expect("its key");
    let number = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
    let key = aws_lc_rs::signature::RsaPublicKeyComponents {
        n: number("n"),
        e: number("e"),
    };
    let (message, signature) = token.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let algorithm = &aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256;
    key.verify(algorithm, message.as_bytes(), &signature)
        .expect("a good signature");
    assert!(key.verify(algorithm, b"another", &signature).is_err());
}

#[tokio::test]
async fn forwards_client_headers_and_replaces_oidc_headers() {
    let (upstream, simulator, mut ann) = signed_in(&[]).await;
    ann.headers = vec![
        ("kubeflow-userid".into(), "admin".into()),
        ("x-amzn-oidc-data".into(), "forged".into()),
    ];
    assert_eq!(
        seen(&upstream, &simulator, &mut ann, "kubeflow-userid").await,
        ["admin"]
    );
    assert_eq!(
        seen(&upstream, &simulator, &mut ann, "x-amzn-oidc-data")
            .await
            .len(),
        1
    );
    simulator.misbehave(&["keep-client-headers"]).await;
    let both = seen(&upstream, &simulator, &mut ann, "x-amzn-oidc-data").await;
    assert_eq!((both.len(), both[0].as_str()), (2, "forged"));
    assert_eq!(
        seen(&upstream, &simulator, &mut ann, "x-forwarded-for").await,
        ["127.0.0.1"]
    );
    ann.headers = vec![
        ("x-forwarded-for".into(), "10.1.1.1".into()),
        ("x-forwarded-proto".into(), "gopher".into()),
    ];
    assert_eq!(
        seen(&upstream, &simulator, &mut ann, "x-forwarded-for").await,
        ["10.1.1.1, 127.0.0.1"]
    );
    assert_eq!(
        seen(&upstream, &simulator, &mut ann, "x-forwarded-proto").await,
        ["http"]
    );
}

/// The rows of the table in `envoy/README.md`: a misbehaviour, and the response.
fn misbehaviours() -> Vec<(String, String)> {
    let page = std::fs::read_to_string(support::repository("envoy/README.md")).expect("the README");
    let table = page
        .split_once("<!-- misbehaviours: ")
        .expect("the table of misbehaviours")
        .1;
    let rows = table
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .skip(2);
    let cells = rows.map(|row| {
        row.trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().replace('`', ""))
            .collect::<Vec<_>>()
    });
    cells
        .map(|cells| (cells[0].clone(), cells[2].clone()))
        .collect()
}

#[tokio::test]
async fn misbehaviours_have_outcomes_of_the_readme() {
    let upstream = Upstream::start().await;
    let mut config = gateway_config();
    config["accessToken"] = json!({
        "issuer": ISSUER, "jwksUri": "http://keys.test/us-west-2_EXAMPLE/.well-known/jwks.json", "jwksCluster": "keys",
    });
    let (simulator, envoy) =
        Simulator::with_gateway(&support::default_envoy(), config, upstream.address()).await;
    let mut ann = Browser::default();
    ann.sign_in(&simulator.url("/"), ANN).await;
    let help = tokio::process::Command::new(env!("CARGO_BIN_EXE_alb-oidc"))
        .args(["simulate", "--help"])
        .output();
    let help = String::from_utf8(help.await.expect("its help").stdout).expect("text");
    let listed: Vec<_> = help
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- ")?.split_once(':'))
        .map(|(name, _)| name)
        .collect();
    let rows = misbehaviours();
    assert_eq!(
        rows.iter()
            .map(|(name, _)| name.as_str())
            .collect::<Vec<_>>(),
        listed
    );
    for (name, expected) in rows {
        simulator.misbehave(&[&name]).await;
        ann.headers = match name.as_str() {
            "keep-client-headers" => vec![("x-amzn-oidc-data".into(), "a.b.c".into())],
            _ => Vec::new(),
        };
        let reply = ann.get(&simulator.url("/")).await;
        let found = match serde_json::from_str::<Value>(&reply.body)
            .ok()
            .and_then(|body| body["reason"].as_str().map(str::to_owned))
        {
            Some(reason) => format!("{} {reason}", reply.status),
            None => reply.status.to_string(),
        };
        assert_eq!(found, expected, "{name}");
        // The gateway caches the outcome of a bad key: use another key.
        simulator.misbehave(&[]).await;
        Browser::default()
            .post(&simulator.elsewhere("/rotate"), "")
            .await;
        ann.headers.clear();
        assert_eq!(
            ann.get(&simulator.url("/")).await.status,
            200,
            "after {name}"
        );
    }
    envoy.stop().await;
}

#[tokio::test]
async fn forwards_websocket_of_signed_in_user() {
    let echo = Tool::start(&["echo", "--listen", "127.0.0.1:0"], 1).await;
    let simulator = Simulator::start(echo.address(0), &[]).await;
    let mut ann = Browser::default();
    ann.sign_in(&simulator.url("/"), ANN).await;
    let url = simulator.url("/socket").replace("http:", "ws:");
    let refused = tokio_tungstenite::connect_async(&url)
        .await
        .expect_err("no socket without a session");
    assert!(
        matches!(&refused, Error::Http(reply) if reply.status() == 302),
        "{refused}"
    );

    let mut request = url.into_client_request().expect("a request");
    let cookie = format!(
        "AWSELBAuthSessionCookie-0={}",
        ann.cookies["AWSELBAuthSessionCookie-0"]
    );
    request
        .headers_mut()
        .insert("cookie", cookie.parse().expect("a cookie"));
    let (mut socket, _) = tokio_tungstenite::connect_async(request)
        .await
        .expect("a socket");
    for text in ["one", "two"] {
        socket.send(Message::text(text)).await.expect("to send");
        assert_eq!(
            socket.next().await.expect("an answer").expect("a message"),
            Message::text(text)
        );
    }
}

#[tokio::test]
async fn streams_large_upload_in_little_memory() {
    const PIECE: usize = 64 * 1024;
    const PIECES: usize = 100 * 1024 * 1024 / PIECE;
    let echo = Tool::start(&["echo", "--listen", "127.0.0.1:0"], 1).await;
    let simulator = Simulator::start(echo.address(0), &[]).await;
    let mut ann = Browser::default();
    ann.sign_in(&simulator.url("/"), ANN).await;
    let before = simulator.0.peak_memory();
    let (mut sender, body) =
        http_body_util::channel::Channel::<Bytes, support::server::Broken>::new(4);
    tokio::spawn(async move {
        for _ in 0..PIECES {
            sender
                .send_data(Bytes::from_static(&[b'x'; PIECE]))
                .await
                .expect("a reader");
        }
    });
    let cookie = format!(
        "AWSELBAuthSessionCookie-0={}",
        ann.cookies["AWSELBAuthSessionCookie-0"]
    );
    let mut request = Request::get("/upload", &[("host", "localhost"), ("cookie", &cookie)]);
    request.method = "POST".into();
    let reply = send_body(simulator.0.address(0), &request, body.boxed())
        .await
        .expect("an answer");
    let seen: Value = serde_json::from_str(&reply.body)
        .unwrap_or_else(|_| panic!("{} {}", reply.status, reply.body));
    assert_eq!(seen["body_bytes"], PIECE * PIECES);
    let grown = simulator.0.peak_memory() - before;
    assert!(grown < 16 * 1024, "{grown} KiB more");
}

#[tokio::test]
async fn streams_response_body() {
    let (go_on, gone_on) = tokio::sync::watch::channel(false);
    let upstream = Server::start(move |_| {
        let mut gone_on = gone_on.clone();
        async move {
            let (mut sender, body) =
                http_body_util::channel::Channel::<Bytes, support::server::Broken>::new(1);
            tokio::spawn(async move {
                let _ = sender.send_data(Bytes::from_static(b"first")).await;
                let _ = gone_on.wait_for(|go| *go).await;
                let _ = sender.send_data(Bytes::from_static(b"second")).await;
            });
            Ok(hyper::Response::new(body.boxed()))
        }
    })
    .await;
    let simulator = Simulator::start(upstream.address, &[]).await;
    let mut ann = Browser::default();
    let (page, _) = ann.open(&simulator.url("/")).await;
    let back = ann.post(&page, ANN).await;
    ann.get(back.header("location")[0]).await;
    let stream = tokio::net::TcpStream::connect(simulator.0.address(0))
        .await
        .expect("a connection");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream))
            .await
            .expect("HTTP");
    tokio::spawn(connection);
    let cookie = format!(
        "AWSELBAuthSessionCookie-0={}",
        ann.cookies["AWSELBAuthSessionCookie-0"]
    );
    let request = hyper::Request::get("/")
        .header("host", "localhost")
        .header("cookie", cookie)
        .body(full(""))
        .unwrap();
    let mut body = sender
        .send_request(request)
        .await
        .expect("an answer")
        .into_body();
    let first = tokio::time::timeout(Duration::from_secs(5), body.frame())
        .await
        .expect("the first piece before the second");
    assert_eq!(first.unwrap().unwrap().into_data().unwrap(), "first");
    go_on.send(true).expect("a reader");
    assert_eq!(body.collect().await.unwrap().to_bytes(), "second");
}

#[tokio::test]
async fn redirects_to_own_hosts_only() {
    let (_upstream, simulator, _) = signed_in(&[]).await;
    let alb: SocketAddr = simulator.0.address(0);
    let host = simulator.url("").replace("http://", "");
    // A path is never a URL of another host.
    for path in ["//evil.example/", "/\\evil.example/", "/%2f%2fevil.example"] {
        let (url, _) = Browser::default().sign_in(&simulator.url(path), ANN).await;
        assert_eq!(url, simulator.url(path));
    }
    let absolute = Request::get("http://evil.example/x", &[("host", &host)]);
    let location = send(alb, &absolute)
        .await
        .expect("an answer")
        .header("location")[0]
        .to_owned();
    assert!(
        location.starts_with(&simulator.elsewhere("/idp/authorize?")) && !location.contains("evil"),
        "{location}"
    );
    for bad in ["localhost@evil.example", "evil example", ""] {
        assert_eq!(
            send(alb, &Request::get("/", &[("host", bad)]))
                .await
                .expect("an answer")
                .status,
            400,
            "{bad:?}"
        );
    }

    // The identity provider compares the query with the encrypted `state`.
    let mut browser = Browser::default();
    let (page, _) = browser.open(&simulator.url("/")).await;
    let redirect_uri = format!(
        "http%3A%2F%2F{}%2Foauth2%2Fidpresponse",
        host.replace(':', "%3A")
    );
    assert!(page.contains(&redirect_uri), "{page}");
    for (from, to) in [
        (redirect_uri.as_str(), "http%3A%2F%2Fevil.example%2F"),
        ("state=", "state=x"),
        (CLIENT, "other"),
    ] {
        let page = page.replace(from, to);
        assert_eq!(browser.get(&page).await.status, 400, "{page}");
        assert_eq!(browser.post(&page, ANN).await.status, 400, "{page}");
    }
    // A code is valid once, and in the browser that started the sign-in.
    let back = browser.post(&page, ANN).await.header("location")[0].to_owned();
    assert_eq!(Browser::default().get(&back).await.status, 401);
    assert_eq!(browser.get(&back).await.status, 302);
    assert_eq!(browser.get(&back).await.status, 401);

    for (to, status) in [
        ("http%3A%2F%2Fevil.example%2F", 400),
        ("%2F%2Fevil.example%2F", 400),
        ("javascript%3Aalert(1)", 400),
        ("http%3A%2F%2Flocalhost%40evil.example%2F", 400),
        ("http%3A%2F%2Flocalhost.evil.example%2F", 400),
        ("http%3A%2F%2Flocalhost%3A8080%2F", 303),
    ] {
        let reply = browser
            .get(&simulator.elsewhere(&format!("/idp/logout?logout_uri={to}")))
            .await;
        assert_eq!(reply.status, status, "{to}");
    }
}

#[tokio::test]
async fn deleting_only_alb_cookies_does_not_sign_out() {
    let (_upstream, simulator, mut ann) = signed_in(&[]).await;
    ann.cookies.retain(|name, _| !name.starts_with("AWSELB"));
    let (url, reply) = ann.open(&simulator.url("/")).await;
    assert_eq!(
        (url, reply.status),
        (simulator.url("/"), 200),
        "the session at the identity provider goes on"
    );
    let (_, page) = ann
        .open(&simulator.elsewhere(&format!("/idp/logout?client_id={CLIENT}")))
        .await;
    assert!(page.body.contains("You are signed out"));
    ann.cookies.retain(|name, _| !name.starts_with("AWSELB"));
    let (url, _) = ann.open(&simulator.url("/")).await;
    assert!(
        url.starts_with(&simulator.elsewhere("/idp/authorize?")),
        "{url}"
    );
}

#[tokio::test]
async fn adds_new_user_to_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("users.yaml");
    let file = file.to_str().expect("a path");
    let form = "name=carol@example.com&groups=x, y&claims={\"name\":\"Carol <b>\"}";
    {
        let upstream = Upstream::start().await;
        let simulator = Simulator::start(upstream.address(), &["--users", file]).await;
        let mut carol = Browser::default();
        let (page, _) = carol.open(&simulator.url("/")).await;
        let wrong = carol
            .post(&page, "name=carol@example.com&groups=&claims=[")
            .await;
        assert!(
            wrong.status == 400 && wrong.body.contains("expected a JSON object"),
            "{}",
            wrong.body
        );
        assert_eq!(carol.sign_in(&simulator.url("/"), form).await.1.status, 200);
    }
    let (upstream, simulator, _) = signed_in(&["--users", file]).await;
    let mut carol = Browser::default();
    carol
        .sign_in(&simulator.url("/"), "name=carol@example.com")
        .await;
    let token = seen(&upstream, &simulator, &mut carol, "x-amzn-oidc-data")
        .await
        .remove(0);
    assert_eq!(
        (&part(&token, 1)["name"], &part(&token, 1)["custom:groups"]),
        (&json!("Carol <b>"), &json!("[x, y]"))
    );
}

#[tokio::test]
async fn rejects_changes_from_page_of_another_site() {
    let (_upstream, simulator, _) = signed_in(&[]).await;
    let mut cross_site = Browser::sending(&[("sec-fetch-site", "cross-site")]);
    let (page, _) = Browser::default().open(&simulator.url("/")).await;
    let mut other_origin = Browser::sending(&[("origin", "http://evil.example")]);
    for url in [
        simulator.elsewhere("/rotate"),
        simulator.elsewhere("/misbehave"),
        page,
    ] {
        assert_eq!(cross_site.post(&url, ANN).await.status, 403, "{url}");
        assert_eq!(other_origin.post(&url, ANN).await.status, 403, "{url}");
    }
}

#[tokio::test]
async fn accepts_own_hosts_only() {
    let (_upstream, simulator, _) = signed_in(&["--host", "Box.example"]).await;
    let addresses = [simulator.0.address(0), simulator.0.address(1)];
    for (host, own) in [
        ("localhost", true),
        ("LOCALHOST:1", true),
        ("127.0.0.1", true),
        ("127.9.9.9:80", true),
        ("[::1]:80", true),
        ("box.example:8080", true),
        ("evil.example", false),
        ("localhost.evil.example", false),
        ("evil.localhost.example", false),
        ("sub.box.example", false),
        ("127.0.0.1.evil.example", false),
        ("192.0.2.1", false),
        ("0.0.0.0", false),
        ("[::]", false),
    ] {
        for (address, otherwise) in addresses.into_iter().zip([302, 200]) {
            let reply = send(address, &Request::get("/", &[("host", host)])).await;
            let reply = reply.expect("an answer");
            let expected = if own { otherwise } else { 421 };
            assert_eq!(reply.status, expected, "{host}: {}", reply.body);
            let names_option = reply.body.contains("with --host ");
            assert_eq!(names_option, !own, "{host}: {}", reply.body);
        }
    }
    for path in ["/rotate", "/misbehave"] {
        let mut rebound = Browser::sending(&[("host", "evil.example")]);
        let reply = rebound.post(&simulator.elsewhere(path), "").await;
        assert_eq!(reply.status, 421, "{path}");
    }
    // Gateways fetch public keys under any name.
    let path = "/us-west-2_EXAMPLE/.well-known/jwks.json";
    let request = Request::get(path, &[("host", "simulator:9000")]);
    let keys = send(addresses[1], &request).await.expect("an answer");
    assert_eq!(keys.status, 200);
}

#[tokio::test]
async fn control_page_confirms_changes() {
    let (_upstream, simulator, _) = signed_in(&[]).await;
    let mut operator = Browser::default();
    let home = operator.get(&simulator.elsewhere("/")).await.body;
    assert!(
        !home.contains("role=\"status\"") && !home.contains("role=\"alert\""),
        "{home}"
    );
    for (path, form, confirms, banner) in [
        ("/rotate", "", "Rotated the keys", None),
        (
            "/misbehave",
            "on=expired-token",
            "Applied. On: expired-token. All others are off.",
            Some("Misbehaviours are on: expired-token."),
        ),
        (
            "/misbehave",
            "on=expired-token&on=key-error",
            "Applied, and rotated the keys. On: expired-token, key-error.",
            Some("Misbehaviours are on: expired-token, key-error."),
        ),
        (
            "/misbehave",
            "",
            "Applied. All misbehaviours are off.",
            None,
        ),
    ] {
        let reply = operator.post(&simulator.elsewhere(path), form).await;
        assert_eq!(reply.status, 303, "{path} {form}");
        let next = simulator.elsewhere(reply.header("location")[0]);
        let page = operator.get(&next).await.body;
        assert!(page.contains(confirms), "{form}: {page}");
        assert!(page.contains("role=\"status\""), "{form}: {page}");
        assert_eq!(page.contains("role=\"alert\""), banner.is_some(), "{form}");
        assert!(page.contains(banner.unwrap_or_default()), "{form}: {page}");
    }
}

/// A copy of `envoy/stack` and its configuration, with `config` changed, a tool that does nothing,
/// and no ports to wait for.
fn stack(from: &str, to: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let root = env!("CARGO_MANIFEST_DIR");
    let path = |name: &str| folder.path().join(name);
    let read = |name: &str| std::fs::read_to_string(format!("{root}/{name}")).expect("a file");
    for directory in ["envoy", "target/debug"] {
        std::fs::create_dir_all(path(directory)).expect("a directory");
    }
    let config = read("envoy/envoy.yaml");
    assert!(config.contains(from), "{from}");
    let config = config.replace(from, to);
    let config = config.replace("port_value: 9901", "port_value: 0");
    std::fs::write(path("envoy/envoy.yaml"), config).expect("a file");
    let ports = r#"([echo]=8081 [simulate]="8080 9000" [envoy]="10000 9901")"#;
    let script = read("envoy/stack");
    assert!(script.contains(ports));
    // Port 1 is never open, so that the script waits for the end of Envoy.
    let script = script.replace(ports, "([echo]= [simulate]= [envoy]=1)");
    std::fs::write(path("envoy/stack"), script).expect("a file");
    std::fs::write(path("envoy/users.yaml"), "[]").expect("a file");
    let link = std::os::unix::fs::symlink::<&Path, _>;
    link(Path::new("/bin/true"), path("target/debug/alb-oidc")).expect("a link");
    link(&support::module(), path("alb_oidc_filter.wasm")).expect("a link");
    folder
}

/// Runs the script, and returns its status and what it says to standard error.
fn run_stack(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let script = std::process::Command::new("bash")
        .arg(folder.join("envoy/stack"))
        .args(arguments)
        .output()
        .expect("bash");
    let said = String::from_utf8_lossy(&script.stderr).into_owned();
    (script.status.code(), said)
}

#[test]
fn stack_shows_the_error_of_the_filter() {
    let envoys = support::envoys();
    let envoy = envoys.last().expect("an Envoy").to_str().expect("a path");
    let folder = stack("\"loadBalancers\"", "\"loadBalancer\"");
    let (status, said) = run_stack(folder.path(), &["up", envoy]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("\nalb-oidc: config rejected: "), "{said}");
    assert!(said.contains("loadBalancer"), "{said}");

    // A mistake that is not the filter's.
    let folder = stack("static_resources:", "static_resource:");
    let (status, said) = run_stack(folder.path(), &["up", envoy]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("static_resource"), "{said}");
    // Envoy has ended: there is nothing to follow.
    let (status, said) = run_stack(folder.path(), &["logs"]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("logs of the last run"), "{said}");
}

#[test]
fn stack_without_up_says_what_to_run() {
    let folder = stack("static_resources:", "static_resources:");
    let (status, said) = run_stack(folder.path(), &["logs"]);
    let expected = "the local stack does not run: run make up first\n";
    assert_eq!((status, said.as_str()), (Some(1), expected));
}

#[tokio::test]
async fn start_up_error_is_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let users = folder.path().join("users.yaml");
    std::fs::write(&users, "- nme: ann\n").expect("a file");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("its address").to_string();
    let free = "127.0.0.1:0";
    for (arguments, says) in [
        (
            ["--listen", free, "--users", users.to_str().unwrap()],
            "unknown field `nme`",
        ),
        (
            ["--listen", &taken, "--token-lifetime", "1"],
            taken.as_str(),
        ),
        (
            ["--listen", free, "--upstream", "https://x/"],
            "expected http://HOST:PORT",
        ),
        (
            ["--listen", free, "--host", "box:8080"],
            "expected a host name without a port",
        ),
        (["--listen", free, "--misbehave", "badly"], "expired-token"),
        (
            ["--listen", free, "--session-cookie", "a=b"],
            "logout.sessionCookie: found \"a=b\", expected a cookie name",
        ),
        (
            ["--listen", free, "--arn", "x"],
            "loadBalancers[0].arn: found \"x\"",
        ),
    ] {
        let tool = tokio::process::Command::new(env!("CARGO_BIN_EXE_alb-oidc"))
            .arg("simulate")
            .args(["--keys-listen", free])
            .args(arguments)
            .output();
        let tool = tokio::time::timeout(Duration::from_secs(5), tool)
            .await
            .expect("an end")
            .expect("alb-oidc");
        let said = String::from_utf8_lossy(&tool.stderr);
        assert_eq!(tool.status.code(), Some(2), "{said}");
        assert!(said.contains(says) && said.lines().count() == 1, "{said}");
    }
}
