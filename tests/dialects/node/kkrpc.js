// kkrpc 2, by hand.
"use strict";

const { randomUUID } = require("node:crypto");
const { collected, find, isStream } = require("./api.js");
const { run } = require("./ends.js");

const WINDOW = 32;
const REPLENISH = 16;
const STREAM = "__kkrpc_next_stream__";
const ARGUMENT = "__kkrpc_next_arg__";

class Channel {
  constructor(socket, api) {
    this.send = (record) => socket.send(JSON.stringify(record));
    this.api = api;
    this.calls = new Map();
    this.callbacks = new Map();
    this.produced = new Map();
    this.consumed = new Map();
    this.controls = new Map();
  }

  // --- calling

  ask(record) {
    return new Promise((resolve, reject) => {
      const id = randomUUID();
      this.calls.set(id, { resolve, reject });
      this.send({ t: "q", id, ...record });
    });
  }

  call(path, ...args) {
    return this.ask({ op: "call", p: path.split("."), a: args.map((each) => this.wrapped(each)) });
  }

  get(path) {
    return this.ask({ op: "get", p: path.split(".") });
  }

  set(path, v) {
    return this.ask({ op: "set", p: path.split("."), v });
  }

  wrapped(value) {
    if (typeof value === "function") {
      const id = randomUUID();
      this.callbacks.set(id, value);
      return { [ARGUMENT]: "callback", id };
    }
    return { [ARGUMENT]: "value", v: this.encoded(value) };
  }

  encoded(value) {
    if (!isStream(value)) return value;
    const sid = randomUUID();
    this.produced.set(sid, { iterator: value[Symbol.asyncIterator](), credit: 0, pumping: false });
    return { [STREAM]: "async-iterable", id: sid };
  }

  decoded(value) {
    if (value === null || typeof value !== "object") return value;
    if (ARGUMENT in value) {
      if (value[ARGUMENT] === "callback") {
        return (...args) => {
          this.send({ t: "cb", id: value.id, a: args.map((each) => this.wrapped(each)) });
        };
      }
      return this.decoded(value.v);
    }
    return STREAM in value ? this.stream(value.id) : value;
  }

  // --- consuming

  stream(sid) {
    const state = { buffer: [], wake: null, done: false, error: null, taken: 0, begun: false };
    this.consumed.set(sid, state);
    const control = (op, more) => {
      const id = randomUUID();
      this.send({ t: "sq", id, sid, op, ...more });
      return id;
    };
    const end = (op, more) =>
      new Promise((resolve, reject) => this.controls.set(control(op, more), { resolve, reject }));
    return {
      [Symbol.asyncIterator]() {
        return this;
      },
      next: async () => {
        if (!state.begun) {
          state.begun = true;
          control("pull", { n: WINDOW });
        }
        while (state.buffer.length === 0 && !state.done && state.error === null) {
          await new Promise((resolve) => (state.wake = resolve));
        }
        if (state.buffer.length > 0) {
          const value = state.buffer.shift();
          if (++state.taken % REPLENISH === 0) control("pull", { n: REPLENISH });
          return { done: false, value };
        }
        if (state.error !== null) throw state.error;
        return { done: true, value: undefined };
      },
      return: async (v) => {
        if (!state.done && state.error === null) await end("return");
        this.consumed.delete(sid);
        return { done: true, value: v };
      },
      throw: async (error) => {
        await end("throw", { v: String(error) });
        return { done: true, value: undefined };
      },
    };
  }

  // --- producing

  async pump(sid, stream) {
    if (stream.pumping) return;
    stream.pumping = true;
    while (stream.credit > 0 && this.produced.has(sid)) {
      stream.credit -= 1;
      try {
        const { done, value } = await stream.iterator.next();
        if (!this.produced.has(sid)) return;
        if (done) this.produced.delete(sid);
        this.send({ t: "sr", id: randomUUID(), sid, d: done, v: value });
      } catch (error) {
        this.produced.delete(sid);
        this.send({ t: "sr", id: randomUUID(), sid, e: { n: "Error", m: String(error) } });
      }
    }
    stream.pumping = false;
  }

  async control({ id, sid, op, n, v }) {
    const stream = this.produced.get(sid);
    if (op === "pull") {
      if (stream === undefined) return;
      stream.credit += n;
      this.pump(sid, stream);
      return;
    }
    if (op === "return") this.produced.delete(sid);
    try {
      // A generator that catches what is thrown in, or yields in its finally, is not done.
      const { done, value } = (await stream?.iterator[op]?.(v)) ?? { done: true };
      if (done) this.produced.delete(sid);
      this.send({ t: "sr", id, sid, d: done, v: value });
    } catch (error) {
      this.produced.delete(sid);
      this.send({ t: "sr", id, sid, e: { n: "Error", m: String(error) } });
    }
  }

  // --- records

  async receive(text) {
    const record = JSON.parse(text);
    if (record.t === "q") await this.serve(record);
    else if (record.t === "r") this.answer(record);
    else if (record.t === "cb") this.callbacks.get(record.id)?.(...record.a.map((each) => this.decoded(each)));
    else if (record.t === "sq") await this.control(record);
    else if (record.t === "sr") this.item(record);
  }

  async serve({ id, op, p, a, v }) {
    try {
      const [owner, name] = find(this.api, p);
      if (op === "get") {
        this.send({ t: "r", id, v: owner[name] });
      } else if (op === "set") {
        owner[name] = v;
        this.send({ t: "r", id, v: true });
      } else {
        if (typeof owner?.[name] !== "function") throw new Error(`${p.join(".")} is not a function`);
        const value = await owner[name](...a.map((each) => this.decoded(each)));
        this.send({ t: "r", id, v: this.encoded(value) });
      }
    } catch (error) {
      const { name, message, stack, ...fields } = error;
      this.send({ t: "r", id, e: { n: error.name, m: error.message, s: error.stack, ...fields } });
    }
  }

  answer({ id, v, e }) {
    const call = this.calls.get(id);
    this.calls.delete(id);
    if (e === undefined) call?.resolve(this.decoded(v));
    else call?.reject(errorOf(e));
  }

  item({ id, sid, d, v, e }) {
    const control = this.controls.get(id);
    if (control !== undefined) {
      this.controls.delete(id);
      if (e === undefined) control.resolve();
      else control.reject(errorOf(e));
    }
    const state = this.consumed.get(sid);
    if (state === undefined) return;
    if (e !== undefined) state.error = errorOf(e);
    else if (d) state.done = true;
    else state.buffer.push(v);
    state.wake?.();
  }
}

function errorOf({ n, m, s, ...fields }) {
  const error = Object.assign(new Error(m), fields);
  error.name = n;
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
    set_what_cannot_be: () => channel.set("counter", 8),
    get_a_method: () => channel.get("add"),
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
      return [seen, await call("ended")];
    },
    throw_early: async () => {
      const stream = await call("ticks");
      await stream.next();
      await stream.throw(new Error("enough"));
      return call("ended");
    },
    callback: async () => {
      const seen = [];
      return [await call("progress", (each) => seen.push(each)), seen];
    },
    upload: async () =>
      call("sum", (async function* () { yield* [1, 2, 3]; })()),
    long_upload: async () =>
      call("sum", (async function* () { for (let each = 0; each < 500; each++) yield each; })()),
    upload_error: async () =>
      call("sum", (async function* () { yield 1; throw new Error("client broke"); })()),
    new_is_refused: () => channel.ask({ op: "new", p: ["Thing"], a: [] }),
    ref_is_refused: () => channel.ask({ op: "ref", p: ["thing"] }),
    nonsense_is_ignored: async () => {
      channel.send({ t: "later", id: "x" });
      channel.send({ t: "sq", op: 5 });
      channel.send(["no record"]);
      return call("add", 3, 4);
    },
    a_hundred_calls: async () =>
      (await Promise.all([...Array(100).keys()].map((each) => call("add", each, 1)))).length,
  };
}

run(Channel, programs);
