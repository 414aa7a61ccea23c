// Measures rooms: the messages that a server delivers in a second of its CPU time, and its memory per member.
//
// One member sends texts of 125 bytes, one at a time or 16, and all members receive them. The members are bare sockets
// that compare the first frames byte for byte, and then count bytes. All servers run with one core for their
// own work; the load runs in this process.
import { spawn, execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const MEMBERS = Number(process.argv[2] ?? 5000);
const SECONDS = Number(process.argv[3] ?? 5);
const BURST = 16;
const TEXT = 'x'.repeat(125);
const REDIS_PORT = 18579;
const REDIS = `redis://127.0.0.1:${REDIS_PORT}`;
const here = name => fileURLToPath(new URL(name, import.meta.url));
const TICKS = Number(execFileSync('getconf', ['CLK_TCK']));
const PAGE = Number(execFileSync('getconf', ['PAGESIZE']));

const bench = [here('../target/release/bowline-bench'), 'serve', '--library', 'bowline-hub', '--workload', 'chat'];
const SERVERS = [
  ['ws, a loop', ['node', here('ws.mjs')], '/', frame],
  ['Socket.IO', ['node', here('socket-io.mjs')], '/socket.io/?EIO=4&transport=websocket', event],
  ['bowline-hub', bench, '/', frame],
  ['Socket.IO, Redis', ['node', here('socket-io.mjs'), REDIS], '/socket.io/?EIO=4&transport=websocket', event],
  ['bowline-hub, Redis', [...bench, '--redis', REDIS], '/', frame],
];

// What a member sends and receives for a text.
function frame() {
  return { open: [], sent: masked(TEXT), received: plain(TEXT) };
}

function event() {
  const packet = `42${JSON.stringify(['m', TEXT])}`;
  return { open: [masked('40')], sent: masked(packet), received: plain(packet) };
}

function header(length, mask) {
  if (length < 126) return Buffer.from([0x81, mask | length]);
  return Buffer.from([0x81, mask | 126, length >> 8, length & 255]);
}

function plain(text) {
  return Buffer.concat([header(text.length, 0), Buffer.from(text)]);
}

// The masking key is 0, which leaves the text as it is.
function masked(text) {
  return Buffer.concat([header(text.length, 0x80), Buffer.alloc(4), Buffer.from(text)]);
}

class Member {
  bytes = 0;
  first = [];

  static async open(port, path, open) {
    const member = new Member();
    member.socket = net.connect({ port, host: '127.0.0.1', noDelay: true });
    await once(member.socket, 'connect');
    member.socket.write(
      `GET ${path} HTTP/1.1\r\nHost: localhost:${port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
        'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
    );
    await once(member.socket, 'data');
    for (const message of open) {
      member.socket.write(message);
      // The answer, which says that the member is in.
      await once(member.socket, 'data');
    }
    member.socket.on('data', data => {
      member.bytes += data.length;
      if (member.first) member.first.push(data);
    });
    return member;
  }
}

// The CPU time of a process so far, in seconds.
function cpu(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS;
}

function memory(pid) {
  return Number(readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ')[1]) * PAGE;
}

async function measure([name, command, path, protocol]) {
  const { open, sent, received } = protocol();
  const server = spawn(command[0], command.slice(1), { stdio: ['pipe', 'pipe', 'inherit'] });
  try {
    const [line] = await once(server.stdout, 'data');
    const port = Number(String(line).trim().split(':').pop());
    await sleep(500);
    const before = memory(server.pid);
    const members = [];
    while (members.length < MEMBERS) {
      const count = Math.min(50, MEMBERS - members.length);
      members.push(...(await Promise.all(Array.from({ length: count }, () => Member.open(port, path, open)))));
    }
    await sleep(1000);
    const perMember = (memory(server.pid) - before) / MEMBERS;
    // Anything that arrived late with the handshake does not count.
    for (const member of members) [member.bytes, member.first] = [0, []];
    let messages = 0;
    const round = async count => {
      members[0].socket.write(Buffer.concat(Array(count).fill(sent)));
      messages += count;
      while (members.some(member => member.bytes < messages * received.length)) await sleep(1);
    };
    await round(1);
    for (const member of members) {
      if (!Buffer.concat(member.first).equals(received)) throw new Error(`${name}: a member got wrong bytes`);
      member.first = null;
    }
    const rates = [];
    for (const count of [1, BURST]) {
      for (let warm = 0; warm < 5; warm += 1) await round(count);
      const [began, spent, start] = [performance.now(), cpu(server.pid), messages];
      while (performance.now() - began < SECONDS * 1000) await round(count);
      rates.push(((messages - start) * MEMBERS) / (cpu(server.pid) - spent));
    }
    members.forEach(member => member.socket.destroy());
    return [name, ...rates, perMember];
  } finally {
    server.kill('SIGKILL');
    await once(server, 'exit');
  }
}

const redis = spawn('redis-server', ['--bind', '127.0.0.1', '--port', `${REDIS_PORT}`, '--save', ''], { stdio: 'ignore' });
try {
  await sleep(500);
  console.log(`${MEMBERS} members, a text of ${TEXT.length} bytes to all\n`);
  console.log(`| | messages per CPU second | the same, ${BURST} at a time | bytes per member |`);
  console.log('|---|---:|---:|---:|');
  const format = number => Math.round(number).toLocaleString('en-US');
  for (const server of SERVERS) {
    const [name, ...numbers] = await measure(server);
    console.log(`| ${name} | ${numbers.map(format).join(' | ')} |`);
  }
} finally {
  redis.kill();
}
