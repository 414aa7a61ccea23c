// A room of Socket.IO. With the URL of a Redis, the room is on all servers that share it.
import { createServer } from 'node:http';
import { createAdapter } from '@socket.io/redis-adapter';
import { createClient } from 'redis';
import { Server } from 'socket.io';

const http = createServer();
const io = new Server(http, { transports: ['websocket'] });
const url = process.argv[2];
if (url) {
  const publisher = createClient({ url });
  const subscriber = publisher.duplicate();
  await Promise.all([publisher.connect(), subscriber.connect()]);
  io.adapter(createAdapter(publisher, subscriber));
}
io.on('connection', socket => {
  socket.join('room');
  socket.on('m', text => io.to('room').emit('m', text));
});
http.listen(0, '127.0.0.1', () => console.log(http.address().port));
