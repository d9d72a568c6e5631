// A client with kkrpc 2.
import { withCallOptions } from "kkrpc"
import { dispose, wrap } from "kkrpc/streaming"
import { webSocketClientTransport } from "kkrpc/ws"
import type { api as API } from "./server.ts"

// --- main
const api = wrap<typeof API>(webSocketClientTransport({ url: "ws://127.0.0.1:3000" }), {
  getMetadata: () => ({ user: "alice" }),
})

// --- unary
console.log("price:", await api.price("ACME"))

// --- stream
for await (const tick of api.ticks("ACME")) {
  console.log("tick:", tick.price)
  if (tick.price === 102) break
}
console.log("client: the loop is left")

// --- upload
async function* someTicks() {
  for (let number = 0; number < 3; number++) yield { symbol: "ACME", price: number }
}
console.log("ingested:", await api.ingest(someTicks()))

// --- both
async function* lines() {
  yield "hello"
}
for await (const answer of api.chat(lines())) console.log("chat:", answer)

// --- callback
console.log(await api.build("docs", (part) => console.log("progress:", part)))

// --- deadline
try {
  await withCallOptions(api, { timeout: 100 }).report()
} catch (error: any) {
  console.log("deadline:", error.name)
}

// --- error
try {
  await api.price("NONE")
} catch (error: any) {
  if (error.name !== "NoSuchSymbol") throw error
  console.log("error:", error.message, error.symbol)
}

// --- cancel
const controller = new AbortController()
const report = withCallOptions(api, { signal: controller.signal }).report()
setTimeout(() => controller.abort(), 100)
await report.catch((error) => console.log("cancelled:", error.name))

// --- end
dispose(api)
