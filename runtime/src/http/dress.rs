//! What is done with every answer that does not go on, whoever gave it: a page may want it as a script, a client that has
//! it already need not have it again, and one that takes gzip gets it so.
//!
//! Bodies are taken in whole; they are in memory already. What takes long is done beside the thread of HTTP, and only so
//! many are compressed at a time: those who wait keep no processor busy.

use std::num::NonZero;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use tokio::sync::Semaphore;

use super::{encoding, tags};

/// Longest name of a function of a page.
const MAX_NAME: usize = 256;

/// Longest body that is dressed on the thread of HTTP, in bytes: that takes well under a millisecond.
const SHORT: usize = 16 << 10;

/// Marks an answer to somebody who has proven who they are. It is no script: a page of any site can have a browser fetch one
/// with the password that it remembers.
#[derive(Clone, Copy)]
pub(super) struct ForWhoHasProven;

/// Where answers of a node get compressed.
pub(super) struct Press(Arc<Semaphore>);

impl Press {
    /// One that leaves half of the processors to others.
    pub(super) fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self(Arc::new(Semaphore::new(processors.div_ceil(2))))
    }

    /// The body in gzip, if it gets shorter so.
    async fn gzip(&self, body: Bytes) -> Option<Vec<u8>> {
        // Until the work is done, whether or not somebody still waits for it.
        let turn = Arc::clone(&self.0).acquire_owned().await.ok()?;
        beside(body, move |body| {
            let shorter = encoding::gzip(body);
            drop(turn);
            shorter
        })
        .await?
    }
}

/// What a request wants done with its answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    /// Function of a page that JSON is handed to, as a script.
    callback: Option<String>,
    /// Whether an answer that the client knows can be left out: it is asked for, and nothing else is to be done.
    is_read: bool,
    /// Tags of answers that the client knows.
    known: String,
    /// Whether gzip is taken.
    gzip: bool,
}

impl Wishes {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        let query = request.uri().query().unwrap_or_default();
        let given = query
            .split('&')
            .rev()
            .find_map(|pair| pair.strip_prefix("jsonp="));
        // A script is for pages of any site, and what is in files is not for them.
        let is_of_files = request.uri().path().contains("files/");
        // What HEAD asks for has no body, but is told of as if it had.
        Self {
            callback: given
                .filter(|name| is_name(name) && !is_of_files)
                .map(str::to_owned),
            is_read: *request.method() == Method::GET,
            gzip: encoding::takes_gzip(&all_of(request.headers(), &header::ACCEPT_ENCODING)),
            known: all_of(request.headers(), &header::IF_NONE_MATCH),
        }
    }

    pub(super) async fn dress(self, answer: Response, press: &Press) -> Response {
        let (mut head, body) = answer.into_parts();
        let kind = head.headers.get(header::CONTENT_TYPE);
        let is_json = kind.is_some_and(|kind| kind == super::JSON);
        let is_compressible = encoding::is_compressible(kind);
        if is_compressible || head.status == StatusCode::NOT_MODIFIED {
            let (name, value) = encoding::VARY;
            head.headers.append(name, value);
        }
        let needs_tag = self.is_read
            && is_json
            && head.status == StatusCode::OK
            && !head.headers.contains_key(header::ETAG);
        let is_for_pages = head.extensions.get::<ForWhoHasProven>().is_none();
        let callback = self.callback.filter(|_| is_json && is_for_pages);
        let wants_gzip = self.gzip && is_compressible;
        if !(needs_tag || callback.is_some() || wants_gzip) {
            return Response::from_parts(head, body);
        }
        // A body in memory cannot fail.
        let mut body = to_bytes(body, usize::MAX).await.unwrap_or_default();
        head.headers.remove(header::CONTENT_LENGTH);
        if let Some(name) = &callback {
            body = [name.as_bytes(), b"(", &body, b")"].concat().into();
            let kind = HeaderValue::from_static("text/javascript");
            head.headers.insert(header::CONTENT_TYPE, kind);
        }
        if needs_tag && let Some(tag) = beside(body.clone(), tags::of_bytes).await {
            if tags::is_among(&tag, &self.known) {
                head.status = StatusCode::NOT_MODIFIED;
                head.headers.remove(header::CONTENT_TYPE);
                body = Bytes::new();
            }
            // It is a word in quotes.
            if let Ok(tag) = HeaderValue::try_from(tag) {
                head.headers.insert(header::ETAG, tag);
            }
        }
        if wants_gzip
            && body.len() >= encoding::LEAST
            && let Some(shorter) = press.gzip(body.clone()).await
        {
            let gzip = HeaderValue::from_static("gzip");
            head.headers.insert(header::CONTENT_ENCODING, gzip);
            body = shorter.into();
        }
        Response::from_parts(head, Body::from(body))
    }
}

/// Does this with a body, beside the thread of HTTP if it takes long; none when the node ends meanwhile.
async fn beside<T: Send + 'static>(
    body: Bytes,
    work: impl FnOnce(&[u8]) -> T + Send + 'static,
) -> Option<T> {
    if body.len() <= SHORT {
        return Some(work(&body));
    }
    tokio::task::spawn_blocking(move || work(&body)).await.ok()
}

/// All values of a header, with commas between.
fn all_of(headers: &HeaderMap, name: &header::HeaderName) -> String {
    let values = headers.get_all(name).iter();
    let values: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
    values.join(", ")
}

/// Whether this names a function and is nothing else: a script of the asker's own is not sent back from here.
fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '.' | '[' | ']');
    text.len() <= MAX_NAME && text.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes(target: &str) -> Wishes {
        Wishes::of(&Request::get(target).body(()).unwrap())
    }

    #[test]
    fn a_page_names_a_function_and_nothing_else() {
        assert_eq!(wishes("/state?jsonp=a.b[0]").callback.unwrap(), "a.b[0]");
        assert_eq!(wishes("/state?x=1&jsonp=").callback.unwrap(), "");
        assert_eq!(wishes("/state?jsonp=a&jsonp=b").callback.unwrap(), "b");
        for none in [
            "/files/read?path=/x&jsonp=f",
            "/slave(1)/files/read?jsonp=f",
            "/state",
            "/state?x",
            "/state?jsonp",
            "/state?jsonp=alert(1)//",
            "/state?jsonp=%3Cb%3E",
        ] {
            assert_eq!(wishes(none).callback, None, "{none}");
        }
    }

    #[test]
    fn json_becomes_a_script_and_other_answers_stay() {
        let dressed = |kind: &'static str| {
            let answer = Response::builder()
                .header(header::CONTENT_TYPE, kind)
                .header(header::CONTENT_LENGTH, 2)
                .body(Body::from("{}"))
                .unwrap();
            let dressed =
                futures::executor::block_on(wishes("/x?jsonp=f").dress(answer, &Press::new()));
            let (head, body) = dressed.into_parts();
            let body = futures::executor::block_on(to_bytes(body, 100)).unwrap();
            let kind = head.headers[header::CONTENT_TYPE]
                .to_str()
                .unwrap()
                .to_owned();
            (kind, String::from_utf8(body.to_vec()).unwrap())
        };
        assert_eq!(
            dressed("application/json"),
            ("text/javascript".into(), "f({})".into())
        );
        assert_eq!(dressed("text/plain"), ("text/plain".into(), "{}".into()));
    }
}
