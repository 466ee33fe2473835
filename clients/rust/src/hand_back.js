"use strict";
// Before anything else: the code must not stay in the address bar, nor in the history.
const brought = location.hash.slice(1);
history.replaceState(null, "", "/");
const words = document.getElementById("words");
if (brought === "") {
  words.textContent = "There is nothing to do here. You may close this window.";
} else {
  fetch("/", { method: "POST", headers: { "content-type": "application/x-www-form-urlencoded" }, body: brought })
    .then((answer) => answer.text())
    .then((text) => { words.textContent = text; })
    .catch(() => { words.textContent = "Your editor does not answer any more. Sign in again from there."; });
}
