//! Answers CONNECT: opens the far end of a tunnel before the client is told that there is one, and
//! hands over what is to become of the connection then.

use std::sync::{Arc, Mutex};

use http::{HeaderMap, Method, Response, StatusCode, header, request::Parts};
use swarm::source::TunnelError;

use super::{
    Met, now,
    rejections::{AGENT_LEN_MAX, Asking},
    rules::{Place, Way},
    tunnel::Onward,
};
use crate::{
    answer::{Answer, Ask, bind, refused},
    body::{AnswerBody, Content},
    client::{Asker, ClientKind},
    error::{Fault, Refusal},
    line::Cut,
    log::Record,
    metrics::ConnectWay,
    serve::Proxy,
};

/// What becomes of a connection whose CONNECT was answered with 200.
#[derive(Debug)]
pub(crate) struct Next {
    pub(super) asking: Asking,
    /// With its far end, where it is passed on whatever the client says.
    pub(super) onward: Onward,
}

/// Where the answer to a CONNECT leaves what is next.
pub(crate) type Handover = Arc<Mutex<Option<Next>>>;

// === impl Proxy ===

impl Proxy {
    /// The answer to a CONNECT; with a 200, `handover` says how to go on.
    pub(crate) async fn connect(
        &self,
        parts: Parts,
        met: Met,
        handover: &Handover,
        cut: Arc<Cut>,
    ) -> Response<AnswerBody> {
        let agent = parts.headers.get(header::USER_AGENT);
        let agent = agent.and_then(|value| value.to_str().ok());
        let agent = agent.unwrap_or_default().to_owned();
        let client = ClientKind::of(&agent);
        let mut record = Record::begin(client, Method::CONNECT, Arc::clone(&self.metrics));
        let ask = Ask {
            whence: met.whence("http"),
            method: Method::CONNECT,
            headers: HeaderMap::new(),
            path: String::new(),
            query: String::new(),
            // Whoever asks for a tunnel goes nowhere else.
            asker: Asker::Direct,
            credential: None,
            epoch: self.rights.epoch(),
        };
        let place = parts.uri.authority().and_then(Place::of);
        let answer = match self.decide(place, &agent, met).await {
            Ok(next) => {
                // What goes through it leaves its own lines.
                record.leave();
                if let Ok(mut slot) = handover.lock() {
                    *slot = Some(next);
                }
                Answer::new(StatusCode::OK, Content::Empty)
            }
            Err(refusal) => {
                self.metrics.connect(ConnectWay::Refused);
                self.metrics.refusal(refusal.fault);
                record.fault = Some(refusal.fault);
                tracing::debug!(fault = refusal.fault.label(), reason = %refusal.message, "refused");
                refused(&refusal, ask.asker)
            }
        };
        bind(answer, &ask, cut, record)
    }

    async fn decide(&self, place: Option<Place>, agent: &str, met: Met) -> Result<Next, Refusal> {
        let told = "CONNECT names a host and a port, as in registry.example:443";
        let place = place.ok_or_else(|| Refusal::new(Fault::BadName, told))?;
        let asking = Asking {
            client: met.client.ip(),
            agent: agent.chars().take(AGENT_LEN_MAX).collect(),
            host: place.to_string(),
        };
        let config = self.config();
        let source = &config.source;
        let far = match config.rules.way(&place, met.place(), source) {
            Way::Refuse(why) => {
                let message = format!("no tunnel to {place}: {why}");
                return Err(Refusal::new(Fault::NotAllowed, message));
            }
            Way::Intercept(_) if !self.intercept.rejections().holds(&asking, now()) => None,
            Way::Intercept(_) | Way::Tunnel => {
                let tunnels = &self.intercept.tunnels;
                let far = tunnels.connect(&place.host, place.port, met.place());
                Some(far.await.map_err(|error| refusal(&error))?)
            }
        };
        let reach = met.place();
        Ok(Next {
            asking,
            onward: Onward { place, far, reach },
        })
    }
}

fn refusal(error: &TunnelError) -> Refusal {
    let fault = match error {
        TunnelError::Forbidden { .. } | TunnelError::Own(_) => Fault::NotAllowed,
        TunnelError::Unreachable { .. } => Fault::Unreachable,
        TunnelError::Slow { .. } => Fault::Slow,
    };
    Refusal::new(fault, error.to_string())
}
