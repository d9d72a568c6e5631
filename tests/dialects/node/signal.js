// signal-rpc, by hand.
"use strict";

const { collected, find, isStream, sleep } = require("./api.js");
const { run } = require("./ends.js");

const MAX_BUFFERED = 1024 * 1024;

class Channel {
  constructor(socket, api) {
    this.socket = socket;
    this.api = api;
    this.number = 0;
    this.calls = new Map();
    this.streams = new Map();
  }

  send(message) {
    this.socket.send(JSON.stringify(message));
  }

  ask(data) {
    return new Promise((resolve, reject) => {
      const requestId = ++this.number;
      this.calls.set(requestId, { resolve, reject });
      this.send({ category: "request", requestId, data });
    });
  }

  call(method, ...args) {
    return this.ask({ method, args });
  }

  async stream(method, ...args) {
    const { streamId } = await this.call(method, ...args);
    return this.received(streamId);
  }

  state(streamId) {
    if (!this.streams.has(streamId)) {
      this.streams.set(streamId, { buffer: [], wake: null, done: false, error: null });
    }
    return this.streams.get(streamId);
  }

  async *received(streamId) {
    const state = this.state(streamId);
    for (;;) {
      while (state.buffer.length > 0) yield state.buffer.shift();
      if (state.error !== null) throw state.error;
      if (state.done) return;
      await new Promise((resolve) => (state.wake = resolve));
    }
  }

  async sendStream(streamId, iterable) {
    try {
      for await (const payload of iterable) {
        while (this.socket.bufferedAmount > MAX_BUFFERED) await sleep(1);
        this.send({ type: "StreamData", streamId, payload });
      }
      this.send({ type: "StreamEnd", streamId });
    } catch (error) {
      this.send({ type: "StreamError", streamId, error: error.message });
    }
  }

  async receive(text) {
    const message = JSON.parse(text);
    if (message.category === "request") await this.serve(message);
    else if (message.category === "response") {
      const { requestId, data } = message;
      const call = this.calls.get(requestId);
      this.calls.delete(requestId);
      if (data?.error !== undefined) call?.reject(Object.assign(new Error(data.error.message), data.error));
      else call?.resolve(data);
    } else {
      const state = this.state(message.streamId);
      if (message.type === "StreamData") state.buffer.push(message.payload);
      else if (message.type === "StreamEnd") state.done = true;
      else state.error = new Error(message.error);
      state.wake?.();
    }
  }

  async serve({ requestId, data: { method, args = [], kwargs = {} } }) {
    const respond = (data) =>
      this.send({ category: "response", requestId, responseId: requestId, data });
    try {
      const [owner, name] = find(this.api, method.split("."));
      if (typeof owner?.[name] !== "function") throw new Error(`${method} is not a function`);
      const result = await owner[name](...args, ...Object.values(kwargs));
      if (!isStream(result)) {
        respond(result);
        return;
      }
      const streamId = ++this.number;
      respond({ streamId });
      await this.sendStream(streamId, result);
    } catch (error) {
      respond({ error: { name: error.name, message: error.message, ...error } });
    }
  }
}

function programs(channel) {
  const call = (...args) => channel.call(...args);
  return {
    unary: () => call("add", 1, 2),
    plainest: () => channel.ask({ type: "add", a: 1, b: 2 }),
    error: () => call("fail"),
    nul: () => call("nul"),
    values: () => call("echo", { s: "é😀", n: 1.5, b: true, a: [1, [2]], o: { x: null } }),
    stream: async () => collected(await channel.stream("countdown", 5)),
    long_stream: async () => (await collected(await channel.stream("countdown", 999))).length,
    nested_stream: async () => collected(await channel.stream("data.stream", 3)),
    stream_error: async () => collected(await channel.stream("failing")),
    agreed: async () => {
      await call("expect", "mine");
      await channel.sendStream("mine", (async function* () { yield* [1, 2, 3]; })());
      return call("received", "mine");
    },
  };
}

run(Channel, programs);
