//! Opens contents: finds who has the bytes on this host, waits until their size is known, and
//! keeps what is private from those whom its registry has not let in.

use std::sync::Arc;

use std::time::Duration;

use protocol::{Origin, TaskId, Up, Visibility, Want};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use super::{
    Swarm, Wanting, WarmOrder,
    flight::{Begun, Entry},
};
use crate::{
    conductor::{Event, Interest, ReaderId},
    direct,
    open::{How, OpenError, OpenRequest, Opened, ReadProof, Wanted},
    reader::{Buffer, InterestGuard, Reader, Reading},
    source::{Brief, Errand, Patience, SourceError},
    task::{ActiveTask, Asking, Message, Progress, Stage, TaskFailure, driver::NOBODY},
};

/// How often an open starts over because the download that it joined ended under it.
const OPEN_TRIES: usize = 4;

/// How long parts that were ordered are wanted: those for whom they were say so themselves by then.
const PARTS_WANTED_FOR: Duration = Duration::from_secs(10);

/// Why a content that is at hand is not given as it is.
pub(super) enum Refusal {
    OtherOrigin,
    NotProven,
}

// === impl Swarm ===

impl Swarm {
    /// Opens a content: from the store, from a download under way, or from a new one.
    ///
    /// Returns once its size is known, so that an answer can be begun.
    pub async fn open(&self, request: OpenRequest) -> Result<Opened, OpenError> {
        self.open_with(request, Patience::Long).await
    }

    /// As [`Swarm::open`], with so much patience for a silent upstream.
    pub async fn open_with(
        &self,
        request: OpenRequest,
        patience: Patience,
    ) -> Result<Opened, OpenError> {
        self.refuse_resume_of_spoiled(&request)?;
        let mut last = Some(OpenError::ShuttingDown);
        for _ in 0..OPEN_TRIES {
            if let Some(opened) = self.open_stored(&request).await? {
                return Ok(opened);
            }
            let (active, entry) = self.join_or_start(&request, Wanting::Reader)?;
            let range = request.wanted.resolve(u64::MAX).unwrap_or(0..0);
            let interest = self.interest(&active.inbox, &request, range).await;
            let mut progress = active.progress;
            // A driver that is gone has said its last word.
            let past_the_end = |seen: &Progress| {
                let size = seen.told_size.filter(|_| seen.content.is_none())?;
                request.wanted.resolve(size).is_none().then_some(size)
            };
            let is_told = |seen: &Progress| {
                seen.content.is_some() || is_over(&seen.stage) || past_the_end(seen).is_some()
            };
            match patience {
                Patience::Long => {
                    let _ = progress.wait_for(is_told).await;
                }
                Patience::Short => self.wait_briefly(&mut progress, &request, is_told).await?,
            }
            let (failure, past_the_end) = {
                let seen = progress.borrow();
                (failure_of(&seen), past_the_end(&seen))
            };
            if let Some(size) = past_the_end {
                // The size may be a secret too, of the one whose credential has learnt it.
                return Err(match (entry, request.proof) {
                    (Entry::Joined(Begun::ByAnother | Begun::Elsewhere), ReadProof::Unchecked) => {
                        OpenError::NotProven
                    }
                    (Entry::Started | Entry::Joined(_), _) => OpenError::NotSatisfiable { size },
                });
            }
            match failure {
                None => {
                    let opened = self.opened(request.clone(), progress, interest, entry)?;
                    return match opened {
                        Some(opened) => Ok(opened),
                        None => self.open_direct(request, patience).await,
                    };
                }
                Some(TaskFailure::NoRoom) => {
                    return self.open_direct(request, patience).await;
                }
                Some(TaskFailure::Corrupt) => last = Some(OpenError::Corrupt),
                Some(TaskFailure::Removed | TaskFailure::Cancelled) => {}
                Some(TaskFailure::Source(error)) => {
                    if !is_anothers(entry, &error) {
                        return Err(OpenError::Source(error));
                    }
                    last = None;
                }
            }
            if self.inner.shutdown.is_cancelled() {
                return Err(OpenError::ShuttingDown);
            }
        }
        match last {
            Some(last) => Err(last),
            // Others have failed each time, which says nothing of this request.
            None => self.open_direct(request, patience).await,
        }
    }

    /// Has what is wanted of a task, for nobody in particular: at the rate of prefetch until somebody
    /// comes to wait for it. Whoever ordered it hears how it goes. Parts are had for as long as those
    /// that want them need to come and say so.
    pub async fn warm(&self, order: WarmOrder) -> Result<(), OpenError> {
        let WarmOrder {
            task,
            origin,
            wants,
            by,
        } = order;
        if self
            .open_stored(&for_others(task, origin.clone()))
            .await?
            .is_some()
        {
            let held = Up::Held { tasks: vec![task] };
            // A scheduler that does not hear it hears it when the session opens again.
            let _ = self.inner.surroundings.sessions.send_to(&by, held).await;
            return Ok(());
        }
        let ActiveTask {
            inbox,
            mut progress,
        } = self
            .join_or_start(&for_others(task, origin), Wanting::Order)?
            .0;
        let is_whole = wants.is_empty();
        let parts = self.interests(&inbox, wants, Event::ReaderJoined).await;
        // A driver that is gone has said its last word.
        if is_whole {
            let whole = Event::ReaderJoined(NOBODY, Interest::ToEnd { offset: 0 });
            let _ = inbox.send(Message::Plan(whole)).await;
        }
        let _ = inbox.send(Message::Ordered(by)).await;
        if !is_whole {
            let ended = progress.wait_for(|seen| is_over(&seen.stage));
            let _ = timeout(PARTS_WANTED_FOR, ended).await;
            drop(parts);
        }
        let _ = progress.wait_for(|seen| is_over(&seen.stage)).await;
        let failure = failure_of(&progress.borrow());
        match failure {
            None => Ok(()),
            Some(TaskFailure::Cancelled) if !is_whole => Ok(()),
            Some(TaskFailure::Source(error)) => Err(OpenError::Source(error)),
            Some(TaskFailure::Corrupt) => Err(OpenError::Corrupt),
            Some(TaskFailure::NoRoom | TaskFailure::Removed) => Err(OpenError::Overloaded),
            Some(TaskFailure::Cancelled) => Err(OpenError::ShuttingDown),
        }
    }

    /// Tells the driver behind `inbox` what somebody wants who reads nothing here.
    pub(super) async fn interests(
        &self,
        inbox: &mpsc::Sender<Message>,
        wants: Vec<Want>,
        how: fn(ReaderId, Interest) -> Event,
    ) -> Vec<InterestGuard> {
        let mut guards = Vec::with_capacity(wants.len());
        for want in wants {
            let reader = self.new_reader();
            // A driver that is gone has said its last word.
            let _ = inbox
                .send(Message::Plan(how(reader, Interest::of(want))))
                .await;
            guards.push(InterestGuard {
                reader,
                inbox: inbox.clone(),
                told: 0,
            });
        }
        guards
    }

    /// The content of a download; `None` where its bytes are not for this request.
    fn opened(
        &self,
        request: OpenRequest,
        progress: watch::Receiver<Progress>,
        interest: InterestGuard,
        entry: Entry,
    ) -> Result<Option<Opened>, OpenError> {
        let (content, how, held_before, is_let_in) = {
            let seen = progress.borrow();
            let Some(content) = seen.content.clone() else {
                return Err(OpenError::ShuttingDown);
            };
            let how = match (entry, seen.asking) {
                (Entry::Joined(_), _) => How::Joined,
                (Entry::Started, Asking::Alone | Asking::ForAll) => How::Source,
                (Entry::Started, Asking::Others) => How::Swarm,
            };
            let held_before = match entry {
                Entry::Started => protocol::PieceSet::default(),
                Entry::Joined(_) => seen.held.clone(),
            };
            (content, how, held_before, seen.is_let_in)
        };
        match (refusal(&content.visibility, &request), entry) {
            // Held for another registry: these bytes must come from the one that is named.
            (Some(Refusal::OtherOrigin), _) => return Ok(None),
            // The download itself is the proof for the one whose credential the upstream let in. What
            // other hosts gave proves nothing.
            (Some(Refusal::NotProven), Entry::Started | Entry::Joined(Begun::ByItself))
                if is_let_in => {}
            (Some(Refusal::NotProven), Entry::Started | Entry::Joined(_)) => {
                return Err(OpenError::NotProven);
            }
            (None, _) => {}
        }
        let content = (content, how, held_before);
        self.reading(request, progress, Some(interest), content)
            .map(Some)
    }

    /// Waits until `is_told`, and no longer than the patience of somebody who can go elsewhere while
    /// this host itself asks the upstream, for nobody else. As long as it does not, others fetch, or
    /// wait for this host, or the scheduler says to wait: they are known to be alive, and whoever
    /// left them would ask the upstream beside them.
    async fn wait_briefly(
        &self,
        progress: &mut watch::Receiver<Progress>,
        request: &OpenRequest,
        is_told: impl Fn(&Progress) -> bool,
    ) -> Result<(), OpenError> {
        let silent = |error| OpenError::Source(Arc::new(error));
        let mut brief = None;
        loop {
            // A driver that is gone has said its last word.
            let turned = progress.wait_for(|seen| is_told(seen) || asks_alone(seen));
            if turned.await.map_or(true, |seen| is_told(&seen)) {
                return Ok(());
            }
            let brief = match &mut brief {
                Some(brief) => brief,
                None => brief.insert(self.briefly(request).await.map_err(silent)?),
            };
            let turned = progress.wait_for(|seen| is_told(seen) || !asks_alone(seen));
            drop(brief.wait(turned).await.map_err(silent)?);
        }
    }

    /// Past the store and the swarm.
    async fn open_direct(
        &self,
        request: OpenRequest,
        patience: Patience,
    ) -> Result<Opened, OpenError> {
        let upstreams = &self.inner.surroundings.upstreams;
        let silent = |error| OpenError::Source(Arc::new(error));
        match patience {
            // Boxed, as it is large and rare.
            Patience::Long => Box::pin(direct::open(upstreams, request)).await,
            Patience::Short => {
                let brief = self.briefly(&request).await.map_err(silent)?;
                let opening = Box::pin(direct::open(upstreams, request));
                brief.wait(opening).await.map_err(silent)?
            }
        }
    }

    async fn briefly(&self, request: &OpenRequest) -> Result<Brief, SourceError> {
        let Origin { registry, kind, .. } = &request.origin;
        let upstreams = &self.inner.surroundings.upstreams;
        upstreams.briefly(registry, Errand::of(*kind)).await
    }

    pub(super) fn reading(
        &self,
        request: OpenRequest,
        progress: watch::Receiver<Progress>,
        mut interest: Option<InterestGuard>,
        (content, how, held_before): (protocol::Content, How, protocol::PieceSet),
    ) -> Result<Opened, OpenError> {
        let size = content.layout.size();
        let range = match size {
            Some(size) => request
                .wanted
                .resolve(size)
                .ok_or(OpenError::NotSatisfiable { size })?,
            None => request.wanted.resolve(u64::MAX).unwrap_or(0..u64::MAX),
        };
        if let Some(interest) = &mut interest {
            // A suffix was told before anybody knew where it begins.
            interest.told = range.start;
        }
        let is_whole = request.wanted.is_all_of(size.unwrap_or(u64::MAX));
        let reading = Reading {
            swarm: self.clone(),
            request,
            progress,
            interest,
            is_whole,
            offset: range.start,
            end: range.end,
            held_before,
            how,
            buffer: Buffer::default(),
            rest: None,
        };
        let reader = Reader::new(reading);
        Ok(Opened {
            size,
            media_type: content.media_type,
            range,
            how,
            reader,
        })
    }
}

/// The rule of who may be given cached content (DESIGN: "Who may read").
pub(super) fn refusal(visibility: &Visibility, request: &OpenRequest) -> Option<Refusal> {
    match visibility {
        Visibility::Public => None,
        Visibility::Private { origins } if !origins.contains(&request.origin.registry) => {
            Some(Refusal::OtherOrigin)
        }
        Visibility::Private { .. } => match request.proof {
            ReadProof::Checked => None,
            ReadProof::Unchecked => Some(Refusal::NotProven),
        },
    }
}

pub(super) fn for_others(task: TaskId, origin: Origin) -> OpenRequest {
    OpenRequest {
        task,
        origin,
        wanted: Wanted::Whole,
        credential: None,
        proof: ReadProof::Unchecked,
    }
}

/// Whether a download failed for a reason that is not of the one who came to it by `entry`.
fn is_anothers(entry: Entry, error: &SourceError) -> bool {
    match entry {
        Entry::Started | Entry::Joined(Begun::ByItself) => false,
        Entry::Joined(Begun::ByAnother) => matches!(error, SourceError::Refused(_)),
        Entry::Joined(Begun::Elsewhere) => true,
    }
}

fn asks_alone(progress: &Progress) -> bool {
    progress.asking == Asking::Alone
}

fn is_over(stage: &Stage) -> bool {
    match stage {
        Stage::Running => false,
        Stage::Complete | Stage::Failed(_) => true,
    }
}

fn failure_of(progress: &Progress) -> Option<TaskFailure> {
    match &progress.stage {
        Stage::Failed(failure) => Some(failure.clone()),
        Stage::Running if progress.content.is_none() => Some(TaskFailure::Cancelled),
        Stage::Running | Stage::Complete => None,
    }
}
