// A room by a loop over the clients of `ws`, as its documentation shows.
import { WebSocketServer } from 'ws';

const server = new WebSocketServer({ port: 0, host: '127.0.0.1' });
server.on('listening', () => console.log(server.address().port));
server.on('connection', socket => {
  socket.on('message', (message, isBinary) => {
    for (const client of server.clients) {
      if (client.readyState === 1) client.send(message, { binary: isBinary });
    }
  });
});
