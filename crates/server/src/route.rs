//! Every route there is, and who may call it.

use http::Method;

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anyone.
    Open,
    /// Any key; without keys configured, anyone.
    AnyKey,
    /// The operator's keys; a client key is told that it is not enough.
    Operator,
}

/// One route.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Its method.
    pub method: &'static str,
    /// Its path; `{id}` stands for the rest of the path.
    pub path: &'static str,
    /// Who may call it.
    pub access: Access,
    /// What it does, in a sentence, for the description of the API.
    pub summary: &'static str,
    pub(crate) target: Target,
}

/// What a route leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    ChatCompletions,
    Models,
    Model,
    Health,
    Ready,
    Metrics,
    Quotas,
    Deployments,
    Requests,
    Request,
    Usage,
    Explain,
    OpenApi,
}

/// Every route.
pub const ROUTES: &[Route] = &[
    route("POST", "/v1/chat/completions", Access::AnyKey, Target::ChatCompletions, "OpenAI's chat completions"),
    route("GET", "/v1/models", Access::AnyKey, Target::Models, "What can be called, and what each can do"),
    route("GET", "/v1/models/{id}", Access::AnyKey, Target::Model, "One model or alias"),
    route("GET", "/healthz", Access::Open, Target::Health, "Whether the process runs"),
    route("GET", "/readyz", Access::Open, Target::Ready, "Whether requests are taken"),
    route("GET", "/metrics", Access::Operator, Target::Metrics, "Counts in Prometheus' text format"),
    route("GET", "/freeway/v1/quotas", Access::Operator, Target::Quotas, "Every limit and pause as it stands"),
    route("GET", "/freeway/v1/deployments", Access::Operator, Target::Deployments, "Every deployment with its facts"),
    route("GET", "/freeway/v1/requests", Access::AnyKey, Target::Requests, "Requests, newest first"),
    route(
        "GET",
        "/freeway/v1/requests/{id}",
        Access::AnyKey,
        Target::Request,
        "One request: candidates, attempts, cost",
    ),
    route("GET", "/freeway/v1/usage", Access::Operator, Target::Usage, "Use and cost by provider, model, key or day"),
    route(
        "POST",
        "/freeway/v1/explain",
        Access::Operator,
        Target::Explain,
        "The plan for a request body; nothing is sent",
    ),
    route("GET", "/freeway/v1/openapi.json", Access::Operator, Target::OpenApi, "This description"),
];

const fn route(
    method: &'static str,
    path: &'static str,
    access: Access,
    target: Target,
    summary: &'static str,
) -> Route {
    Route { method, path, access, summary, target }
}

/// What came of looking for a route.
pub(crate) enum Found<'a> {
    /// The route, and what stands in its `{id}`.
    Route(&'static Route, &'a str),
    /// The path is there, for these other methods.
    OtherMethod(String),
    Nothing,
}

pub(crate) fn find<'a>(method: &Method, path: &'a str) -> Found<'a> {
    let mut others = Vec::new();
    for route in ROUTES {
        let rest = match route.path.strip_suffix("{id}") {
            Some(prefix) => path.strip_prefix(prefix).filter(|rest| !rest.is_empty()),
            None => (path == route.path).then_some(""),
        };
        if let Some(rest) = rest {
            if method.as_str() == route.method {
                return Found::Route(route, rest);
            }
            others.push(route.method);
        }
    }
    if others.is_empty() { Found::Nothing } else { Found::OtherMethod(others.join(", ")) }
}
