// What the peers on Node have in common: common.py says what is measured, and how.
//
//     PEER.mjs serve                                         prints the address on its first line
//     PEER.mjs measure ADDRESS SECONDS WORKLOAD=SIZE …       prints a line of JSON for each workload
//
// Both end when their stdin is closed.

export const CALLERS = 64;
export const STREAMS = 32;
export const CHUNK_BYTES = 65_536;
export const TEXT = "hello world";

// For how long a workload is run before it is measured, in ms.
const WARM_UP = 1_000;

export const CHUNK = Uint8Array.from({ length: CHUNK_BYTES }, (_, index) => index % 256);

class WrongAnswer extends Error {
  name = "WrongAnswer";
}

function check(got, expected) {
  const [one, other] = [JSON.stringify(got), JSON.stringify(expected)];
  if (one !== other) {
    throw new WrongAnswer(`${one} came, and ${other} was asked for`);
  }
}

// What is counted and summed of a stream of that many items.
function summed(count) {
  return [count, (count * (count - 1)) / 2];
}

// What V8 has not compiled yet is several times slower.
async function warmUp(unit) {
  const started = performance.now();
  do {
    await unit();
  } while (performance.now() - started < WARM_UP);
}

async function perSecond(load, unit) {
  await warmUp(() => unit(load.size));
  let done = 0;
  const started = performance.now();
  for (;;) {
    done += await unit(load.size);
    const elapsed = (performance.now() - started) / 1e3;
    if (elapsed >= load.seconds) {
      return { value: done / elapsed };
    }
  }
}

function itemsPerSecond(load, take) {
  return perSecond(load, async (size) => {
    check(await take(size), summed(size));
    return size;
  });
}

async function addOne(client, number) {
  if ((await client.add(number)) !== number + 1) {
    throw new WrongAnswer(`add(${number}) is not ${number + 1}`);
  }
}

async function callsInSequence(client, load) {
  await warmUp(() => addOne(client, 0));
  const times = [];
  const started = performance.now();
  let elapsed;
  do {
    for (let number = 0; number < load.size; number++) {
      const before = performance.now();
      await addOne(client, number);
      times.push(performance.now() - before);
    }
    elapsed = (performance.now() - started) / 1e3;
  } while (elapsed < load.seconds);
  times.sort((one, other) => one - other);
  return {
    value: times[Math.floor(times.length / 2)] * 1e3,
    p99: times[Math.floor((times.length * 99) / 100)] * 1e3,
    per_second: times.length / elapsed,
  };
}

function callsAtOnce(client, load) {
  return perSecond(load, async (size) => {
    const each = Math.max(1, Math.floor(size / CALLERS));
    await Promise.all(
      Array.from({ length: CALLERS }, async (_, caller) => {
        const first = caller * 1_000_000;
        for (let number = first; number < first + each; number++) {
          await addOne(client, number);
        }
      }),
    );
    return each * CALLERS;
  });
}

function streamsAtOnce(client, load) {
  return perSecond(load, async (size) => {
    const each = Math.max(1, Math.floor(size / STREAMS));
    await Promise.all(
      Array.from({ length: STREAMS }, async () => check(await client.take(each), summed(each))),
    );
    return each * STREAMS;
  });
}

function chunks(client, load) {
  return perSecond(load, async (size) => {
    check(await client.takeChunks(size), [size, size * CHUNK_BYTES]);
    return (size * CHUNK_BYTES) / 1e6;
  });
}

const WORKLOADS = {
  W1: callsInSequence,
  W2: callsAtOnce,
  W3: (client, load) => itemsPerSecond(load, (count) => client.take(count)),
  W4: streamsAtOnce,
  W5: chunks,
  W8: (client, load) => itemsPerSecond(load, (count) => client.upload(count)),
};

function inALine(error) {
  const text = error instanceof Error ? `${error.name}: ${error.message}` : `${error}`;
  return text.replace(/\s+/g, " ").slice(0, 300);
}

async function measure(connect, address, seconds, sizes) {
  for (const each of sizes) {
    const [workload, size] = each.split("=");
    const load = { seconds: Number(seconds), size: Number(size) };
    const client = await connect(address);
    let figures;
    try {
      figures = await WORKLOADS[workload](client, load);
    } catch (error) {
      figures = { error: inALine(error) };
    }
    await client.close();
    console.log(JSON.stringify({ workload, ...figures }));
  }
}

// The command line of a peer. `serve()` gives the address that it listens on; `connect(address)`
// gives a client with the methods of common.Client (`takeChunks` for `take_chunks`), and close().
export async function main(serve, connect) {
  const fail = (error) => {
    console.error(error);
    console.error(inALine(error)); // the last line is what the runner tells
    process.exit(1);
  };
  process.on("uncaughtException", fail);
  process.on("unhandledRejection", fail);
  process.stdin.on("end", () => process.exit(0));
  process.stdin.resume();
  const [command, ...rest] = process.argv.slice(2);
  if (command === "serve") {
    console.log(await serve());
  } else {
    const [address, seconds, ...sizes] = rest;
    await measure(connect, address, seconds, sizes);
    process.exit(0);
  }
}
