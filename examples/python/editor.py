"""A bare editor, the least that can sign in: shows link and code, waits, stores its token."""

import json
import os
import sys

import websocket

server = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
address = server.rstrip("/").replace("http", "ws", 1) + "/ws"
# An origin is for browsers, and the server turns away those that it does not know.
socket = websocket.create_connection(address, subprotocols=["vvs.auth.v1"], suppress_origin=True)

while text := socket.recv():
    frame = json.loads(text)
    match frame["type"]:
        case "connection":
            print("Open", frame["loginUrl"])
            print("and compare this code:", frame["userCode"], flush=True)
        case "auth:success":
            # Before the next `recv`: it answers the next ping, which acknowledges, too.
            os.umask(0o077)
            with open("credential.json", "w") as file:
                json.dump(frame, file)
            ack = {"type": "auth:ack", "messageId": frame["messageId"], "ok": True}
            socket.send(json.dumps(ack))
            user = frame["user"]
            print(f"Signed in as {user['name'] or user['email'] or user['id']}")
            break
        case "auth:denied":
            print("Denied in the browser")
        case "auth:expired":
            print("Nobody approved")

socket.close()
