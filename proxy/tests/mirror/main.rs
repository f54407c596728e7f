//! The mirror as its clients see it: whole connections, over a swarm and an upstream of our own.

mod blobs;
mod connections;
mod fixture;
mod intercepted;
mod manifests;
mod refusals;
mod through;
mod tunnels;
