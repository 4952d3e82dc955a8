//! `/help`, as Mesos has it, and `/openapi.json`, both from the table of what is served. Pure, but for [`entries`].

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::access::Realm;
use super::own;
use super::{Response, about::About};
use crate::node::NodeHandle;

/// Media type of texts about endpoints.
pub(super) const MARKDOWN: &str = "text/x-markdown";

/// One endpoint of a node.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Who serves it: the id of a process, or the first part of one of the node's own paths.
    id: String,
    /// Path below that, beginning with `/`; empty for the id itself.
    path: String,
    /// Whether it is also reached without the id.
    is_of_delegate: bool,
    realm: Realm,
    about: About,
}

/// All endpoints of a node, in the order of their paths.
pub(super) fn entries(node: &NodeHandle) -> Vec<Entry> {
    let mut all: Vec<Entry> = Vec::new();
    for own in own::ALL {
        let Some(about) = own.about else {
            continue;
        };
        let (id, path) = super::split_path(own.path);
        all.push(Entry {
            id: id.to_owned(),
            path: path.to_owned(),
            is_of_delegate: false,
            realm: own.realm,
            about,
        });
    }
    for (id, is_of_delegate, path, served) in node.all_served() {
        all.push(Entry {
            id,
            path: path.to_owned(),
            is_of_delegate,
            realm: served.realm,
            about: served.about,
        });
    }
    all.sort_by(|a, b| (&a.id, &a.path).cmp(&(&b.id, &b.path)));
    all
}

impl Entry {
    fn whole_path(&self) -> String {
        format!("/{}{}", self.id, self.path)
    }

    /// Name within its id.
    fn name(&self) -> &str {
        if self.path.is_empty() {
            "/"
        } else {
            &self.path
        }
    }

    fn text(&self) -> String {
        let mut text = "### USAGE ###\n".to_owned();
        if self.is_of_delegate {
            text += &format!(">        {}\n", self.name());
        }
        text += &format!(">        {}\n\n", self.whole_path());
        text += &format!("### TL;DR; ###\n{}.\n\n", self.about.summary);
        text += &format!(
            "### DESCRIPTION ###\nMethods: {}.\n",
            self.about.methods.join(", ")
        );
        if !self.about.description.is_empty() {
            text += &format!("\n{}\n", self.about.description);
        }
        if !self.about.parameters.is_empty() {
            text += "\nQuery parameters:\n\n";
            for (name, what) in self.about.parameters {
                text += &format!(">        {name}={}\n", what);
            }
        }
        for (what, types) in [("Takes", self.about.takes), ("Gives", self.about.gives)] {
            if !types.is_empty() {
                text += &format!("\n{what}: {}.\n", types.join(", "));
            }
        }
        text += "\n### AUTHENTICATION ###\n";
        text += &match self.realm {
            Realm::Open => "Nobody has to prove who they are.\n".to_owned(),
            realm @ (Realm::ReadOnly | Realm::ReadWrite | Realm::Own(_)) => format!(
                "Needs a principal where realm `{}` is guarded.\n",
                realm.name()
            ),
        };
        text
    }
}

/// The answer to a request for `path`, which begins with `/help`.
pub(super) fn answer(all: &[Entry], path: &str, query: &BTreeMap<String, String>) -> Response {
    let ids: BTreeSet<&str> = all.iter().map(|one| &*one.id).collect();
    let rest = path.strip_prefix("/help").unwrap_or_default();
    let rest = rest.strip_prefix('/').unwrap_or(rest);
    if rest.is_empty() {
        return if query.get("format").is_some_and(|format| format == "json") {
            Response::json(&as_json(all, &ids))
        } else {
            let names = ids.iter().map(|id| (format!("/{id}"), (*id).to_owned()));
            markdown(&listing("## HELP", names.collect(), "help/"))
        };
    }
    let (id, below) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if !ids.contains(id) {
        return Response::text(404, "404 Not Found.");
    }
    let of_id = || all.iter().filter(|one| one.id == id);
    if below.is_empty() {
        let names: Vec<(String, String)> = of_id()
            .map(|one| (one.whole_path(), format!("{}{}", one.id, one.path)))
            .collect();
        // What has one page only, under its own name, has no list to show.
        if let [(_, only)] = &names[..]
            && only == id
            && let Some(one) = of_id().next()
        {
            return markdown(&one.text());
        }
        return markdown(&listing(&format!("## `/{id}` ##"), names, ""));
    }
    match of_id().find(|one| one.name() == below) {
        Some(one) => markdown(&one.text()),
        None => Response::text(400, format!("No help available for '/{id}{below}'.\n")),
    }
}

fn markdown(text: &str) -> Response {
    Response::body(MARKDOWN, text.to_owned())
}

/// A heading, a line for each name, and where each leads.
fn listing(heading: &str, names: Vec<(String, String)>, above: &str) -> String {
    let mut text = format!("{heading}\n");
    for (shown, name) in &names {
        text += &format!("> [{shown}][{name}]\n");
    }
    text.push('\n');
    for (_, name) in &names {
        // Relative to the page.
        text += &format!("[{name}]: {above}{name}\n");
    }
    text
}

fn as_json(all: &[Entry], ids: &BTreeSet<&str>) -> Value {
    let of = |id: &str| -> Vec<Value> {
        let own = all.iter().filter(|one| one.id == id);
        own.map(|one| json!({ "name": one.name(), "text": one.text() }))
            .collect()
    };
    let processes: Vec<Value> = ids
        .iter()
        .map(|id| json!({ "id": id, "endpoints": of(id) }))
        .collect();
    json!({ "processes": processes })
}

/// The same as OpenAPI 3.1.
pub(super) fn openapi(all: &[Entry]) -> Value {
    let mut paths = Map::new();
    for one in all {
        let mut item = Map::new();
        for method in one.about.methods {
            item.insert(
                method.to_lowercase(),
                operation(one, method, &one.whole_path()),
            );
        }
        paths.insert(one.whole_path(), Value::Object(item));
        if one.is_of_delegate && !paths.contains_key(one.name()) {
            let mut item = Map::new();
            for method in one.about.methods {
                item.insert(method.to_lowercase(), operation(one, method, one.name()));
            }
            paths.insert(one.name().to_owned(), Value::Object(item));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Meseta",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What this node serves over HTTP. The calls of POST /api/v1 and of the APIs for schedulers and \
                            executors are those of Mesos 1.11.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "securitySchemes": {
                "basic": { "type": "http", "scheme": "basic" },
                "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" },
            },
        },
    })
}

fn content(types: &[&str]) -> Value {
    let each = types.iter().map(|one| ((*one).to_owned(), json!({})));
    Value::Object(each.collect())
}

fn operation(one: &Entry, method: &str, path: &str) -> Value {
    let about = &one.about;
    let mut answer = Map::from_iter([("description".to_owned(), json!("What was asked for"))]);
    if !about.gives.is_empty() {
        answer.insert("content".to_owned(), content(about.gives));
    }
    let refused = json!({ "description": "Why not, as text" });
    let mut responses = Map::from_iter([
        ("2XX".to_owned(), Value::Object(answer)),
        ("4XX".to_owned(), refused.clone()),
        ("503".to_owned(), refused),
    ]);
    if one.is_of_delegate && one.realm != Realm::Open {
        let moved = json!({ "description": "Another master leads: see Location" });
        responses.insert("307".to_owned(), moved);
    }
    let parameters = about.parameters.iter().map(|(name, what)| {
        json!({ "name": name, "in": "query", "description": what, "schema": { "type": "string" } })
    });
    let mut all = Map::from_iter([
        ("summary".to_owned(), json!(about.summary)),
        (
            "operationId".to_owned(),
            json!(format!("{} {path}", method.to_lowercase())),
        ),
        ("tags".to_owned(), json!([one.id])),
        ("parameters".to_owned(), Value::Array(parameters.collect())),
        ("responses".to_owned(), Value::Object(responses)),
        ("x-realm".to_owned(), json!(one.realm.name())),
        // Where the realm is guarded; else none is needed.
        (
            "security".to_owned(),
            match one.realm {
                Realm::Open => json!([]),
                Realm::ReadOnly | Realm::ReadWrite | Realm::Own(_) => {
                    json!([{}, { "basic": [] }, { "bearer": [] }])
                }
            },
        ),
    ]);
    if !about.description.is_empty() {
        all.insert("description".to_owned(), json!(about.description));
    }
    if !about.takes.is_empty() && method != "GET" {
        let body = json!({ "required": true, "content": content(about.takes) });
        all.insert("requestBody".to_owned(), body);
    }
    Value::Object(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Vec<Entry> {
        let entry = |id: &str, path: &str, is_of_delegate, realm, about| Entry {
            id: id.to_owned(),
            path: path.to_owned(),
            is_of_delegate,
            realm,
            about,
        };
        vec![
            entry(
                "master",
                "/api/v1",
                true,
                Realm::ReadWrite,
                About::call("Calls of operators"),
            ),
            entry(
                "master",
                "/tasks",
                true,
                Realm::ReadOnly,
                About::read("All tasks")
                    .saying("Newest first.")
                    .with(&[("limit", "How many")]),
            ),
            entry(
                "version",
                "",
                false,
                Realm::Open,
                About::read("Version of the program"),
            ),
        ]
    }

    fn ask(path: &str) -> (u16, Option<&'static str>, String) {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let query = query
            .split_once('=')
            .map(|(k, v)| (k.to_owned(), v.to_owned()));
        let answer = answer(&table(), path, &query.into_iter().collect());
        let body = String::from_utf8(answer.body.to_vec()).unwrap();
        (answer.status, answer.content_type, body)
    }

    #[test]
    fn help_lists_and_tells_as_in_mesos() {
        let (status, kind, text) = ask("/help");
        assert_eq!((status, kind), (200, Some(MARKDOWN)));
        let expected = "## HELP\n> [/master][master]\n> [/version][version]\n\n[master]: help/master\n\
                        [version]: help/version\n";
        assert_eq!(text, expected);
        assert_eq!(ask("/help/"), ask("/help"));
        let expected = "## `/master` ##\n> [/master/api/v1][master/api/v1]\n> [/master/tasks][master/tasks]\n\n\
                        [master/api/v1]: master/api/v1\n[master/tasks]: master/tasks\n";
        assert_eq!(ask("/help/master").2, expected);
        let text = ask("/help/master/tasks").2;
        let expected = "### USAGE ###\n>        /tasks\n>        /master/tasks\n\n### TL;DR; ###\nAll tasks.\n";
        assert!(text.starts_with(expected), "{text}");
        assert!(
            text.contains("limit=How many") && text.contains("`readonly`"),
            "{text}"
        );
        assert!(ask("/help/version").2.contains("/version"));
        assert_eq!(ask("/help/nobody").0, 404);
        let none = (400, "No help available for '/master/nothing'.\n".to_owned());
        let (status, _, text) = ask("/help/master/nothing");
        assert_eq!((status, text), none);
        let (status, kind, text) = ask("/help?format=json");
        assert_eq!((status, kind), (200, Some(super::super::JSON)));
        let all: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(all["processes"][0]["endpoints"][0]["name"], "/api/v1");
        assert_eq!(all["processes"][1]["endpoints"][0]["name"], "/");
    }

    #[test]
    fn openapi_says_of_every_path_what_its_standard_requires() {
        let document = openapi(&table());
        assert_eq!(document["openapi"], "3.1.0");
        let paths = document["paths"].as_object().unwrap();
        let names: Vec<&String> = paths.keys().collect();
        assert_eq!(
            names,
            [
                "/api/v1",
                "/master/api/v1",
                "/master/tasks",
                "/tasks",
                "/version"
            ]
        );
        let mut ids = BTreeSet::new();
        for operation in paths
            .values()
            .flat_map(|item| item.as_object().unwrap().values())
        {
            assert!(ids.insert(operation["operationId"].as_str().unwrap()));
            assert!(!operation["responses"].as_object().unwrap().is_empty());
            for response in operation["responses"].as_object().unwrap().values() {
                assert!(response["description"].is_string());
            }
        }
        let tasks = &paths["/tasks"]["get"];
        assert_eq!(tasks["parameters"][0]["in"], "query");
        assert_eq!(tasks["x-realm"], "readonly");
        let call = &paths["/api/v1"]["post"];
        assert!(call["requestBody"]["content"]["application/x-protobuf"].is_object());
        assert_eq!(paths["/version"]["get"]["security"], json!([]));
    }
}
