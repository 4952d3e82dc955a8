//! What is done with every answer that does not go on, whoever gave it: a page may want it as a script.
//!
//! Pure but for the body, which is taken in whole; it is in memory already.

use axum::body::{Body, to_bytes};
use axum::http::{HeaderValue, Request, header};
use axum::response::Response;

/// Longest name of a function of a page.
const MAX_NAME: usize = 256;

/// What a request wants done with its answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    /// Function of a page that JSON is handed to, as a script.
    callback: Option<String>,
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
        Self {
            callback: given
                .filter(|name| is_name(name) && !is_of_files)
                .map(str::to_owned),
        }
    }

    pub(super) async fn dress(self, answer: Response) -> Response {
        let is_json =
            (answer.headers().get(header::CONTENT_TYPE)).is_some_and(|kind| kind == super::JSON);
        let Some(name) = self.callback.filter(|_| is_json) else {
            return answer;
        };
        let (mut head, body) = answer.into_parts();
        // A body in memory cannot fail.
        let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
        let script = [name.as_bytes(), b"(", &body, b")"].concat();
        let kind = HeaderValue::from_static("text/javascript");
        head.headers.insert(header::CONTENT_TYPE, kind);
        head.headers.remove(header::CONTENT_LENGTH);
        Response::from_parts(head, Body::from(script))
    }
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
            assert_eq!(wishes(none), Wishes::default(), "{none}");
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
            let dressed = futures::executor::block_on(wishes("/x?jsonp=f").dress(answer));
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
