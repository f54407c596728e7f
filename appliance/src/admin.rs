//! The admin port: `/livez` (which some tools know as `/healthz`), `/readyz` and `/metrics`.

use std::sync::Arc;

use futures_util::{FutureExt as _, future::BoxFuture};
use http::{Method, StatusCode};
use prometheus::{Registry, TextEncoder};
use tokio::{net::TcpStream, sync::watch};

use crate::{
    accept::{Handler, Visit},
    http_service::{self, Answer, answer, text},
};

/// How far the process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Starting,
    Ready,
    /// Told to stop; running requests go on.
    Draining,
}

/// Answers on the admin port.
#[derive(Debug)]
pub(crate) struct Admin {
    registry: Registry,
    phase: watch::Receiver<Phase>,
}

// === impl Admin ===

impl Admin {
    pub(crate) fn new(registry: Registry, phase: watch::Receiver<Phase>) -> Arc<Self> {
        Arc::new(Self { registry, phase })
    }

    fn answer(&self, method: &Method, path: &str) -> Answer {
        if *method != Method::GET && *method != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        }
        match path {
            "/livez" | "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => match *self.phase.borrow() {
                Phase::Ready => text(StatusCode::OK, "ok\n"),
                Phase::Starting => text(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
                Phase::Draining => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
            },
            "/metrics" => match TextEncoder::new().encode_to_string(&self.registry.gather()) {
                Ok(metrics) => answer(StatusCode::OK, prometheus::TEXT_FORMAT, metrics),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            },
            _ => text(
                StatusCode::NOT_FOUND,
                "here are /livez, /readyz and /metrics\n",
            ),
        }
    }
}

/// The admin port as the accept loop sees it.
#[derive(Debug)]
pub(crate) struct AdminHandler(pub(crate) Arc<Admin>);

impl Handler for AdminHandler {
    fn serve(&self, stream: TcpStream, visit: Visit) -> BoxFuture<'static, ()> {
        visit.activity.begin();
        let admin = Arc::clone(&self.0);
        async move {
            let answer = |request: http::Request<_>| {
                std::future::ready(admin.answer(request.method(), request.uri().path()))
            };
            http_service::serve(stream, visit.closing, answer).await;
        }
        .boxed()
    }
}
