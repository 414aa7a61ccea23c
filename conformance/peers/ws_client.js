// The peer client of README.md on the `ws` package: runs the named checks against the server at a URL.
"use strict";

const assert = require("node:assert/strict");
const { on, once } = require("node:events");
const WebSocket = require("ws");

const [url, ...names] = process.argv.slice(2);
const MEBIBYTE = 1 << 20;

async function connect(path, subprotocols = []) {
  // Short messages are compressed as well, if that is agreed on.
  const socket = new WebSocket(url + path, subprotocols, { perMessageDeflate: { threshold: 0 } });
  // It also rejects the promise that waits at that moment; without a listener it would end the program.
  socket.on("error", (error) => console.error(path, error.message));
  // From the start: what comes right behind the handshake is emitted before the code after `await` runs.
  socket.messages = on(socket, "message");
  socket.ended = new Promise((resolve) => {
    socket.on("close", (code, reason) => resolve({ code, reason: reason.toString() }));
  });
  await once(socket, "open");
  return socket;
}

/** Takes strings and buffers, and tells them apart again in what comes back. */
async function receive(socket) {
  const { value } = await socket.messages.next();
  const [data, isBinary] = value;
  return isBinary ? data : data.toString();
}

async function isEchoed(message) {
  const socket = await connect("/echo");
  socket.send(message);
  assert.deepEqual(await receive(socket), message);
  socket.close();
}

async function compression() {
  const socket = await connect("/echo");
  assert.match(socket.extensions, /permessage-deflate/);
  for (let i = 0; i < 20; i++) {
    const message = `{"number":${i},"text":"κόσμε"}`.repeat(1 + i * 10);
    socket.send(message);
    assert.equal(await receive(socket), message);
  }
  socket.close();
}

async function fragmented() {
  const socket = await connect("/fragments");
  const text = Buffer.from("one, δύο, three");
  // The first fragment ends within a code point.
  socket.send(text.subarray(0, 6), { binary: false, fin: false });
  socket.send("", { fin: false });
  socket.send(text.subarray(6), { fin: true });
  assert.equal(await receive(socket), text.toString());
  socket.send(Buffer.from([0, 255]), { fin: false });
  socket.send(Buffer.from([254]), { fin: true });
  assert.deepEqual(await receive(socket), Buffer.from([0, 255, 254]));
  socket.close();
}

async function pingFromClient() {
  const socket = await connect("/echo");
  socket.ping("are you there?");
  const [payload] = await once(socket, "pong");
  assert.equal(payload.toString(), "are you there?");
  socket.close();
}

async function pingFromServer() {
  const socket = await connect("/ping");
  assert.equal(await receive(socket), "pong");
  socket.close();
}

async function subprotocol() {
  const socket = await connect("/echo", ["chat.v1", "chat.v2", "chat.v3"]);
  assert.equal(socket.protocol, "chat.v2");
  socket.close();
}

async function noSubprotocol() {
  const socket = await connect("/echo");
  assert.equal(socket.protocol, "");
  socket.close();
}

async function serverCloses(code) {
  const socket = await connect(`/close/${code}`);
  assert.deepEqual(await socket.ended, { code, reason: "enough" });
}

async function clientCloses(code, outcome) {
  const socket = await connect("/record");
  socket.close(code, "leaving");
  assert.equal((await socket.ended).code, code);
  const asking = await connect("/outcome");
  assert.equal(await receive(asking), outcome);
  asking.close();
}

const everyByte = Buffer.from(Array.from({ length: 256 }, (_, index) => index));

const checks = {
  "text": () => isEchoed("hello"),
  "multibyte text": () => isEchoed("κόσμε 🪢"),
  "empty message": () => isEchoed(""),
  "binary": () => isEchoed(everyByte),
  "1 MiB of binary": () => isEchoed(Buffer.alloc(MEBIBYTE, everyByte)),
  "1 MiB of text": () => isEchoed("🪢".repeat(MEBIBYTE / 4)),
  "compression": compression,
  "fragmented": fragmented,
  "ping from client": pingFromClient,
  "ping from server": pingFromServer,
  "subprotocol": subprotocol,
  "no subprotocol": noSubprotocol,
  "server closes with 4001": () => serverCloses(4001),
  "server closes with 1000": () => serverCloses(1000),
  "client closes with 4002": () => clientCloses(4002, "error 4002 leaving"),
  "client closes with 1000": () => clientCloses(1000, "normal 1000 leaving"),
};

function timeLimit() {
  return new Promise((_, reject) => {
    setTimeout(() => reject(new Error("nothing more happened within 10 s")), 10_000);
  });
}

async function main() {
  for (const name of names) {
    try {
      await Promise.race([checks[name](), timeLimit()]);
      console.log(`ok ${name}`);
    } catch (error) {
      console.log(`failed ${name}: ${error.message.replaceAll("\n", " ").slice(0, 300)}`);
    }
  }
  process.exit();
}

main();
