// Takes the one-time code back to the editor that sent the person here, and goes on when the editor has used it. Only
// the tab that the editor's own link was opened in has kept the editor's `state`: no other one leads anywhere.
"use strict";
{
  const form = document.querySelector("[data-connection]");
  const status = document.querySelector("[role=status]");
  const { connection, returnUri, code } = form.dataset;
  const state = sessionStorage.getItem(`vvs-state ${connection}`);
  const LED = `vvs-led-back ${connection}`;
  // An answer takes up to 20 seconds, so this outlasts every login.
  const ROUNDS = 300;
  const pause = () => new Promise((done) => setTimeout(done, 1000));

  // What was posted here would be posted again by a reload, and the browser would ask about it.
  history.replaceState(history.state, "", `/api/auth/callback?connection_id=${connection}`);

  if (returnUri && state !== null) {
    const values = { connection_id: connection, code, state };
    const fragment = Object.entries(values).map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&");
    const back = document.querySelector("#back");
    back.querySelector("a").href = `${returnUri}#${fragment}`;
    back.hidden = false;
    document.querySelector("#lost").hidden = true;
    // Automatically once: a person who comes back here comes to look.
    if (sessionStorage.getItem(LED) === null) {
      sessionStorage.setItem(LED, "yes");
      location.assign(back.querySelector("a").href);
    }
  }

  const ask = async (known) => {
    const answer = await fetch(`/login/status?connection_id=${connection}&known=${known}`).catch(() => null);
    return answer?.ok ? (await answer.json()).state : known;
  };

  const watch = async () => {
    let known = "HELD";
    for (let round = 0; round < ROUNDS; round += 1) {
      known = await ask(known);
      if (known === "ACKED") return location.replace(`/auth-success?connection_id=${connection}`);
      // Everything else is a separate page: the same approval again leads to it.
      if (known !== "HELD" && known !== "SENT") return form.submit();
      status.textContent = known === "SENT" ? "The code is right. Your editor is being signed in." : "This page continues by itself.";
      await pause();
    }
    status.textContent = "This page has stopped checking. Check in your editor whether it is signed in.";
  };

  watch();
}
