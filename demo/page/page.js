import { Room } from './room.js';

const ROOMS = ['lobby', 'garden', 'harbour'];
// The number of messages that the page shows.
const SHOWN = 200;
const PAUSE = 1000;

const element = id => document.getElementById(id);
const create = (tag, properties, ...children) => {
  const created = Object.assign(document.createElement(tag), properties);
  created.append(...children);
  return created;
};

const room = location.hash.slice(1) || ROOMS[0];
// All windows of a browser are one person, and `?name=` is another one.
const name = new URLSearchParams(location.search).get('name')
  ?? (localStorage.name ??= 'guest ' + Math.floor(Math.random() * 1000));

element('room').textContent = decodeURIComponent(room);
element('rooms').append(...ROOMS.map(other => create('a', { href: '#' + other, textContent: other })));
onhashchange = () => location.reload();

// The room.

let node = '';
const messages = element('messages');

function show(line) {
  const isAtEnd = messages.scrollHeight - messages.scrollTop - messages.clientHeight < 40;
  messages.append(line);
  while (messages.childElementCount > SHOWN) messages.firstChild.remove();
  if (isAtEnd) messages.scrollTop = messages.scrollHeight;
  showNumbers();
}

function showNumbers() {
  for (const [count, number] of Object.entries(client.sequence.counts)) {
    const shown = document.querySelector(`[data-count=${count}]`);
    shown.textContent = number.toLocaleString('en');
    shown.classList.toggle('bad', number > 0);
  }
  element('unsent').textContent = client.unsent.length ? `${client.unsent.length} not sent yet` : '';
}

const client = new Room(room, name, {
  state(state, text) {
    if (state === 'live' && client.connections > 1) {
      show(create('li', { className: 'told', textContent: `now on ${text}` }));
    }
    node = state === 'live' ? text : '';
    const texts = { connecting: 'connecting', live: `live on ${text}`, waiting: `waiting to come back after ${text}` };
    Object.assign(element('connection'), { textContent: texts[state] }).dataset.state = state;
    for (const program of element('programs').children) program.classList.toggle('mine', program.id === node);
  },
  message({ name, publisher, number, text, fault }) {
    const line = create('li', { className: fault ?? '' });
    if (publisher === client.publisher) line.classList.add('own');
    line.append(create('b', { textContent: name }), create('span', { className: 'number', textContent: number }));
    line.append(create('span', { textContent: fault ? `${text} (${fault})` : text }));
    show(line);
  },
  lost() {
    show(create('li', { className: 'lost', textContent: 'The broker has lost messages. These are the last ones of the room:' }));
  },
  accepted: showNumbers,
  here: showPresent,
  joined: showPresent,
  left({ name }) {
    window.demo.departures.push(name);
    showPresent();
  },
});

function showPresent() {
  const names = [...client.present].sort();
  element('count').textContent = names.length;
  element('present').replaceChildren(...names.map(name => create('li', { textContent: name })));
}

element('say').onsubmit = event => {
  event.preventDefault();
  if (element('text').value) client.say(element('text').value);
  element('text').value = '';
  showNumbers();
};

// The cluster.

let control;

function connectControl() {
  control = new WebSocket(new URL('/control', location.href.replace(/^http/, 'ws')));
  control.onmessage = event => {
    const { programs, robots } = JSON.parse(event.data);
    window.demo.robots = robots;
    element('programs').replaceChildren(...programs.map(showProgram));
    const { rate, received, gaps, doubles, losses } = robots;
    element('robots').textContent =
      `${robots.robots} robots: ${received.toLocaleString('en')} received, ${gaps} gaps, ${doubles} doubles, ${losses} losses`;
    for (const button of element('load').querySelectorAll('button')) {
      button.ariaPressed = Number(button.dataset.rate) === rate;
    }
    element('control').textContent = '';
  };
  control.onclose = () => {
    element('control').textContent = 'The demonstration is out of reach.';
    setTimeout(connectControl, PAUSE * (0.5 + Math.random()));
  };
}

function order(message) {
  if (control.readyState === WebSocket.OPEN) control.send(JSON.stringify(message));
}

function showProgram({ name, pid, ends }) {
  const button = (textContent, data) =>
    create('button', { textContent, disabled: !pid, onclick: () => order({ kind: 'kill', name, data }) });
  const state = pid ? `pid ${pid}` : 'killed';
  const line = create('li', { id: name, className: pid ? 'up' : 'down' });
  line.classList.toggle('mine', name === node);
  line.append(create('b', { textContent: name }), create('span', { textContent: state }));
  line.append(button('kill -9', 'kept'));
  if (name === 'broker') line.append(button('with its data', 'lost'));
  line.title = `has ended ${ends} times`;
  return line;
}

for (const button of element('load').querySelectorAll('button')) {
  button.onclick = () => order({ kind: 'load', rate: Number(button.dataset.rate) });
}

// For the console, and for tests: `heard` counts the messages with a text.
const texts = () => [...messages.querySelectorAll('span:last-child')].map(span => span.textContent);
window.demo = { client, order, departures: [], heard: text => texts().filter(heard => heard === text).length };
connectControl();
