// A service with kkrpc 2, on ws://127.0.0.1:3000.
import { middlewarePlugin, type MiddlewareHandler } from "kkrpc/middleware"
import { expose } from "kkrpc/streaming"
import { webSocketTransport } from "kkrpc/ws"
import { WebSocketServer } from "ws"

type Tick = { symbol: string; price: number }

const prices: Record<string, number> = { ACME: 101.5 }

// --- service
class NoSuchSymbol extends Error {
  constructor(public symbol: string) {
    super(`there is no ${symbol}`)
    this.name = "NoSuchSymbol"
  }
}

export const api = {
  async price(symbol: string) {
    if (!(symbol in prices)) throw new NoSuchSymbol(symbol)
    return prices[symbol]
  },

  async *ticks(symbol: string) {
    try {
      for (let price = 100; ; price++) yield { symbol, price }
    } finally {
      console.log("server: the feed is closed")
    }
  },

  async ingest(ticks: AsyncIterable<Tick>) {
    let count = 0
    for await (const _ of ticks) count++
    return count
  },

  async *chat(inbox: AsyncIterable<string>) {
    for await (const text of inbox) yield `heard: ${text}`
  },

  async build(target: string, progress: (part: number) => void) {
    for (const part of [0.5, 1]) progress(part)
    return `${target} is built`
  },

  async report() {
    await new Promise((resolve) => setTimeout(resolve, 3_600_000))
    return "all is well"
  },
}

// --- metadata
const whoAsks: MiddlewareHandler = async (ctx, next) => {
  console.log(`server: ${ctx.method} is asked by ${ctx.meta?.user}`)
  return await next()
}

// --- main
new WebSocketServer({ host: "127.0.0.1", port: 3000 }).on("connection", (socket) => {
  expose(api, webSocketTransport(socket), { plugins: [middlewarePlugin([whoAsks])] })
})
