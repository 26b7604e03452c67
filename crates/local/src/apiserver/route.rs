//! From an HTTP request to the call that answers it.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, Request, header};

use super::App;
use super::auth::User;
use super::body;
use super::call::{Call, Outcome, json_response, warn};
use super::delete::Options;
use super::discovery;
use super::request::{Path, Query, ResourcePath};
use super::review;
use super::status::Failure;
use super::view::{self, Form};
use super::write_options;
use crate::machinery::kinds::{Subresource, Verb};

type Body = axum::body::Body;

/// Answers a request.
pub(crate) async fn handle(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    answer(app, request).await.unwrap_or_else(IntoResponse::into_response)
}

async fn answer(app: Arc<App>, request: Request<Body>) -> Result<Response, Failure> {
    let path = Path::parse(request.uri().path());
    let get = request.method() == Method::GET || request.method() == Method::HEAD;
    match path {
        Path::Version if get => return Ok(json_response(200, &discovery::version())),
        Path::Health if get => return Ok("ok".into_response()),
        _ => {}
    }
    let user = request.extensions().get::<User>().cloned();
    let user = user
        .or_else(|| app.tokens.user(request.headers()))
        .ok_or_else(Failure::unauthorized)?;
    if get && request.uri().path() == "/openapi/v2" {
        // kubectl asks it for what the third version does not have. It describes nothing, so that kubectl goes on to say what
        // it does not find.
        let media = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
        return Ok(([(header::CONTENT_TYPE, media)], &b"\x0a\x032.0"[..]).into_response());
    }
    if path.group().is_none_or(|group| !app.table().serves(group)) {
        return Ok((http::StatusCode::NOT_FOUND, "404 page not found\n").into_response());
    }
    if let Path::Resource(path) = path {
        return resource(app, user, path, request).await;
    }
    if !get {
        return Err(Failure::method_not_allowed());
    }
    let accept = text(request.headers(), &header::ACCEPT);
    discover(&app, &path, &accept)
}

fn text(headers: &HeaderMap, name: &header::HeaderName) -> String {
    let values = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
    values.collect::<Vec<_>>().join(",")
}

fn discover(app: &App, path: &Path, accept: &str) -> Result<Response, Failure> {
    let table = app.table();
    let whole = |core: bool| {
        let mut response = json_response(200, &discovery::aggregated(&table, core));
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(discovery::AGGREGATED));
        response
    };
    let aggregated = discovery::wants_aggregated(accept);
    let found = match path {
        Path::CoreVersions if aggregated => return Ok(whole(true)),
        Path::Groups if aggregated => return Ok(whole(false)),
        Path::CoreVersions => Some(discovery::core_versions(&app.address)),
        Path::Groups => Some(discovery::groups(&table)),
        Path::Group(group) => discovery::group(&table, group),
        Path::Resources { group, version } => discovery::resources(&table, group, version),
        Path::OpenApiIndex => Some(discovery::openapi_index(&table)),
        Path::OpenApi(group_version) => discovery::openapi_document(&table, group_version),
        _ => None,
    };
    found
        .map(|body| json_response(200, &body))
        .ok_or_else(Failure::no_route)
}

async fn resource(app: Arc<App>, user: User, path: ResourcePath, request: Request<Body>) -> Result<Response, Failure> {
    let table = app.table();
    let resource = table
        .find(&path.group, &path.version, &path.plural)
        .cloned()
        .ok_or_else(Failure::no_route)?;
    let kind = &resource.kind;
    let subresource = match &path.subresource {
        None => None,
        Some(word) => {
            let found = Subresource::from_path(word).filter(|s| kind.has(*s));
            Some(found.ok_or_else(Failure::no_route)?)
        }
    };
    if path.namespace.is_some() && !kind.namespaced {
        return Err(Failure::no_route());
    }
    if path.namespace.is_none() && kind.namespaced && path.name.is_some() {
        return Err(Failure::no_route());
    }
    let (parts, body) = request.into_parts();
    let call = Call {
        app,
        user,
        namespace: path.namespace.unwrap_or_default(),
        name: path.name.unwrap_or_default(),
        subresource,
        query: Query::parse(parts.uri.query()),
        user_agent: text(&parts.headers, &header::USER_AGENT),
        accept: text(&parts.headers, &header::ACCEPT),
        resource,
    };
    if let Some(subresource @ (Subresource::PortForward | Subresource::Exec | Subresource::Attach)) = call.subresource {
        return call.stream(subresource, parts).await;
    }
    let content_type = text(&parts.headers, &header::CONTENT_TYPE);
    let bytes = if parts.method == Method::GET {
        bytes::Bytes::new()
    } else {
        body::read(body).await?
    };
    let kind = &call.resource.kind;
    let deprecation = match &call.resource.custom {
        Some(custom) => custom.deprecation(kind),
        None => kind.deprecation().map(str::to_owned),
    };
    let answer = if call.name.is_empty() {
        collection(call, &parts.method, &bytes, &content_type).await
    } else {
        object(call, &parts.method, &bytes, &content_type).await
    };
    let Some(warning) = deprecation else { return answer };
    let mut response = answer.unwrap_or_else(IntoResponse::into_response);
    warn(&mut response, &[warning]);
    Ok(response)
}

async fn collection(call: Call, method: &Method, bytes: &[u8], content_type: &str) -> Result<Response, Failure> {
    let kind = &call.resource.kind;
    let verb = match *method {
        Method::GET if call.query.flag("watch") => Verb::Watch,
        Method::GET => Verb::List,
        Method::POST => Verb::Create,
        Method::DELETE => Verb::DeleteCollection,
        _ => return Err(Failure::method_not_allowed()),
    };
    if !kind.allows(verb) {
        return Err(Failure::method_not_allowed());
    }
    if !kind.is_stored() {
        let review = call.body(bytes, content_type, write_options::Kind::Create)?;
        let outcome = review::answer(&call, review.value).await?;
        return show(&call, &outcome);
    }
    match *method {
        Method::GET if verb == Verb::Watch => call.watch(),
        Method::GET => call.list(),
        Method::POST => {
            if kind.namespaced && call.namespace.is_empty() {
                return Err(Failure::method_not_allowed());
            }
            let outcome = call
                .create(call.body(bytes, content_type, write_options::Kind::Create)?)
                .await?;
            show(&call, &outcome)
        }
        Method::DELETE => {
            let options = delete_options(&call, bytes, content_type)?;
            call.delete_collection(&options).await
        }
        _ => Err(Failure::method_not_allowed()),
    }
}

fn delete_options(call: &Call, bytes: &[u8], content_type: &str) -> Result<Options, Failure> {
    let body = if bytes.is_empty() {
        None
    } else {
        Some(body::object(bytes, content_type, "DeleteOptions")?.value)
    };
    Options::parse(call, body.as_ref())
}

async fn object(call: Call, method: &Method, bytes: &[u8], content_type: &str) -> Result<Response, Failure> {
    use Subresource::{Binding, Eviction, Finalize, Log, Scale, Status};
    if !call.resource.kind.is_stored() {
        return Err(Failure::no_route());
    }
    if call.subresource.is_none() {
        let verb = match *method {
            Method::PUT => Verb::Update,
            Method::PATCH => Verb::Patch,
            Method::DELETE => Verb::Delete,
            _ => Verb::Get,
        };
        if !call.resource.kind.allows(verb) {
            return Err(Failure::method_not_allowed());
        }
    }
    let outcome = match (call.subresource, method) {
        (None | Some(Status), &Method::GET) => return call.read(),
        (None | Some(Status), &Method::PUT) => {
            call.replace(call.body(bytes, content_type, write_options::Kind::Update)?)
                .await?
        }
        (None | Some(Status), &Method::PATCH) => call.patch(bytes, content_type).await?,
        (None, &Method::DELETE) => call.delete(&delete_options(&call, bytes, content_type)?).await?,
        (Some(Scale), &Method::GET) => return Ok(json_response(200, &call.read_scale()?)),
        (Some(Scale), &Method::PUT | &Method::PATCH) => {
            let outcome = call.write_scale(bytes, content_type, *method == Method::PUT).await?;
            return Ok(json_response(outcome.code, &outcome.object));
        }
        (Some(Log), &Method::GET) => return call.log().await,
        (Some(Eviction), &Method::POST) => {
            call.evict(&body::object(bytes, content_type, "Eviction")?.value)
                .await?
        }
        (Some(Binding), &Method::POST) => call.bind(&body::object(bytes, content_type, "Binding")?.value).await?,
        (Some(Finalize), &Method::PUT) => {
            call.replace(call.body(bytes, content_type, write_options::Kind::Update)?)
                .await?
        }
        _ => return Err(Failure::method_not_allowed()),
    };
    show(&call, &outcome)
}

/// The outcome of a write, in the form that the client accepts.
fn show(call: &Call, outcome: &Outcome) -> Result<Response, Failure> {
    let is_status = super::object::str_at(&outcome.object, "/kind") == "Status";
    let mut response = if is_status {
        json_response(outcome.code, &outcome.object)
    } else {
        let form = Form::negotiate(&call.accept)?;
        let include = call.query.get("includeObject");
        json_response(outcome.code, &view::one(&call.resource, &outcome.object, form, include))
    };
    warn(&mut response, &outcome.warnings);
    Ok(response)
}
