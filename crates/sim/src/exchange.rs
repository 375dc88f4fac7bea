//! One connection: read a request, decide what becomes of it, send that.

use crate::control;
use crate::decide;
use crate::log::LogEntry;
use crate::play::{After, Playing};
use crate::request;
use crate::sim::{Inner, lock};
use crate::wire::{ReadProblem, Request, Wire};

/// Serves a connection until one side closes it.
pub(crate) async fn serve(inner: &Inner, mut wire: Wire) {
    loop {
        tokio::select! {
            biased;
            begun = wire.begun() => if begun.is_err() { return },
            () = inner.door.shutting() => return wire.reset(),
        }
        let request = match wire.request().await {
            Ok(request) => request,
            Err(ReadProblem::Gone) => return,
            Err(ReadProblem::NotHttp) => {
                // Whether this last word arrives makes no difference: the connection is given up.
                let _ = wire.send(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
                return;
            }
        };
        if !inner.door.is_open() {
            return wire.reset();
        }
        let keep_alive = request.keep_alive;
        match exchange(inner, &mut wire, request).await {
            After::Next if keep_alive => {}
            After::Next | After::Close => return,
            After::Reset => return wire.reset(),
        }
    }
}

async fn exchange(inner: &Inner, wire: &mut Wire, request: Request) -> After {
    let path = request.path.split('?').next().unwrap_or_default();
    if path.starts_with("/sim/") {
        let steps = control::answer(inner, &request);
        let keep_alive = request.keep_alive && inner.door.is_open();
        let mut playing = Playing::new(inner, wire, None, String::new(), keep_alive);
        let after = playing.play(steps, None).await;
        return if inner.door.is_open() { after } else { After::Close };
    }
    let (model, streamed) = request::peek(&request.body);
    let entry = LogEntry {
        arrived_ms: inner.clock.elapsed_ms(),
        method: request.method.clone(),
        path: request.path.clone(),
        key: decide::key(inner, &request).map(str::to_owned),
        model: model.clone(),
        streamed,
        headers: request.headers.clone(),
        body: request.body.clone(),
        ..LogEntry::default()
    };
    let ordinal = lock(&inner.log).add(entry);
    let decision = decide::decide(inner, &request, path, model.as_deref(), ordinal);
    if decision.overrun {
        lock(&inner.log).change(ordinal, |entry| entry.overrun = true);
    }
    let mut playing = Playing::new(inner, wire, Some(ordinal), decision.model, request.keep_alive);
    let after = playing.play(decision.steps, decision.booked).await;
    lock(&inner.log).change(ordinal, |entry| entry.ended_ms = Some(inner.clock.elapsed_ms()));
    after
}
