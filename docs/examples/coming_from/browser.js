// A page that calls `price` of from_websockets.py, without any library.
const socket = new WebSocket(url, "streamrpc.1.json")
const say = (frame) => socket.send(JSON.stringify(frame))

socket.onopen = () => say({ type: "hello", version: 1 })
socket.onmessage = ({ data }) => {
  for (const frame of [JSON.parse(data)].flat()) {
    if (frame.type === "hello") say({ type: "call", id: 1, method: "price", args: ["ACME"] })
    if (frame.type === "result") console.log("price:", frame.value)
    if (frame.type === "error") console.log("error:", frame.error.code, frame.error.message)
    if (frame.type === "ping") say({ type: "pong", token: frame.token })
  }
}
