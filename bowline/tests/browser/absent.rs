//! Uses of the native library that a browser has no means for. Each marked line must not compile: a call that
//! is ignored would be found out by users. `.ci/browser` compiles this module, and looks for the errors.

/// Items that don't exist. The compiler reports them before it looks at methods.
#[cfg(bowline_absent = "items")]
mod items {
    use bowline::Acceptor; // absent
    use bowline::Compression; // absent
    use bowline::ConnectionStats; // absent
    use bowline::MessageReader; // absent
    use bowline::MessageWriter; // absent
    use bowline::Proxy; // absent
    use bowline::Reconnecting; // absent
    use bowline::SendBatch; // absent
    use bowline::Server; // absent
    use bowline::WebSocketIo; // absent
    use bowline::accept; // absent
    use bowline::blocking; // absent
    use bowline::pair; // absent
    use bowline::rustls; // absent
    use bowline::serve; // absent
}

/// Methods that don't exist.
#[cfg(bowline_absent = "methods")]
mod methods {
    use bowline::{Connector, Limits, Payload, Sender, WebSocket};

    fn connector(connector: Connector) {
        connector.clone().header("authorization", "Bearer 1234"); // absent
        connector.clone().headers(Default::default()); // absent
        connector.clone().host("example.com"); // absent
        connector.clone().origin("https://example.com"); // absent
        connector.clone().tls(Default::default()); // absent
        connector.clone().proxy(Default::default()); // absent
        connector.clone().http_version(Default::default()); // absent
        connector.clone().keepalive(None); // absent
        connector.clone().compression(Default::default()); // absent
        connector.clone().redirects(1); // absent
        connector.clone().on_control(|_| ()); // absent
        connector.clone().reconnecting("ws://example.com"); // absent
        connector.connect_over("ws://example.com", ()); // absent
        connector.connect_http2("wss://example.com"); // absent
        connector.adopt((), ()); // absent
        connector.request("ws://example.com"); // absent
    }

    fn websocket(socket: &mut WebSocket, sender: &Sender) {
        socket.ping(); // absent
        socket.pong([]); // absent
        socket.reader(); // absent
        socket.writer(()); // absent
        socket.peer_addr(); // absent
        socket.local_addr(); // absent
        socket.compression(); // absent
        sender.ping(); // absent
        sender.writer(()); // absent
        sender.batch(); // absent
        sender.peer_addr(); // absent
    }

    fn settings(limits: Limits, payload: Payload<'_>) {
        limits.clone().frames_per_message(1); // absent
        limits.clone().head_size(1); // absent
        limits.clone().max_headers(1); // absent
        limits.clone().unsent(1); // absent
        payload.compress(false); // absent
    }
}
