// A bare editor in another language: connects, prints where to sign in, waits, and checks the token it is given.
// Usage: node editor.mjs http://127.0.0.1:8080   (needs the packages ws and jose)
import WebSocket from "ws";
import { createRemoteJWKSet, jwtVerify } from "jose";

const server = new URL(process.argv[2]);
const address = new URL("/ws", server);
address.protocol = server.protocol === "https:" ? "wss:" : "ws:";
const socket = new WebSocket(address, "vvs.auth.v1");

socket.on("message", async (data) => {
  const frame = JSON.parse(data);
  switch (frame.type) {
    case "connection":
      console.log(`open ${frame.loginUrl}`);
      console.log(`code ${frame.userCode}`);
      break;
    case "auth:success": {
      const keys = createRemoteJWKSet(new URL("/.well-known/jwks.json", server));
      const { payload } = await jwtVerify(frame.token, keys, {
        issuer: server.origin, audience: "vvs", typ: "at+jwt", algorithms: ["ES256"],
      });
      console.log(`user ${frame.user.name} ${payload.sub === frame.user.id && payload.sid === frame.session.id}`);
      socket.send(JSON.stringify({ type: "auth:ack", messageId: frame.messageId, ok: true }));
      socket.close();
      break;
    }
    default:
      console.log(frame.type);
  }
});
socket.on("close", (code) => console.log(`closed ${code}`));
