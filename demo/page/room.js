// A client of a room: it connects again after each loss, continues after its last message, and checks that it
// receives an unbroken sequence. Nothing here knows of the page.

// The bounds of the pauses before another attempt to connect, in milliseconds.
const BASE = 500, MAX = 5000;
// The pause after a refusal, in milliseconds.
const REFUSED = 500;

// The messages that a client has received.
export class Sequence {
  counts = { received: 0, gaps: 0, doubles: 0, losses: 0 };
  // The position of the last message.
  last = null;
  // The last number of each publisher.
  numbers = new Map();

  // Starts the sequence, unless a message was faster than the welcome.
  start(at) {
    this.last ??= at;
  }

  // Continues after a loss, and after a position unless it is null. Anything may be missing before.
  lose(at) {
    this.counts.losses++;
    this.last = at;
    this.numbers.clear();
  }

  // Checks that a message follows the last one of the room, and the last one of its publisher. Returns what is
  // wrong: 'gap', 'double' or null.
  receive({ at, before, publisher, number }) {
    const last = this.last ?? before, lastNumber = this.numbers.get(publisher) ?? number - 1;
    this.last = at;
    this.numbers.set(publisher, number);
    this.counts.received++;
    if (number <= lastNumber) {
      this.counts.doubles++;
      return 'double';
    }
    if (before !== last || number > lastNumber + 1) {
      this.counts.gaps++;
      return 'gap';
    }
    return null;
  }
}

// A room. `on` has a function for each kind of message of the protocol, and `state`, which is called with
// 'connecting', 'live' or 'waiting' and a text.
export class Room {
  sequence = new Sequence();
  // The names of all who are in the room.
  present = new Set();
  // The texts that no node has accepted yet, the oldest first.
  unsent = [];
  // The number of times that this page was live in the room.
  connections = 0;
  // The number of the next message. A message keeps its number until it is accepted, so it is published once.
  #number = 1;
  #failures = 0;
  #socket;

  constructor(room, name, on) {
    Object.assign(this, { room, name, on });
    // Kept as long as the page. Two pages of one person are two publishers.
    this.publisher = crypto.randomUUID();
    this.#connect();
  }

  say(text) {
    this.unsent.push(text);
    if (this.unsent.length === 1) this.#publish();
  }

  #connect() {
    this.on.state('connecting', '');
    this.#socket = new WebSocket(new URL('/rooms/' + this.room, location.href.replace(/^http/, 'ws')));
    this.#socket.onopen = () => {
      this.#send({ kind: 'hello', name: this.name, publisher: this.publisher, since: this.sequence.last });
    };
    this.#socket.onmessage = event => this.#receive(JSON.parse(event.data));
    this.#socket.onclose = event => this.#wait(event);
  }

  #receive(message) {
    if (message.kind === 'welcome') {
      this.#failures = 0;
      this.connections++;
      this.sequence.start(message.at);
      this.on.state('live', message.node);
      this.#publish();
    } else if (message.kind === 'lost') {
      // Otherwise, the last messages of the room come next.
      if (message.at) this.#reload();
      this.sequence.lose(null);
    } else if (message.kind === 'message') {
      message.fault = this.sequence.receive(message);
    } else if (message.kind === 'here') {
      this.present = new Set(message.names);
    } else if (message.kind === 'joined') {
      this.present.add(message.name);
    } else if (message.kind === 'left') {
      this.present.delete(message.name);
    } else if (message.kind === 'accepted' && message.number === this.#number) {
      this.#number++;
      this.unsent.shift();
      this.#publish();
    } else if (message.kind === 'refused') {
      setTimeout(() => this.#publish(), REFUSED);
    }
    this.on[message.kind]?.(message);
  }

  // Connects again, as a new page does, to begin with the last messages of the room.
  #reload() {
    this.#socket.onmessage = null;
    this.#socket.close(4000, 'messages are lost');
  }

  // Publishes the oldest text that was not accepted. One is under way at a time, so their order stays.
  #publish() {
    if (this.unsent.length > 0) this.#send({ kind: 'publish', number: this.#number, text: this.unsent[0] });
  }

  #send(message) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  // Waits with full jitter: the clients of a node that died don't come back together.
  #wait(event) {
    const delay = Math.random() * Math.min(MAX, BASE * 2 ** this.#failures++);
    this.on.state('waiting', [event.code, event.reason].join(' ').trim());
    setTimeout(() => this.#connect(), delay);
  }
}
