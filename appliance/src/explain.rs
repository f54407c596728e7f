//! `darter explain`: why the hosts that are getting a task have the parents that they have.

use std::fmt;

use protocol::{
    TaskId,
    operator::{Child, Explanation, Judged, LISTED_MAX, Question, Verdict},
};
use serde::{Deserialize, Serialize};
use swarm::Swarm;

use crate::operators::Operators;

/// What the scheduler of a task says of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Explained {
    task: String,
    scheduler: String,
    children: Vec<ExplainedChild>,
}

/// One host, and everybody who could be its parent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct ExplainedChild {
    host: String,
    /// Absent for a host that takes no part in the task.
    state: Option<String>,
    candidates: Vec<Candidate>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Candidate {
    host: String,
    is_parent: bool,
    /// From 0 to 1: the sum of weight times value over `parts`. Absent if it is refused.
    score: Option<f64>,
    parts: Vec<Part>,
    refusal: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Part {
    name: String,
    weight: f64,
    value: f64,
}

// === impl Explained ===

impl Explained {
    /// Asks the scheduler of the task; of one host, or of all that are getting it.
    pub(crate) async fn of(
        operators: &Operators,
        swarm: &Swarm,
        (task, host): (TaskId, Option<&str>),
    ) -> anyhow::Result<Self> {
        let child = match host {
            Some(host) => Child::Host(host.parse()?),
            None => Child::EveryRunning,
        };
        let (scheduler, operator) = operators.of(swarm, task).await?;
        let question = Question {
            task,
            child,
            listed_max: LISTED_MAX,
        };
        let children = operator.explain(question).await?;
        Ok(Self {
            task: task.to_string(),
            scheduler: scheduler.to_string(),
            children: children.into_iter().map(ExplainedChild::from).collect(),
        })
    }
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at the scheduler {}", self.task, self.scheduler)?;
        if self.children.is_empty() {
            write!(f, "\nnobody is getting it now")?;
        }
        for child in &self.children {
            let state = child.state.as_deref().unwrap_or("takes no part in it");
            write!(f, "\n{} ({state})", child.host)?;
            for candidate in &child.candidates {
                write!(f, "\n  {candidate}")?;
            }
        }
        Ok(())
    }
}

// === impl Candidate ===

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.is_parent { "parent" } else { "" };
        write!(f, "{mark:<6} {:<24}", self.host)?;
        match (&self.refusal, self.score) {
            (Some(rule), _) => write!(f, " refused: {rule}"),
            (None, score) => {
                write!(f, " {:.3} =", score.unwrap_or(0.0))?;
                for (
                    number,
                    Part {
                        name,
                        weight,
                        value,
                    },
                ) in self.parts.iter().enumerate()
                {
                    let plus = if number == 0 { "" } else { " +" };
                    write!(f, "{plus} {name} {weight:.2} x {value:.2}")?;
                }
                Ok(())
            }
        }
    }
}

impl From<Explanation> for ExplainedChild {
    fn from(told: Explanation) -> Self {
        Self {
            host: told.child.to_string(),
            state: told.state,
            candidates: told.candidates.into_iter().map(Candidate::from).collect(),
        }
    }
}

impl From<Judged> for Candidate {
    fn from(told: Judged) -> Self {
        let score = told.verdict.score();
        let (parts, refusal) = match told.verdict {
            Verdict::Scored(parts) => (parts, None),
            Verdict::Refused(rule) => (Vec::new(), Some(rule)),
        };
        let part = |part: protocol::operator::ScorePart| Part {
            name: part.name,
            weight: part.weight,
            value: part.value,
        };
        Self {
            host: told.candidate.to_string(),
            is_parent: told.is_parent,
            score,
            parts: parts.into_iter().map(part).collect(),
            refusal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_is_shown_by_its_parts_and_a_refusal_by_its_rule() {
        let judged = |verdict| {
            let judged = Judged {
                candidate: "node-1".parse().unwrap(),
                is_parent: true,
                verdict,
            };
            Candidate::from(judged).to_string()
        };
        let part = |name: &str, weight, value| protocol::operator::ScorePart {
            name: name.to_owned(),
            weight,
            value,
        };
        let parts = vec![part("pieces", 0.3, 0.5), part("seed", 0.1, 1.0)];
        assert_eq!(
            judged(Verdict::Scored(parts)),
            "parent node-1                   0.250 = pieces 0.30 x 0.50 + seed 0.10 x 1.00"
        );
        assert_eq!(
            judged(Verdict::Refused("cycle".to_owned())),
            "parent node-1                   refused: cycle"
        );
    }
}
