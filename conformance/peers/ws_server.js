// The peer server of README.md on the `ws` package; prints `listening on HOST:PORT` when it is ready.
"use strict";

const { WebSocketServer } = require("ws");

const SUBPROTOCOLS = ["chat.v2", "chat.v1"];

/** How /record connections ended, and who waits to be told. */
const outcomes = [];
const waiting = [];

const server = new WebSocketServer({
  host: "127.0.0.1",
  port: 0,
  // Short messages as well.
  perMessageDeflate: { threshold: 0 },
  handleProtocols: (offered) => SUBPROTOCOLS.find((subprotocol) => offered.has(subprotocol)) ?? false,
});
server.on("listening", () => console.log(`listening on 127.0.0.1:${server.address().port}`));
server.on("connection", (socket, request) => handle(socket, request.url));

function handle(socket, path) {
  socket.on("error", (error) => console.error(path, error));
  if (path === "/echo") {
    socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }));
  } else if (path === "/fragments") {
    // `ws` hands out whole messages only, so nothing can be sent back before the message is complete.
    socket.on("message", (data, isBinary) => sendFragments(socket, data, isBinary));
  } else if (path === "/ping") {
    socket.on("pong", () => socket.send("pong"));
    socket.ping();
  } else if (path.startsWith("/close/")) {
    socket.close(Number(path.slice("/close/".length)), "enough");
  } else if (path === "/record") {
    socket.on("close", (code, reason) => {
      outcomes.push(`${code === 1000 ? "normal" : "error"} ${code} ${reason}`);
      deliverOutcomes();
    });
  } else if (path === "/outcome") {
    waiting.push(socket);
    deliverOutcomes();
  }
}

function sendFragments(socket, data, isBinary) {
  const middle = Math.floor(data.length / 2);
  socket.send(data.subarray(0, middle), { binary: isBinary, fin: false });
  socket.send("", { fin: false });
  socket.send(data.subarray(middle), { fin: true });
}

function deliverOutcomes() {
  while (outcomes.length > 0 && waiting.length > 0) {
    waiting.shift().send(outcomes.shift());
  }
}
