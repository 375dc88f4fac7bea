//! Every fault, at every place in an answer, streamed or not: one table of what comes of each.
//!
//! `cargo test -p freeway --test e2e matrix -- --nocapture` prints it. Each cell is a request to a list of two targets
//! in an order, of which the first meets the fault, and, where the second one answers, another request to a target that
//! is alone with it. Cells share a gateway, but each has providers of its own, so that nothing that is held against one
//! of them shows in another.

mod answers;
mod connections;
mod refusals;
mod run;
mod statuses;
mod table;

use std::collections::BTreeSet;

use table::{Cell, MODES, PLACES, Row};

/// What a row must exist for, beside those that are named by their status.
const NAMED: &[&str] = &[
    "refused connection",
    "reset",
    "cut, with a proper end of the body",
    "closed",
    "silence",
    "slow drip",
    "comments or empty lines for ever",
    "error object",
    "event named error",
    "finish_reason error",
    "empty body",
    "empty completion",
    "no content, finish_reason length",
    "a page instead of an answer",
    "a page in the answer, and then the end",
    "truncated JSON",
    "malformed event",
    "an event that is too long",
    "comments, and then the end",
    "no end marker",
    "usage in an odd place",
    "503, its body never ends",
    "503, its body is closed in the middle",
    "429, its body never ends",
    "401, its body is reset",
    "400, its body never ends",
    "wrong content type",
    "gzip claimed",
];
const STATUSES: &[u16] = &[
    204, 206, 301, 302, 304, 307, 308, 400, 401, 402, 403, 404, 408, 409, 410, 413, 418, 422, 425, 429, 499, 500, 501,
    502, 503, 504, 522, 529,
];

fn rows() -> Vec<Row> {
    [connections::rows(), statuses::rows(), refusals::rows(), answers::rows()].concat()
}

#[test]
fn the_matrix_has_no_empty_cell() {
    let rows = rows();
    let names: BTreeSet<(table::Face, &str)> = rows.iter().map(|row| (row.face, row.fault.as_str())).collect();
    assert_eq!(names.len(), rows.len(), "each fault has one row");
    let wanted = NAMED.iter().map(|name| (*name).to_owned()).chain(STATUSES.iter().map(u16::to_string));
    for name in wanted {
        assert!(rows.iter().any(|row| row.fault == name), "no row for {name}");
    }
    for row in &rows {
        let mut runs = 0;
        for place in PLACES {
            for mode in MODES {
                match row.cells.get(&(place, mode)) {
                    None => panic!("{}: nothing is said of {place:?}, {mode:?}", row.fault),
                    Some(Cell::Cannot(reason)) => assert!(!reason.is_empty(), "{}", row.fault),
                    Some(Cell::Runs(..)) => runs += 1,
                }
            }
        }
        assert!(runs > 0, "{} never happens", row.fault);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cell_of_the_matrix_is_as_it_says() {
    let rows = rows();
    print(&rows);
    assert_eq!(run::all(&rows).await, 0, "cells are not as they should be; each has told its own story above");
}

#[expect(clippy::print_stdout, reason = "the matrix is printed on request")]
fn print(rows: &[Row]) {
    let line = |face: &str, name: &str, cells: &[String]| {
        let cells: String = cells.iter().map(|cell| format!(" {cell:<10}")).collect();
        println!("{face:<5}{name:<41}{cells}");
    };
    line("face", "fault", &PLACES.map(|place| [place.to_string(), String::new()]).concat());
    line("", "", &PLACES.map(|_| ["plain".to_owned(), "streamed".to_owned()]).concat());
    for row in rows {
        let cells: Vec<String> =
            PLACES.iter().flat_map(|place| MODES.map(|mode| row.cells[&(*place, mode)].to_string())).collect();
        line(&format!("{:?}", row.face), &row.fault, &cells);
    }
    let all = rows.iter().flat_map(|row| row.cells.values());
    let running = all.clone().filter(|cell| matches!(cell, Cell::Runs(..))).count();
    println!(
        "\nN>2nd|S: tried N times, then the second target's answer; status S where there is none. whole: the answer is \
         whole (* usage estimated). error: an error in the stream, no [DONE]. back S: status S at once. -: cannot be.\n\
         {} faults, {} cells, of which {running} run and {} cannot be",
        rows.len(),
        all.clone().count(),
        all.count() - running
    );
}
