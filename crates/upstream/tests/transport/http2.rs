//! Which protocol is spoken, and how connections are shared.

use std::pin::pin;

use bytes::Bytes;
use freeway_upstream::{ConnectError, SendError};
use futures_util::future::join_all;
use http_body_util::BodyExt as _;

use crate::server::{
    H1, H2, Upstream, answer, answer_h1, ask, ask_with, begin, client, keep_moving, next, read, refusal,
};

/// Whether nobody is connecting.
async fn nobody_comes(upstream: &Upstream) -> bool {
    tokio::select! { biased; _ = upstream.listener.accept() => false, () = std::future::ready(()) => true }
}

#[tokio::test]
async fn many_requests_share_one_connection() {
    let upstream = Upstream::start(H2).await;
    let client = upstream.client();
    let asked = join_all((0..50).map(|_| async { read(ask(&client).await).await }));
    let (answers, ()) = tokio::join!(asked, async {
        let mut connection = upstream.h2().await;
        let mut all = Vec::new();
        // Nobody is answered before all have come.
        while all.len() < 50 {
            let (request, respond) = next(&mut connection).await;
            assert_eq!(request.uri().path(), "/v1/chat");
            assert_eq!(request.uri().authority().unwrap().as_str(), format!("localhost:{}", upstream.port()));
            let headers = request.headers();
            assert_eq!(headers["authorization"], "Bearer sk-test");
            assert_eq!(headers["content-length"], "2");
            assert!(!headers.contains_key("host"));
            all.push(respond);
        }
        all.into_iter().for_each(|respond| answer(respond, "ok"));
        keep_moving(connection);
    });
    assert!(answers.iter().all(|answer| answer == "ok"));
    assert!(nobody_comes(&upstream).await, "there was a second connection");
}

#[tokio::test]
async fn a_large_request_and_a_large_answer_pass_in_pieces() {
    let upstream = Upstream::start(H2).await;
    let client = upstream.client();
    let body = Bytes::from(vec![b'q'; 3_000_000]);
    let (answered, ()) = tokio::join!(async { read(ask_with(&client, body.clone()).await).await }, async {
        let mut connection = upstream.h2().await;
        let (request, mut respond) = next(&mut connection).await;
        keep_moving(connection);
        let mut incoming = request.into_body();
        let mut length = 0;
        while let Some(bytes) = incoming.data().await {
            length += bytes.as_ref().unwrap().len();
            incoming.flow_control().release_capacity(bytes.unwrap().len()).unwrap();
        }
        assert_eq!(length, 3_000_000);
        let mut outgoing = respond.send_response(http::Response::new(()), false).unwrap();
        outgoing.send_data(Bytes::from(vec![b'a'; 3_000_000]), true).unwrap();
    });
    assert_eq!((answered.len(), answered.iter().all(|byte| *byte == b'a')), (3_000_000, true));
}

#[tokio::test]
async fn an_answer_may_begin_before_the_request_is_written() {
    let upstream = Upstream::start(H2).await;
    let client = upstream.client();
    let body = Bytes::from(vec![b'q'; 300_000]);
    let ((), ()) = tokio::join!(
        async { assert_eq!(read(ask_with(&client, body.clone()).await).await, "early and late") },
        async {
            let mut connection = upstream.h2().await;
            let (request, mut respond) = next(&mut connection).await;
            keep_moving(connection);
            let mut outgoing = begin(&mut respond, "early");
            let mut incoming = request.into_body();
            let mut length = 0;
            while let Some(bytes) = incoming.data().await {
                length += bytes.as_ref().unwrap().len();
                incoming.flow_control().release_capacity(bytes.unwrap().len()).unwrap();
            }
            assert_eq!(length, 300_000);
            outgoing.send_data(Bytes::from_static(b" and late"), true).unwrap();
        }
    );
}

#[tokio::test]
async fn without_http_2_it_is_http_1() {
    for protocols in [H1, &[]] {
        let upstream = Upstream::start(protocols).await;
        let client = upstream.client();
        let (answered, ()) = tokio::join!(async { read(ask(&client).await).await }, async {
            let head = answer_h1(&mut upstream.accept().await).await;
            assert!(head.starts_with("POST /v1/chat HTTP/1.1\r\nhost: localhost:"), "{head}");
        });
        assert_eq!(answered, "ok");
    }
}

#[tokio::test]
async fn a_burst_over_http_1_has_a_connection_for_each() {
    let upstream = Upstream::start(H1).await;
    let client = upstream.client();
    let asked = join_all((0..5).map(|_| async { read(ask(&client).await).await }));
    let (answers, ()) = tokio::join!(asked, async {
        let mut all = Vec::new();
        while all.len() < 5 {
            all.push(upstream.accept().await);
        }
        join_all(all.iter_mut().map(answer_h1)).await;
    });
    assert_eq!(answers.len(), 5);
}

#[tokio::test]
async fn beyond_what_the_provider_takes_there_is_another_connection() {
    let upstream = Upstream::start(H2).await;
    let client = upstream.client();
    let few = |stream| async {
        h2::server::Builder::new().max_concurrent_streams(2).handshake::<_, Bytes>(stream).await.unwrap()
    };
    // With the first answer, the provider's settings are known.
    let (first, mut connection) = tokio::join!(async { read(ask(&client).await).await }, async {
        let mut connection = few(upstream.accept().await).await;
        answer(next(&mut connection).await.1, "ok");
        let _ = futures_util::poll!(pin!(connection.accept()));
        connection
    });
    assert_eq!(first, "ok");
    let asked = join_all((0..3).map(|_| async { read(ask(&client).await).await }));
    let ((), answers) = tokio::join!(
        async {
            let two = [next(&mut connection).await.1, next(&mut connection).await.1];
            keep_moving(connection);
            let mut other = few(upstream.accept().await).await;
            answer(next(&mut other).await.1, "ok");
            keep_moving(other);
            two.into_iter().for_each(|respond| answer(respond, "ok"));
        },
        asked
    );
    assert_eq!(answers, ["ok", "ok", "ok"]);
}

#[tokio::test]
async fn what_is_dropped_resets_its_stream_alone() {
    let upstream = Upstream::start(H2).await;
    let client = upstream.client();
    let (dropped, kept, ((_, mut responding), mut waiting, mut kept_out)) =
        tokio::join!(async { ask(&client).await.unwrap() }, async { ask(&client).await.unwrap() }, async {
            let mut connection = upstream.h2().await;
            let mut first = next(&mut connection).await;
            let mut second = next(&mut connection).await;
            let outgoing = begin(&mut first.1, "beginning");
            let kept = begin(&mut second.1, "beginning");
            // A third one, of which nobody waits for the answer any more.
            let third = {
                let mut asking = pin!(ask(&client));
                tokio::select! {
                    answered = &mut asking => panic!("{}", refusal(answered)),
                    third = next(&mut connection) => third,
                }
            };
            keep_moving(connection);
            ((first, outgoing), third.1, kept)
        });
    let mut body = dropped.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "beginning");
    drop(body);
    let reason = std::future::poll_fn(|context| responding.poll_reset(context)).await.unwrap();
    assert_eq!(reason, h2::Reason::CANCEL);
    let reason = std::future::poll_fn(|context| waiting.poll_reset(context)).await.unwrap();
    assert_eq!(reason, h2::Reason::CANCEL);
    kept_out.send_data(Bytes::from_static(b" and end"), true).unwrap();
    assert_eq!(kept.into_body().collect().await.unwrap().to_bytes(), "beginning and end");
    assert!(nobody_comes(&upstream).await);
}

#[tokio::test]
async fn hundreds_that_are_dropped_leave_the_connection_as_it_was() {
    let upstream = Upstream::start(H2).await;
    let client = upstream.client();
    let serve = async {
        let mut connection = upstream.h2().await;
        let mut all = Vec::new();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            all.push(begin(&mut respond, "beginning"));
        }
    };
    let ask_often = async {
        for _ in 0..500 {
            let mut body = ask(&client).await.unwrap().into_body();
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "beginning");
        }
    };
    tokio::select! { () = serve => panic!("the connection was closed"), () = ask_often => {} }
    assert!(nobody_comes(&upstream).await);
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_a_while() {
    let upstream = Upstream::start(H2).await;
    let client = upstream.client();
    let (answered, mut connection) = tokio::join!(async { read(ask(&client).await).await }, async {
        let mut connection = upstream.h2().await;
        answer(next(&mut connection).await.1, "ok");
        let _ = futures_util::poll!(pin!(connection.accept()));
        connection
    });
    assert_eq!(answered, "ok");
    // From here on time runs by itself, as fast as everybody waits.
    tokio::time::pause();
    assert!(connection.accept().await.is_none());
    drop(client);
}

#[tokio::test]
async fn only_certificates_of_known_authorities_are_believed() {
    let upstream = Upstream::start(H2).await;
    let base = |host: &str| format!("https://{host}:{}/v1", upstream.port());
    // The authority is not known; or it is, but did not sign for this name.
    for (client, why) in [
        (client(&base("localhost"), false), "UnknownIssuer"),
        (client(&base("elsewhere.localhost"), true), "not valid for name"),
    ] {
        let (answered, ()) = tokio::join!(ask(&client), upstream.accept_nothing());
        match refusal(answered) {
            SendError::Connect(ConnectError::Tls { error, .. }) => assert!(error.contains(why), "{error}"),
            other => panic!("{other}"),
        }
    }
}
