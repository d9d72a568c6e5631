// What is served in the recordings, for a peer of each wire.
"use strict";

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

class BadThing extends TypeError {
  constructor() {
    super("bad thing");
    this.name = "TypeError";
    this.code = 42;
  }
}

function makeApi() {
  const state = { ended: 0 };
  const api = {
    add: (a, b) => a + b,
    async *countdown(from) {
      for (let each = from; each >= 0; each--) yield each;
    },
    async *failing() {
      yield 1;
      yield 2;
      throw new Error("something went wrong");
    },
    data: {
      async *stream(n) {
        for (let each = 0; each < n; each++) yield `item-${each}`;
      },
    },
    async *ticks() {
      try {
        for (let number = 0; ; number++) {
          yield number;
          await sleep(5);
        }
      } finally {
        await sleep(20);
        state.ended += 1;
      }
    },
    // It catches what is thrown in and goes on, and is not done when it is closed.
    async *stubborn() {
      try {
        for (let number = 0; ; number++) {
          try {
            yield number;
          } catch {}
          await sleep(1);
        }
      } finally {
        state.ended += 1;
        yield "in its finally";
      }
    },
    ended: () => state.ended,
    async sum(xs) {
      let total = 0;
      for await (const each of xs) total += each;
      return total;
    },
    progress(callback) {
      for (const each of [0.25, 0.5, 1]) callback(each);
      return "done";
    },
    fail() {
      throw new BadThing();
    },
    counter: 7,
    settings: { theme: "light" },
    none() {},
    nul: () => null,
    echo: (x) => x,
  };
  return api;
}

function find(api, path) {
  let owner = api;
  for (const name of path.slice(0, -1)) owner = owner?.[name];
  return [owner, path[path.length - 1]];
}

const isStream = (value) => value !== null && typeof value === "object" && Symbol.asyncIterator in value;

// What a program of the client's side ends with, as the recordings have it.
async function outcome(program) {
  try {
    return { value: (await program()) ?? null };
  } catch (error) {
    const { name, message, ...fields } = error;
    return { error: { name: error.name, message: error.message, ...fields } };
  }
}

async function collected(stream) {
  const items = [];
  for await (const item of stream) items.push(item);
  return items;
}

// Runs the programs one after another, and prints what they end with.
async function report(programs) {
  const outcomes = {};
  for (const [name, program] of Object.entries(programs)) outcomes[name] = await outcome(program);
  console.log(JSON.stringify(outcomes));
  process.exit(0);
}

module.exports = { collected, find, isStream, makeApi, report, sleep };
