//! The local stack in a real browser: Chromium through its WebDriver, on the services that `make
//! up` started. Leaves screenshots in `target/browser`. Other tests cover headers and tokens.

use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, MutexGuard};

const FRONT: &str = "http://localhost:8080";
const OPERATOR: &str = "http://localhost:9000";

/// The deadline for a page to show something.
const PATIENCE: Duration = Duration::from_secs(60);

/// Locked by each test: the misbehaviours are shared.
static TURN: Mutex<()> = Mutex::const_new(());

/// A browser with an empty profile, closed when dropped.
struct Browser {
    client: Client,
    _driver: Child,
    _turn: MutexGuard<'static, ()>,
}

impl Browser {
    async fn open() -> Browser {
        let turn = TURN.lock().await;
        tokio::net::TcpStream::connect("127.0.0.1:8080")
            .await
            .expect("the local stack; run `make test-browser`, which starts it");
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("chromedriver; run `make test-browser`, which installs it");
        let mut lines = BufReader::new(driver.stdout.take().expect("its output")).lines();
        let port = loop {
            let line = lines
                .next_line()
                .await
                .expect("its output")
                .expect("the port that it listens on");
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                break port.trim_end_matches('.').to_owned();
            }
        };
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        // Chromium's own sandbox needs rights that containers and root lack.
        let options = json!({"args": ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=900,1000"]});
        let capabilities = [("goog:chromeOptions".to_owned(), options)]
            .into_iter()
            .collect();
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .expect("a browser");
        Browser {
            client,
            _driver: driver,
            _turn: turn,
        }
    }

    async fn goto(&self, url: &str) {
        self.client
            .goto(url)
            .await
            .unwrap_or_else(|error| panic!("{url}: {error}"));
    }

    /// Clicks the first match of this CSS selector.
    async fn click(&self, selector: &str) {
        self.client
            .find(Locator::Css(selector))
            .await
            .unwrap_or_else(|error| panic!("{selector}: {error}"))
            .click()
            .await
            .expect("a click");
    }

    /// Clicks a link or button that leads to another page, and waits until that page has loaded.
    ///
    /// WebDriver's click does not wait for the answer to a form. A `goto` right after it would
    /// start a second navigation, and the browser may end on either page.
    async fn follow(&self, selector: &str) {
        let left = "document.documentElement.dataset.left = 'yes'";
        self.client
            .execute(left, Vec::new())
            .await
            .expect("a mark on the page");
        self.click(selector).await;
        let arrived =
            "return document.readyState === 'complete' && !document.documentElement.dataset.left";
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            // A script that coincides with a navigation fails. It is repeated on the next page.
            if self
                .client
                .execute(arrived, Vec::new())
                .await
                .is_ok_and(|arrived| arrived == Value::Bool(true))
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!(
            "{selector} leads to no other page from {}",
            self.url().await
        )
    }

    async fn type_in(&self, selector: &str, text: &str) {
        let field = self
            .client
            .find(Locator::Css(selector))
            .await
            .unwrap_or_else(|error| panic!("{selector}: {error}"));
        field.clear().await.expect("an empty field");
        field.send_keys(text).await.expect("to type");
    }

    /// Waits until the page's text contains this, and returns the text.
    async fn shows(&self, expected: &str) -> String {
        let mut text = String::new();
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Ok(body) = self.client.find(Locator::Css("body")).await {
                text = body.text().await.unwrap_or_default();
            }
            if text.contains(expected) {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("no {expected:?} on {}:\n{text}", self.url().await)
    }

    async fn url(&self) -> String {
        self.client
            .current_url()
            .await
            .expect("an address")
            .to_string()
    }

    /// The argument that a script on the page passes to its callback.
    async fn script(&self, script: &str) -> Value {
        self.client
            .execute_async(script, Vec::new())
            .await
            .expect("the script's answer")
    }

    async fn sign_in(&self, name: &str) {
        self.shows("Sign in").await;
        self.follow(&format!("button[value='{name}']")).await;
    }

    async fn screenshot(&self, name: &str) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/browser");
        std::fs::create_dir_all(&folder).expect("the folder for screenshots");
        let picture = self.client.screenshot().await.expect("a screenshot");
        std::fs::write(folder.join(format!("{name}.png")), picture).expect("the screenshot's file");
    }

    async fn close(self) {
        self.client.close().await.expect("the browser's end");
    }
}

#[tokio::test]
async fn signed_in_user_reaches_the_service() {
    let browser = Browser::open().await;
    browser.goto(&format!("{FRONT}/dashboard?tab=1")).await;
    browser.shows("There are no passwords").await;
    assert!(
        browser
            .url()
            .await
            .starts_with(&format!("{OPERATOR}/idp/authorize?"))
    );
    browser.screenshot("1-sign-in").await;
    browser.sign_in("ann@example.com").await;
    let page = browser.shows("You are ann@example.com").await;
    assert_eq!(browser.url().await, format!("{FRONT}/dashboard?tab=1"));
    assert!(
        page.contains("x-user-name Ann Example") && page.contains("data-science"),
        "{page}"
    );
    assert!(
        !page.contains("x-amzn-oidc") && !page.contains("AWSELBAuthSessionCookie"),
        "{page}"
    );
    browser.screenshot("2-signed-in").await;
    browser.follow("a[href='/admin/']").await;
    browser.shows("GET /admin/").await;
    browser.close().await;
}

#[tokio::test]
async fn denied_user_sees_the_reason() {
    let browser = Browser::open().await;
    browser.goto(FRONT).await;
    browser.sign_in("bob@example.com").await;
    browser.shows("You are bob@example.com").await;
    browser.follow("a[href='/public/']").await;
    browser.shows("No user").await;
    browser.screenshot("3-open-to-all").await;
    browser.follow("a[href='/admin/']").await;
    browser.shows("user-not-allowed").await;
    browser.screenshot("4-not-allowed").await;
    // The page's own sign-out link.
    browser.follow("a[href='/logout']").await;
    browser.shows("You are signed out").await;
    browser.close().await;
}

#[tokio::test]
async fn sign_out_requires_a_new_sign_in() {
    let browser = Browser::open().await;
    browser.goto(FRONT).await;
    browser.sign_in("ann@example.com").await;
    browser.shows("You are ann@example.com").await;
    browser.follow("a[href='/logout']").await;
    browser.shows("You are signed out").await;
    browser.screenshot("5-signed-out").await;
    browser.follow("a.button").await;
    browser.shows("There are no passwords").await;
    browser.close().await;
}

#[tokio::test]
async fn users_see_pages_for_expired_tokens_and_outages() {
    let browser = Browser::open().await;
    browser.goto(FRONT).await;
    browser.sign_in("ann@example.com").await;
    browser.shows("You are ann@example.com").await;
    for (switch, title, reason) in [
        ("expired-token", "Please sign in", "token-expired"),
        ("key-error", "Please try again", "key-unavailable"),
    ] {
        browser.goto(OPERATOR).await;
        browser.click(&format!("input[value='{switch}']")).await;
        browser.follow("button.primary").await;
        browser
            .client
            .wait()
            .for_element(Locator::Css(&format!("input[value='{switch}'][checked]")))
            .await
            .expect("switched on");
        browser.screenshot(&format!("6-operator-{switch}")).await;
        browser.goto(FRONT).await;
        let page = browser.shows(reason).await;
        assert!(page.contains(title), "{page}");
        browser.screenshot(&format!("7-{reason}")).await;
        browser.goto(OPERATOR).await;
        browser.click(&format!("input[value='{switch}']")).await;
        browser.follow("button.primary").await;
        browser
            .client
            .wait()
            .for_element(Locator::Css(&format!(
                "input[value='{switch}']:not([checked])"
            )))
            .await
            .expect("switched off");
        browser.follow("form[action='/rotate'] button").await;
        browser.goto(FRONT).await;
        browser.shows("You are ann@example.com").await;
    }
    browser.close().await;
}

#[tokio::test]
async fn new_user_form_reports_mistakes() {
    let browser = Browser::open().await;
    browser.goto(FRONT).await;
    browser.shows("Another user").await;
    browser
        .type_in("input[name=name]", "dora@example.com")
        .await;
    browser.type_in("input[name=groups]", "admins").await;
    browser.type_in("textarea", "{name: Dora}").await;
    browser.follow("button.primary").await;
    browser.shows("expected a JSON object").await;
    browser.screenshot("8-typed-wrong").await;
    browser.type_in("textarea", "{\"name\": \"Dora\"}").await;
    browser.follow("button.primary").await;
    browser.shows("You are dora@example.com").await;
    browser.close().await;
}

#[tokio::test]
async fn websocket_works_and_scripts_fail_after_sign_out() {
    let browser = Browser::open().await;
    browser.goto(FRONT).await;
    browser.sign_in("ann@example.com").await;
    browser.shows("You are ann@example.com").await;
    let answer = browser
        .script(
            "const done = arguments[0], socket = new WebSocket('ws://localhost:8080/socket');
             socket.onopen = () => socket.send('hello');
             socket.onmessage = message => done(message.data);
             socket.onerror = () => done('refused');",
        )
        .await;
    assert_eq!(answer, "hello");
    let fetch = "const done = arguments[0]; fetch('/api').then(answer => done(answer.status), () => done('failed'))";
    assert_eq!(browser.script(fetch).await, 200);
    browser
        .client
        .delete_cookie("AWSELBAuthSessionCookie-0")
        .await
        .expect("a cookie less");
    // The redirect to another origin, which is also the ALB's answer to scripts.
    assert_eq!(browser.script(fetch).await, "failed");
    browser.close().await;
}
