// A bare editor, the least that can sign in: shows the link and the code, waits, stores its token.
import { writeFileSync } from "node:fs";
import WebSocket from "ws";

const server = new URL(process.argv[2] ?? "http://127.0.0.1:8080");
const socket = new WebSocket(new URL("/ws", server), "vvs.auth.v1");

socket.on("message", (data) => {
  const frame = JSON.parse(data);
  switch (frame.type) {
    case "connection":
      console.log(`Open ${frame.loginUrl}\nand compare this code: ${frame.userCode}`);
      break;
    case "auth:success":
      // Before this function returns: the library answers the next ping, which acknowledges, too.
      writeFileSync("credential.json", JSON.stringify(frame), { mode: 0o600 });
      socket.send(JSON.stringify({ type: "auth:ack", messageId: frame.messageId, ok: true }));
      console.log(`Signed in as ${frame.user.name ?? frame.user.email ?? frame.user.id}`);
      socket.close(1000);
      break;
    case "auth:denied":
    case "auth:expired":
      console.log(frame.type === "auth:denied" ? "Denied in the browser" : "Nobody approved");
      break;
    default: // Frames of later versions, and `error`.
  }
});
socket.on("error", (cause) => console.error(`No server: ${cause.message}`));
