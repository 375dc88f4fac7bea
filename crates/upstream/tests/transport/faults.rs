//! What a provider may do to a shared connection, and what is sent again.

use std::pin::pin;

use freeway_upstream::SendError;
use h2::Reason;
use http_body_util::BodyExt as _;

use crate::server::{
    H2, Upstream, answer, ask, begin, begin_by_hand, keep_moving, next, read, read_frame, refusal, write_frame,
};

/// `HEADERS` and `GOAWAY`, RFC 9113, section 6.
const HEADERS: u8 = 1;
const GOAWAY: u8 = 7;

#[tokio::test]
async fn a_connection_ended_in_the_middle_of_an_answer_breaks_it_and_the_next_request_has_another() {
    let upstream = Upstream::start(H2).await;
    let client = upstream.client();
    let (answered, ()) = tokio::join!(ask(&client), async {
        let mut connection = upstream.h2().await;
        let mut request = next(&mut connection).await;
        let _outgoing = begin(&mut request.1, "beginning");
        let _ = futures_util::poll!(pin!(connection.accept()));
        connection.abrupt_shutdown(Reason::INTERNAL_ERROR);
        while connection.accept().await.is_some() {}
    });
    let broken = answered.unwrap().into_body().collect().await.map(|_| ()).unwrap_err();
    assert!(!broken.to_string().is_empty());
    let (again, ()) = tokio::join!(async { read(ask(&client).await).await }, async {
        let mut connection = upstream.h2().await;
        answer(next(&mut connection).await.1, "ok");
        keep_moving(connection);
    });
    assert_eq!(again, "ok");
}

#[tokio::test]
async fn one_that_will_end_finishes_its_answers_and_takes_no_more() {
    let upstream = Upstream::start(H2).await;
    let client = upstream.client();
    let (mut body, mut outgoing) = tokio::join!(async { ask(&client).await.unwrap().into_body() }, async {
        let mut connection = upstream.h2().await;
        let mut request = next(&mut connection).await;
        let outgoing = begin(&mut request.1, "beginning");
        connection.graceful_shutdown();
        keep_moving(connection);
        outgoing
    });
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "beginning");
    let (again, ()) = tokio::join!(async { read(ask(&client).await).await }, async {
        let mut connection = upstream.h2().await;
        answer(next(&mut connection).await.1, "ok");
        keep_moving(connection);
    });
    assert_eq!(again, "ok");
    outgoing.send_data(" and end".into(), true).unwrap();
    assert_eq!(body.collect().await.unwrap().to_bytes(), " and end");
}

/// Ends the connection by hand once a request has come, naming this as the last stream that was looked at.
async fn go_away(upstream: &Upstream, last: u8) {
    let mut stream = upstream.accept().await;
    begin_by_hand(&mut stream, &[]).await;
    read_frame(&mut stream, HEADERS).await;
    // The last stream, and the reason NO_ERROR.
    write_frame(&mut stream, GOAWAY, &[0, 0, 0, last, 0, 0, 0, 0]).await;
    // What is read to its end is closed without a reset, which could overtake the frame.
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
}

#[tokio::test]
async fn a_request_beyond_the_last_one_looked_at_is_sent_again() {
    let upstream = Upstream::start(H2).await;
    let client = upstream.client();
    let (answered, ()) = tokio::join!(async { read(ask(&client).await).await }, async {
        go_away(&upstream, 0).await;
        let mut connection = upstream.h2().await;
        answer(next(&mut connection).await.1, "ok");
        keep_moving(connection);
    });
    assert_eq!(answered, "ok");
}

#[tokio::test]
async fn and_only_once() {
    let upstream = Upstream::start(H2).await;
    let client = upstream.client();
    let (answered, ()) = tokio::join!(ask(&client), async {
        go_away(&upstream, 0).await;
        go_away(&upstream, 0).await;
    });
    assert_eq!(refusal(answered), SendError::Broken("the connection was ended: not a result of an error".to_owned()));
}

#[tokio::test]
async fn one_that_may_have_been_looked_at_is_not() {
    let upstream = Upstream::start(H2).await;
    let client = upstream.client();
    let serve = async {
        let mut stream = upstream.accept().await;
        begin_by_hand(&mut stream, &[]).await;
        read_frame(&mut stream, HEADERS).await;
        write_frame(&mut stream, GOAWAY, &[0, 0, 0, 1, 0, 0, 0, 0]).await;
        drop(stream);
        // Whoever comes now sends it again.
        upstream.accept().await;
    };
    tokio::select! {
        answered = ask(&client) => assert!(matches!(refusal(answered), SendError::Broken(_))),
        () = serve => panic!("it was sent again"),
    }
}

/// Meets each request with a reset, then answers; gives how many came.
async fn resets(reasons: &[Reason]) -> (Result<(), SendError>, usize) {
    let upstream = Upstream::start(H2).await;
    let client = upstream.client();
    let mut came = 0;
    let serve = async {
        let mut connection = upstream.h2().await;
        loop {
            let (_, mut respond) = next(&mut connection).await;
            match reasons.get(came) {
                Some(reason) => respond.send_reset(*reason),
                None => answer(respond, "ok"),
            }
            came += 1;
        }
    };
    let answered = tokio::select! { answered = ask(&client) => answered.map(|_| ()), () = serve => unreachable!() };
    (answered, came)
}

#[tokio::test]
async fn a_refused_stream_is_sent_again_once_and_any_other_not_at_all() {
    assert_eq!(resets(&[Reason::REFUSED_STREAM]).await, (Ok(()), 2));
    let (refused, came) = resets(&[Reason::REFUSED_STREAM; 3]).await;
    assert!(matches!(refused, Err(SendError::Broken(_))), "{refused:?}");
    assert_eq!(came, 2);
    for reason in [Reason::INTERNAL_ERROR, Reason::CANCEL, Reason::ENHANCE_YOUR_CALM, Reason::NO_ERROR] {
        let (refused, came) = resets(&[reason]).await;
        assert!(matches!(refused, Err(SendError::Broken(_))), "{reason}: {refused:?}");
        assert_eq!(came, 1, "{reason}");
    }
}

#[tokio::test]
async fn a_connection_that_gives_no_sign_of_life_is_given_up() {
    let upstream = Upstream::start(H2).await;
    let client = upstream.client();
    let serve = async {
        let mut stream = upstream.accept().await;
        begin_by_hand(&mut stream, &[]).await;
        read_frame(&mut stream, HEADERS).await;
        // From here on time runs by itself, as fast as everybody waits.
        tokio::time::pause();
        let began = tokio::time::Instant::now();
        // It hears everything and answers nothing, not even pings.
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        began.elapsed().as_secs()
    };
    let (answered, seconds) = tokio::join!(ask(&client), serve);
    assert_eq!(refusal(answered), SendError::Broken("no sign of life within 10 s".to_owned()));
    assert!((28..=31).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn one_that_answers_pings_is_waited_for() {
    let upstream = Upstream::start(H2).await;
    let client = upstream.client();
    let serve = async {
        let mut connection = upstream.h2().await;
        let (_, respond) = next(&mut connection).await;
        keep_moving(connection);
        tokio::time::pause();
        // Beyond several pings.
        tokio::time::sleep(std::time::Duration::from_secs(100)).await;
        answer(respond, "ok");
    };
    let (answered, ()) = tokio::join!(async { read(ask(&client).await).await }, serve);
    assert_eq!(answered, "ok");
}
