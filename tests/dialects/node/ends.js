// Where a peer speaks: node <peer>.js client <url> | server | child
"use strict";

const readline = require("node:readline");
const { makeApi, report } = require("./api.js");

// A Channel is made with what it sends by, and with what it serves; a client runs the programs.
function run(Channel, programs) {
  const [role, url] = process.argv.slice(2);
  if (role === "client") {
    const { WebSocket } = require("ws");
    const socket = new WebSocket(url);
    const channel = speaking(socket, new Channel(socket, {}));
    socket.on("open", () => report(programs(channel)));
  } else if (role === "server") {
    const { WebSocketServer } = require("ws");
    const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
    server.on("connection", (socket) => speaking(socket, new Channel(socket, makeApi())));
    server.on("listening", () => console.log(server.address().port));
  } else {
    // With a message to a line.
    const send = (text) => process.stdout.write(text.trimEnd() + "\n");
    const channel = new Channel({ send, bufferedAmount: 0 }, makeApi());
    readline.createInterface({ input: process.stdin }).on("line", (line) => channel.receive(line));
  }
}

function speaking(socket, channel) {
  socket.on("message", (data) => channel.receive(data.toString()));
  return channel;
}

module.exports = { run };
