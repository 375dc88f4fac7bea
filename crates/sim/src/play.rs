//! Sending an answer step by step, and booking what it used however it ends.

use crate::headers::{self, Told};
use crate::limits::Ticket;
use crate::log::LogEntry;
use crate::rules::Spend;
use crate::script::{Head, Step};
use crate::sim::{Inner, lock};
use crate::wire::{Gone, Wire};

/// What becomes of the connection.
pub(crate) enum After {
    Next,
    Close,
    Reset,
}

/// The steps of one answer on their way out.
pub(crate) struct Playing<'a> {
    inner: &'a Inner,
    wire: &'a mut Wire,
    ordinal: Option<u64>,
    model: String,
    keep_alive: bool,
    /// Bytes that go out with the next ones or before the next pause.
    waiting: Vec<u8>,
    status: Option<u16>,
    /// Output tokens sent so far.
    sent: u64,
}

impl<'a> Playing<'a> {
    pub(crate) fn new(
        inner: &'a Inner,
        wire: &'a mut Wire,
        ordinal: Option<u64>,
        model: String,
        keep_alive: bool,
    ) -> Self {
        Self { inner, wire, ordinal, model, keep_alive, waiting: Vec::new(), status: None, sent: 0 }
    }

    /// Sends the answer and books what it used, however it ends.
    pub(crate) async fn play(&mut self, steps: Vec<Step>, mut booked: Option<(Ticket, Spend)>) -> After {
        let ended = self.perform(steps, &mut booked).await;
        self.give_up(&mut booked);
        ended.unwrap_or_else(|Gone| {
            let now = self.inner.clock.elapsed_ms();
            self.note(|entry| entry.cancelled_ms = Some(now));
            After::Close
        })
    }

    async fn perform(&mut self, steps: Vec<Step>, booked: &mut Option<(Ticket, Spend)>) -> Result<After, Gone> {
        let mut cost = None;
        for step in steps {
            match step {
                Step::Pause(length) if length.is_zero() => {}
                Step::Pause(length) => {
                    self.flush().await?;
                    self.wire.pause(length).await?;
                }
                Step::Settle => {
                    if let Some((ticket, spend)) = booked.take() {
                        cost = Some(spend.input + spend.output);
                        self.settle(&ticket, spend, true);
                    }
                }
                Step::GiveUp => self.give_up(booked),
                Step::Head(head) => {
                    if head.status >= 300 {
                        // Nothing was made, and whoever reads this may try again at once.
                        self.status = Some(head.status);
                        self.give_up(booked);
                    }
                    self.head(&head, cost);
                }
                Step::Bytes(bytes, tokens) => {
                    self.waiting.extend_from_slice(&bytes);
                    self.sent += tokens;
                }
                Step::Hang => {
                    self.flush().await?;
                    return Err(self.wire.hang().await);
                }
                Step::Reset => {
                    self.flush().await?;
                    return Ok(After::Reset);
                }
                Step::Close => {
                    self.flush().await?;
                    return Ok(After::Close);
                }
            }
        }
        self.flush().await?;
        Ok(After::Next)
    }

    fn head(&mut self, head: &Head, cost: Option<u64>) {
        let config = &self.inner.config;
        let mut lines = vec![("content-type".to_owned(), head.content_type.clone().unwrap_or_default())];
        lines.extend(head.headers.iter().cloned());
        if head.figures && !config.provider.headers.is_empty() {
            let mut book = lock(&self.inner.book);
            let now = self.inner.clock.now();
            let figures = book.figures(now, &self.model);
            drop(book);
            let cost = cost.and_then(|tokens| headers::cost(&config.provider, tokens));
            let told = Told { figures: &figures, violation: None, cost, now };
            lines.extend(headers::rate_headers(&config.id, &config.provider, &told));
        }
        if let Some(ordinal) = self.ordinal {
            lines.push(("x-request-id".to_owned(), format!("sim-{ordinal}")));
        }
        lines.push(match head.length {
            Some(length) => ("content-length".to_owned(), length.to_string()),
            None => ("transfer-encoding".to_owned(), "chunked".to_owned()),
        });
        if !self.keep_alive {
            lines.push(("connection".to_owned(), "close".to_owned()));
        }
        let reason = http::StatusCode::from_u16(head.status).ok().and_then(|status| status.canonical_reason());
        let mut text = format!("HTTP/1.1 {} {}\r\n", head.status, reason.unwrap_or("Unknown"));
        for (name, value) in lines {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        self.waiting.extend_from_slice(text.as_bytes());
        self.status = Some(head.status);
        self.note(|entry| entry.status = Some(head.status));
    }

    async fn flush(&mut self) -> Result<(), Gone> {
        let bytes = std::mem::take(&mut self.waiting);
        if bytes.is_empty() { Ok(()) } else { self.wire.send(&bytes).await }
    }

    /// Books an answer that was not completed: its input and the output sent, if it was an answer at all.
    fn give_up(&self, booked: &mut Option<(Ticket, Spend)>) {
        if let Some((ticket, spend)) = booked.take() {
            let success = self.status.is_some_and(|status| status < 300);
            let input = if success { spend.input } else { 0 };
            self.settle(&ticket, Spend { input, output: self.sent }, success);
        }
    }

    fn settle(&self, ticket: &Ticket, spend: Spend, success: bool) {
        lock(&self.inner.book).settle(self.inner.clock.now(), ticket, spend, success);
        self.note(|entry| entry.booked = Some((spend.input, spend.output)));
    }

    fn note(&self, change: impl FnOnce(&mut LogEntry)) {
        if let Some(ordinal) = self.ordinal {
            lock(&self.inner.log).change(ordinal, change);
        }
    }
}
