// Cap'n Web over WebSocket, with the ws package. Streams are ReadableStreams: the library bounds
// what is on its way by itself. What it sends is JSON, so that chunks travel as base64.

import { RpcTarget, newWebSocketRpcSession } from "capnweb";
import { WebSocket, WebSocketServer } from "ws";

import { CHUNK, TEXT, main } from "./common.mjs";

// Before version 22 Node has none, and the library asks it for a constant.
globalThis.WebSocket ??= WebSocket;

function streamOf(count, item) {
  let number = 0;
  return new ReadableStream({
    pull(controller) {
      if (number < count) {
        controller.enqueue(item(number++));
      } else {
        controller.close();
      }
    },
  });
}

function items(count) {
  return streamOf(count, (number) => ({ i: number, s: TEXT }));
}

async function countAndSum(stream) {
  let count = 0;
  let total = 0;
  for await (const item of stream) {
    count += 1;
    total += item.i;
  }
  return [count, total];
}

class Service extends RpcTarget {
  add(number) {
    return number + 1;
  }

  items(count) {
    return items(count);
  }

  chunks(count) {
    return streamOf(count, () => CHUNK);
  }

  ingest(stream) {
    return countAndSum(stream);
  }
}

function serve() {
  const server = new WebSocketServer({ host: "127.0.0.1", perMessageDeflate: false, port: 0 });
  server.on("connection", (socket) => newWebSocketRpcSession(socket, new Service()));
  return new Promise((resolve) => {
    server.on("listening", () => resolve(`ws://127.0.0.1:${server.address().port}`));
  });
}

async function connect(address) {
  const socket = new WebSocket(address, { perMessageDeflate: false });
  const service = newWebSocketRpcSession(socket);
  return {
    add: (number) => service.add(number),
    take: async (count) => countAndSum(await service.items(count)),
    async takeChunks(count) {
      let taken = 0;
      let total = 0;
      for await (const chunk of await service.chunks(count)) {
        taken += 1;
        total += chunk.length;
      }
      return [taken, total];
    },
    upload: async (count) => [...(await service.ingest(items(count)))],
    close: () => service[Symbol.dispose](),
  };
}

await main(serve, connect);
