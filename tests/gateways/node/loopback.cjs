// Loaded before Portkey's gateway, which would listen on every address of the machine and does not say on which
// port when the system chooses it: this makes it 127.0.0.1, and says it.
const { Server } = require('node:net');

const { listen } = Server.prototype;
Server.prototype.listen = function listenOnLoopback(port, ...rest) {
  this.once('listening', () => console.log(`listening on http://127.0.0.1:${this.address().port}`));
  return listen.call(this, { port, host: '127.0.0.1' }, rest.find((argument) => typeof argument === 'function'));
};
