// kkrpc 0.x, by hand.
"use strict";

const { randomUUID } = require("node:crypto");
const { collected, find, isStream } = require("./api.js");
const { run } = require("./ends.js");

const CALLBACK = "__callback__";

class Channel {
  constructor(socket, api) {
    this.send = (record) => socket.send(JSON.stringify({ method: "", args: {}, version: "json", ...record }) + "\n");
    this.api = api;
    this.calls = new Map();
    this.callbacks = new Map();
    this.produced = new Map();
    this.consumed = new Map();
  }

  ask(record) {
    return new Promise((resolve, reject) => {
      const id = randomUUID();
      this.calls.set(id, { resolve, reject });
      this.send({ id, ...record });
    });
  }

  call(method, ...given) {
    const callbackIds = [];
    const args = given.map((each) => {
      if (typeof each !== "function") return each;
      const id = randomUUID();
      this.callbacks.set(id, each);
      callbackIds.push(id);
      return CALLBACK + id;
    });
    const more = callbackIds.length > 0 ? { callbackIds } : {};
    return this.ask({ type: "request", method, args, ...more });
  }

  get(path) {
    return this.ask({ type: "get", path: path.split(".") });
  }

  set(path, value) {
    return this.ask({ type: "set", path: path.split("."), value });
  }

  stream(id) {
    const state = { buffer: [], wake: null, done: false, error: null };
    this.consumed.set(id, state);
    return {
      [Symbol.asyncIterator]() {
        return this;
      },
      next: async () => {
        while (state.buffer.length === 0 && !state.done && state.error === null) {
          await new Promise((resolve) => (state.wake = resolve));
        }
        if (state.buffer.length > 0) return { done: false, value: state.buffer.shift() };
        if (state.error !== null) throw state.error;
        return { done: true, value: undefined };
      },
      return: async (value) => {
        this.consumed.delete(id);
        if (!state.done && state.error === null) this.send({ id, type: "stream-cancel" });
        return { done: true, value };
      },
    };
  }

  async receive(text) {
    const { id, type, method, args, path, value } = JSON.parse(text);
    if (["request", "get", "set"].includes(type)) {
      await this.serve(id, type, type === "request" ? method.split(".") : path, args, value);
    } else if (type === "response") {
      const call = this.calls.get(id);
      this.calls.delete(id);
      if (args.error !== undefined) call?.reject(errorOf(args.error));
      else call?.resolve(args.result?.__stream === true ? this.stream(id) : args.result);
    } else if (type === "callback") {
      this.callbacks.get(method)?.(...args);
    } else if (type === "stream-cancel") {
      const iterator = this.produced.get(id);
      this.produced.delete(id);
      await iterator?.return?.();
    } else {
      const state = this.consumed.get(id);
      if (state === undefined) return;
      if (type === "stream-chunk") state.buffer.push(args.value);
      else if (type === "stream-end") state.done = true;
      else state.error = errorOf(args.error);
      state.wake?.();
    }
  }

  async serve(id, type, path, args, value) {
    const respond = (answer) => this.send({ id, type: "response", args: answer });
    try {
      const [owner, name] = find(this.api, path);
      if (type === "get") {
        respond({ result: owner[name] });
      } else if (type === "set") {
        owner[name] = value;
        respond({ result: true });
      } else {
        if (typeof owner?.[name] !== "function") {
          respond({ error: `Method ${path.join(".")} is not a function` });
          return;
        }
        const given = args.map((each) => {
          if (typeof each !== "string" || !each.startsWith(CALLBACK)) return each;
          const callbackId = each.slice(CALLBACK.length);
          return (...values) =>
            this.send({ id: randomUUID(), type: "callback", method: callbackId, args: values });
        });
        const result = await owner[name](...given);
        if (!isStream(result)) {
          respond({ result });
          return;
        }
        respond({ result: { __stream: true } });
        await this.pump(id, result[Symbol.asyncIterator]());
      }
    } catch (error) {
      respond({ error: fieldsOf(error) });
    }
  }

  async pump(id, iterator) {
    this.produced.set(id, iterator);
    try {
      for (;;) {
        const { done, value } = await iterator.next();
        if (!this.produced.has(id)) return;
        if (done) break;
        this.send({ id, type: "stream-chunk", args: { value } });
      }
      this.send({ id, type: "stream-end" });
    } catch (error) {
      this.send({ id, type: "stream-error", args: { error: fieldsOf(error) } });
    }
    this.produced.delete(id);
  }
}

function fieldsOf(error) {
  return { name: error.name, message: error.message, stack: error.stack, ...error };
}

function errorOf(said) {
  if (typeof said === "string") return new Error(said);
  const { name, message, stack, ...fields } = said;
  const error = Object.assign(new Error(message), fields);
  error.name = name;
  return error;
}

function programs(channel) {
  const call = (...args) => channel.call(...args);
  return {
    unary: () => call("add", 1, 2),
    error: () => call("fail"),
    unknown_method: () => call("nothing"),
    none: async () => String(await call("none")),
    nul: () => call("nul"),
    values: () => call("echo", { s: "é😀", n: 1.5, b: true, a: [1, [2]], o: { x: null } }),
    get: async () => [await channel.get("counter"), await channel.get("settings.theme")],
    set: async () => [await channel.set("settings.theme", "dark"), await channel.get("settings.theme")],
    stream: async () => collected(await call("countdown", 5)),
    long_stream: async () => (await collected(await call("countdown", 999))).length,
    nested_stream: async () => collected(await call("data.stream", 3)),
    stream_error: async () => collected(await call("failing")),
    two_streams: async () =>
      Promise.all([5, 3].map(async (each) => collected(await call("countdown", each)))),
    break_early: async () => {
      const seen = [];
      for await (const each of await call("ticks")) {
        seen.push(each);
        if (seen.length === 3) break;
      }
      while ((await call("ended")) === 0);
      return seen;
    },
    callback: async () => {
      const seen = [];
      return [await call("progress", (each) => seen.push(each)), seen];
    },
    construct_is_refused: () => channel.ask({ type: "construct", method: "Thing", args: [] }),
    nonsense_is_ignored: async () => {
      channel.send({ id: "x", type: "later" });
      return call("add", 3, 4);
    },
  };
}

run(Channel, programs);
