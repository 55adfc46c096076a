// Instances on Node: node.mjs INSTANCES KEEP_ALIVE_MS [h2c]
import http from 'node:http';
import http2 from 'node:http2';

const [instances, keepAlive, protocol] = process.argv.slice(2);
const seen = new Map();

function handle(request, response) {
  const id = request.headers['x-id'];
  if (id) seen.set(id, (seen.get(id) ?? 0) + 1);
  // Over HTTP/2 `destroy` ends the session and its socket; the socket itself is not to be touched.
  const session = request.stream?.session;
  const close = () => (session ? session.destroy() : request.socket.destroy());
  switch (request.url) {
    case '/good':
      request.resume();
      return request.on('end', () => response.end('good'));
    case '/panic': // what Express and Koa make of a handler that throws
      response.statusCode = 500;
      return response.end();
    case '/close':
      return close();
    case '/reset':
      return session ? close() : request.socket.resetAndDestroy();
    case '/cut':
      response.writeHead(200, { 'content-length': 100 });
      return response.write('ten bytes.', close);
    case '/late':
      return response.end('good', () => setTimeout(close, 1));
    case '/twice':
      return response.end(String([...seen.values()].filter((times) => times > 1).length));
    default:
      response.statusCode = 404;
      return response.end();
  }
}

const listening = Array.from({ length: Number(instances) }, () => new Promise((told) => {
  const server = protocol === 'h2c' ? http2.createServer(handle) : http.createServer(handle);
  server.keepAliveTimeout = Number(keepAlive);
  server.on('sessionError', () => {});
  server.listen(0, '127.0.0.1', () => told(server.address().port));
}));
console.log('listening', ...(await Promise.all(listening)));
process.stdin.resume().on('end', () => process.exit());
