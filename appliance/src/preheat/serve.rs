//! The node's half of a preheat: takes the image apart, orders each content at its scheduler, and
//! tells what comes of it.
//!
//! It ends when all is over, when nobody reads any more, or when the node drains; then no further
//! hosts are told, and those that were go on.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use http_body_util::{StreamBody, combinators::BoxBody};
use hyper::body::Frame;
use protocol::{
    Operator, TaskId,
    operator::{PreheatFailure, PreheatOrder, PreheatProgress, PreheatState, Scope, TaskProgress},
    scheduler::Failure,
};
use proxy::{
    Proxy,
    image::{ImageContent, ImageName, ImagePart, Platform, Platforms},
};
use swarm::Swarm;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Line, Part, PreheatScope, Progress, State, Wish};
use crate::{http_service::Answer, operators::Operators};

/// Lines that wait for the command before the node waits.
const LINES: usize = 64;

/// How often the command is shown that the node lives.
const ALIVE: Duration = Duration::from_secs(5);

/// What preheats are made of.
#[derive(Debug, Clone)]
pub(crate) struct Preheater {
    pub(crate) proxy: Option<Arc<Proxy>>,
    pub(crate) swarm: Swarm,
    pub(crate) operators: Operators,
}

/// What one scheduler told of its tasks, and `None` when it tells no more.
type Told = (usize, Option<PreheatProgress>);

/// The tasks of one scheduler, as they stand.
struct Group {
    /// Why those failed that are not over when it tells no more.
    problem: String,
    tasks: BTreeMap<TaskId, TaskProgress>,
}

// === impl Preheater ===

impl Preheater {
    /// Begins what is wished for, as one of `tasks`; the answer has a line for each thing told.
    pub(crate) fn answer(
        self,
        wish: Wish,
        tasks: &TaskTracker,
        closing: CancellationToken,
    ) -> Answer {
        let (lines, mut told) = mpsc::channel::<Line>(LINES);
        tasks.spawn(async move {
            tokio::select! {
                () = self.run(wish, &lines) => {}
                () = keep_alive(&lines) => {}
                () = lines.closed() => {}
                () = closing.cancelled() => {}
            }
        });
        let frames = stream::poll_fn(move |context| told.poll_recv(context)).map(|line| {
            let mut text = serde_json::to_vec(&line).unwrap_or_default();
            text.push(b'\n');
            Ok::<_, Infallible>(Frame::data(Bytes::from(text)))
        });
        Answer::new(BoxBody::new(StreamBody::new(frames)))
    }

    async fn run(&self, wish: Wish, lines: &mpsc::Sender<Line>) {
        let last = match self.preheat(wish, lines).await {
            Ok(failed) => Line::End { failed },
            Err(error) => Line::Problem(format!("{error:#}")),
        };
        // A command that is gone needs no last word.
        let _ = lines.send(last).await;
    }

    /// Answers how many contents could not be warmed.
    async fn preheat(&self, wish: Wish, lines: &mpsc::Sender<Line>) -> anyhow::Result<usize> {
        let image = self.take_apart(&wish).await?;
        lines.send(plan(&image)).await?;
        let scope = match wish.scope {
            PreheatScope::Seeds => Scope::Seeds,
            PreheatScope::All => Scope::AllHosts,
        };
        let (mut groups, mut told) = self.order(&image, scope).await?;
        let mut failed = 0;
        while let Some((number, progress)) = told.next().await {
            let group = &mut groups[number];
            let changed = match progress {
                Some(progress) => group.update(progress),
                None => group.lost(),
            };
            for line in changed {
                failed += usize::from(matches!(line.state, State::Failed(_)));
                lines.send(Line::Progress(line)).await?;
            }
        }
        Ok(failed)
    }

    async fn take_apart(&self, wish: &Wish) -> anyhow::Result<ImageContent> {
        let Some(proxy) = &self.proxy else {
            anyhow::bail!(
                "this node has no proxy role, which reads images; ask a node that has it"
            );
        };
        let platforms = match &wish.platforms[..] {
            _ if wish.all_platforms => Platforms::All,
            [] => Platforms::These(vec![Platform::own()]),
            named => {
                let named: Result<Vec<_>, _> = named.iter().map(|text| text.parse()).collect();
                Platforms::These(named?)
            }
        };
        let name: ImageName = wish.image.parse()?;
        let image = proxy.image(&name, &platforms).await;
        image.with_context(|| name.to_string())
    }

    /// Orders each content at its scheduler.
    async fn order(
        &self,
        image: &ImageContent,
        scope: Scope,
    ) -> anyhow::Result<(Vec<Group>, stream::SelectAll<BoxStream<'static, Told>>)> {
        let mut by_scheduler: BTreeMap<_, (Arc<dyn Operator>, Vec<&ImagePart>)> = BTreeMap::new();
        for part in &image.parts {
            let (scheduler, operator) = self.operators.of(&self.swarm, part.task).await?;
            let (_, parts) = by_scheduler
                .entry(scheduler)
                .or_insert_with(|| (operator, Vec::new()));
            parts.push(part);
        }
        let mut groups = Vec::new();
        let mut told = stream::SelectAll::new();
        for (number, (scheduler, (operator, parts))) in by_scheduler.into_iter().enumerate() {
            let content = |part: &&ImagePart| (part.task, part.origin.clone());
            let tasks = parts.iter().map(content).collect();
            let ordered = operator.preheat(PreheatOrder { tasks, scope }).await;
            let problem = match &ordered {
                Ok(_) => format!("the scheduler {scheduler} was lost"),
                Err(error) => format!("{scheduler}: {error}"),
            };
            told.push(follow(number, ordered.ok()));
            groups.push(Group::new(problem, &parts));
        }
        Ok((groups, told))
    }
}

// === impl Group ===

impl Group {
    fn new(problem: String, parts: &[&ImagePart]) -> Self {
        let nothing = |part: &&ImagePart| {
            let progress = TaskProgress {
                task: part.task,
                wanted: 0,
                held: 0,
                pieces: 0,
                total: None,
                state: PreheatState::Running,
            };
            (part.task, progress)
        };
        Self {
            problem,
            tasks: parts.iter().map(nothing).collect(),
        }
    }

    /// What is new, of the tasks that were ordered.
    fn update(&mut self, progress: PreheatProgress) -> Vec<Progress> {
        let mut changed = Vec::new();
        for told in progress.tasks {
            if let Some(known) = self.tasks.get_mut(&told.task)
                && known.state == PreheatState::Running
                && *known != told
            {
                *known = told;
                changed.push(line(&told, state(told.state)));
            }
        }
        changed
    }

    /// The scheduler tells no more: whatever is not over by now has failed.
    fn lost(&mut self) -> Vec<Progress> {
        let tasks = std::mem::take(&mut self.tasks).into_values();
        let unfinished = tasks.filter(|task| task.state == PreheatState::Running);
        unfinished
            .map(|task| line(&task, State::Failed(self.problem.clone())))
            .collect()
    }
}

/// What a scheduler tells, and at the end that it tells no more.
fn follow(
    number: usize,
    progress: Option<mpsc::Receiver<PreheatProgress>>,
) -> BoxStream<'static, Told> {
    let told = stream::unfold(progress, |progress| async move {
        let mut progress = progress?;
        let next = progress.recv().await?;
        Some((Some(next), Some(progress)))
    });
    let told = told.chain(stream::once(std::future::ready(None)));
    told.map(move |progress| (number, progress)).boxed()
}

async fn keep_alive(lines: &mpsc::Sender<Line>) {
    loop {
        tokio::time::sleep(ALIVE).await;
        if lines.send(Line::Alive).await.is_err() {
            return;
        }
    }
}

fn plan(image: &ImageContent) -> Line {
    let part = |part: &ImagePart| Part {
        digest: part.task.to_string(),
        kind: part.kind.as_str().to_owned(),
        size: part.size,
        platform: part.platform.as_ref().map(ToString::to_string),
    };
    Line::Plan {
        digest: image.digest.to_string(),
        parts: image.parts.iter().map(part).collect(),
    }
}

fn line(progress: &TaskProgress, state: State) -> Progress {
    Progress {
        digest: progress.task.to_string(),
        wanted: progress.wanted,
        held: progress.held,
        pieces: progress.pieces,
        total: progress.total,
        state,
    }
}

fn state(state: PreheatState) -> State {
    let why = match state {
        PreheatState::Running => return State::Running,
        PreheatState::Done => return State::Done,
        PreheatState::Failed(why) => why,
    };
    let why = match why {
        PreheatFailure::NoHost => "no host could have it: no seed has a session",
        PreheatFailure::Stuck => "a host was told and did not get on with it",
        PreheatFailure::Source(Failure::Refused) => "the registry wants a credential",
        PreheatFailure::Source(Failure::NotFound) => "the registry does not have it",
        PreheatFailure::Source(Failure::Unavailable) => "the registry cannot be reached or fails",
        PreheatFailure::Source(Failure::Corrupt) => "it did not match its digest",
        PreheatFailure::Source(Failure::Local) => "a host had no room for it, or failed",
    };
    State::Failed(why.to_owned())
}
