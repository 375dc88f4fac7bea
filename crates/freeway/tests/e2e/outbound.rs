//! The way out: through the configured proxy, and through nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::faults::{DEADLINE, told};
use crate::gateway::{Gateway, Home, program};
use crate::http::Ask;
use crate::last_word::check_error;
use crate::upstream::Upstream;

/// A proxy that leads everybody who knows the password to one port of this machine, and counts them.
async fn proxy(port: u16) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = listener.local_addr().unwrap().port();
    let led = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&led);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await?);
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                // base64 of `user:canary`.
                let is_known = head.contains("proxy-authorization: Basic dXNlcjpjYW5hcnk=\r\n");
                if !head.starts_with("CONNECT upstream.test:80 HTTP/1.1\r\n") || !is_known {
                    return stream.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await;
                }
                let mut target = TcpStream::connect(("127.0.0.1", port)).await?;
                stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
                copy_bidirectional(&mut stream, &mut target).await.map(|_| ())
            });
        }
    });
    (place, led)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_asked_through_the_configured_proxy_only() {
    let lab = Upstream::new("lab").await;
    let port: u16 = lab.sim.base_url().split(['/', ':']).find_map(|part| part.parse().ok()).unwrap();
    let (way_out, led) = proxy(port).await;
    let (usual, astray) = proxy(port).await;
    let table = lab.table().replace(&format!("http://127.0.0.1:{port}"), "http://upstream.test");
    assert!(table.contains("http://upstream.test/"), "{table}");
    let place = format!("no connection through the proxy 127.0.0.1:{way_out}");
    for (password, status) in [("canary", 200), ("canary-not", 502)] {
        let home = Home::new(&format!("[server]\nproxy = \"http://user:{password}@127.0.0.1:{way_out}\"\n{table}"));
        let gateway = serve_with_usual_proxies(&home, usual).await;
        let reply = gateway.ask(&Ask::chat(&lab.target(), false).header("x-freeway-deadline", DEADLINE)).await;
        assert_eq!(reply.head.status, status, "{}", reply.everything());
        assert_eq!(reply.everything().contains(&place), status != 200, "{}", reply.everything());
        for told in [reply.everything(), gateway.said(), String::from_utf8_lossy(&home.written()).into_owned()] {
            assert!(!told.contains("canary") && !told.contains("dXNlcjpjYW5hcn"), "{told}");
        }
    }
    assert_eq!((lab.asked(), led.load(Ordering::SeqCst) > 1), (1, true));
    assert_eq!(astray.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_wants_other_credentials_is_asked_once_and_named_with_its_setting() {
    let (way_out, led) = proxy(1).await;
    let (lab, near) = (Upstream::new("lab").await, Upstream::new("near").await);
    let table = lab.table().replace("http://127.0.0.1:", "http://upstream.test:");
    let alias =
        format!("[aliases.pair]\nstrategy = \"ordered\"\ntargets = [\"{}\", \"{}\"]\n", lab.target(), near.target());
    let server = format!("[server]\nproxy = \"http://127.0.0.1:{way_out}\"\n");
    let gateway = Gateway::start(&[server, table, near.table(), alias].concat()).await;
    // Whoever is reached without the proxy answers at once.
    let reply = gateway.ask(&Ask::chat("pair", false)).await;
    let served = reply.head.header("x-freeway-provider");
    assert_eq!(
        (reply.head.status, served, led.load(Ordering::SeqCst)),
        (200, Some("near"), 1),
        "{}",
        reply.everything()
    );
    // The first target of an alias, and the last one, are tried twice after what may pass.
    let reply = gateway.ask(&Ask::chat(&lab.target(), false)).await;
    assert_eq!(led.load(Ordering::SeqCst), 2, "{}", reply.everything());
    let expected = told(502, "upstream_connection_failed", false, None);
    let message = check_error(&reply, expected, "a proxy that wants other credentials");
    assert!(message.contains("status 407") && message.contains("`proxy` of [server]"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_on_this_machine_is_asked_directly() {
    let lab = Upstream::new("lab").await;
    let (way_out, led) = proxy(1).await;
    let home = Home::new(&format!("[server]\nproxy = \"http://127.0.0.1:{way_out}\"\n{}", lab.table()));
    let gateway = serve_with_usual_proxies(&home, way_out).await;
    let reply = gateway.ask(&Ask::chat(&lab.target(), false)).await;
    assert_eq!((reply.head.status, led.load(Ordering::SeqCst)), (200, 0), "{}", reply.everything());
}

/// Serves in an environment in which other programs would use a proxy.
async fn serve_with_usual_proxies(home: &Home, port: u16) -> Gateway {
    let mut command = program();
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
        command.env(name, format!("http://user:canary@127.0.0.1:{port}"));
    }
    command.args(["serve", "--log", "debug", "--config"]).arg(home.config()).current_dir(home.path());
    Gateway::run(command).await
}
