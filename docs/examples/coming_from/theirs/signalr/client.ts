// A client with @microsoft/signalr.
import { HubConnectionBuilder, Subject } from "@microsoft/signalr"

type Tick = { symbol: string; price: number }

// --- main
const connection = new HubConnectionBuilder()
  .withUrl("http://127.0.0.1:5000/market", { accessTokenFactory: () => "alice" })
  .build()
connection.on("Agree", async (order: string) => order !== "everything")
await connection.start()

// --- unary
console.log("price:", await connection.invoke<number>("Price", "ACME"))

// --- stream
const subscription = connection.stream<Tick>("Ticks", "ACME").subscribe({
  next: (tick) => {
    console.log("tick:", tick.price)
    if (tick.price === 102) subscription.dispose()
  },
  complete: () => console.log("client: the stream has ended by itself"),
  error: (error) => console.error(error),
})

// --- upload
const ticks = new Subject<Tick>()
const ingested = connection.invoke<number>("Ingest", ticks)
for (let number = 0; number < 3; number++) ticks.next({ symbol: "ACME", price: number })
ticks.complete()
console.log("ingested:", await ingested)

// --- both
const inbox = new Subject<string>()
connection.stream<string>("Chat", inbox).subscribe({
  next: (answer) => console.log("chat:", answer),
  complete: () => {},
  error: (error) => console.error(error),
})
inbox.next("hello")
inbox.complete()

// --- callback
console.log("half:", await connection.invoke<string>("Sell", "half of it"))

// --- deadline
const late = new Promise<never>((_, reject) => {
  setTimeout(() => reject(new Error("too slow")), 100)
})
await Promise.race([connection.invoke("Report"), late]).catch((error) => {
  console.log("deadline:", error.message)
})

// --- error
try {
  await connection.invoke("Price", "NONE")
} catch (error: any) {
  console.log("error:", error.message)
}

// --- end
await connection.stop()
