//! Pure: warms tasks by order: whom to tell, who has got them, and when to give up.
//!
//! It only tells hosts to begin; who fetches what from whom is decided as for everybody else, so a
//! preheat costs the source no more than a pull. One host, a seed where there is one, begins with
//! each task. The others are told once the source has given something, so that a source that
//! refuses is asked once and not by every host.
//!
//! Invariant: hosts that are told and have not got a task yet are never more than
//! [`heating::HOSTS_AT_ONCE`] of a task, and those tasks never more than [`TASKS_AT_ONCE`] of an order.

mod heating;
mod told;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use protocol::{
    TaskId,
    operator::{PreheatOrder, PreheatProgress, PreheatState, Scope, TASKS_PER_ORDER_MAX},
    scheduler::Failure,
};

use super::{
    Engine,
    hosts::{HostKey, HostRecord, Hosts},
};
use heating::{Heating, Scene, is_live};

/// Orders that are open at once; one more is refused.
pub(super) const ORDERS_MAX: usize = 16;

/// Tasks of one order that hosts are getting at once; the next ones wait.
pub(super) const TASKS_AT_ONCE: usize = 64;

/// Hosts looked at in one step of an order; the others have their turn in the next.
const VISITS_PER_STEP: usize = 20_000;

/// How often it is looked where the orders stand.
const STEP: Duration = Duration::from_millis(200);

/// The orders that are open.
#[derive(Debug, Default)]
pub(super) struct Preheats {
    orders: BTreeMap<u64, Order>,
    next: u64,
    due: Option<Instant>,
}

#[derive(Debug)]
struct Order {
    tasks: Vec<Heating>,
    /// Whether something was done since the progress was told.
    is_stirred: bool,
    told: Option<PreheatProgress>,
}

// === impl Engine ===

impl Engine {
    /// Begins to warm the tasks of `order` and answers its number, by which its progress is told
    /// until [`Engine::end_preheat`].
    ///
    /// # Errors
    /// There are too many orders, or the order is for too many tasks; the text says which.
    pub fn preheat(&mut self, now: Instant, order: PreheatOrder) -> Result<u64, String> {
        if TASKS_PER_ORDER_MAX < order.tasks.len() {
            return Err(format!("an order has at most {TASKS_PER_ORDER_MAX} tasks"));
        }
        if ORDERS_MAX <= self.preheats.orders.len() {
            return Err(format!("{ORDERS_MAX} preheats are open; try again later"));
        }
        let number = self.preheats.next;
        self.preheats.next += 1;
        let order = Order::new(order, &self.hosts, |record| {
            is_live(now, &self.limits, record)
        });
        self.preheats.orders.insert(number, order);
        self.step_preheats(now);
        Ok(number)
    }

    /// Gives no further orders for this number.
    pub fn end_preheat(&mut self, number: u64) {
        self.preheats.orders.remove(&number);
        if self.preheats.orders.is_empty() {
            self.preheats.due = None;
        }
    }

    /// An order whose progress has changed since it was polled last, and that progress.
    pub fn poll_preheat(&mut self) -> Option<(u64, PreheatProgress)> {
        self.preheats.orders.iter_mut().find_map(|(number, order)| {
            if !std::mem::take(&mut order.is_stirred) {
                return None;
            }
            let progress = order.progress();
            let is_new = order.told.as_ref() != Some(&progress);
            order.told = Some(progress.clone());
            is_new.then_some((*number, progress))
        })
    }

    pub(super) fn preheat_due(&self) -> Option<Instant> {
        self.preheats.due
    }

    /// A host could not get a task.
    pub(super) fn preheat_failed(
        &mut self,
        now: Instant,
        task: TaskId,
        host: HostKey,
        failure: Failure,
    ) {
        let orders = self.preheats.orders.values_mut();
        let heatings = orders.flat_map(|order| &mut order.tasks);
        for heating in heatings.filter(|heating| heating.task() == task) {
            heating.failed(now, host, failure);
        }
    }

    /// Looks where every order stands, and tells whom it is time to tell.
    pub(super) fn step_preheats(&mut self, now: Instant) {
        for order in self.preheats.orders.values_mut() {
            order.is_stirred = true;
            let mut scene = Scene {
                now,
                limits: &self.limits,
                hosts: &self.hosts,
                tasks: &self.tasks,
                commands: &mut self.commands,
                visits_left: VISITS_PER_STEP,
            };
            let running = order
                .tasks
                .iter_mut()
                .filter(|heating| heating.state() == PreheatState::Running);
            for heating in running.take(TASKS_AT_ONCE) {
                heating.step(&mut scene);
            }
        }
        self.preheats.due = (!self.preheats.orders.is_empty()).then_some(now + STEP);
    }
}

// === impl Order ===

impl Order {
    fn new(order: PreheatOrder, hosts: &Hosts, is_live: impl Fn(&HostRecord) -> bool) -> Self {
        let expected = match order.scope {
            Scope::Seeds => 1,
            Scope::AllHosts => hosts.iter().filter(|(_, record)| is_live(record)).count() as u32,
        };
        let mut known = BTreeSet::new();
        let tasks = order.tasks.into_iter();
        let tasks = tasks.filter(|(task, _)| known.insert(*task));
        let heating = |content| Heating::new(content, order.scope, (expected, hosts.next_key()));
        Self {
            tasks: tasks.map(heating).collect(),
            is_stirred: true,
            told: None,
        }
    }

    fn progress(&self) -> PreheatProgress {
        PreheatProgress {
            tasks: self.tasks.iter().map(Heating::progress).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
