// Watches a login whose editor is away, and goes on where the page's own link leads when that changes.
"use strict";
{
  const link = document.querySelector("[data-status]");
  const status = document.querySelector("[role=status]");
  // An answer takes up to 20 seconds, so this outlasts every login.
  const ROUNDS = 300;
  const pause = () => new Promise((done) => setTimeout(done, 2000));

  const isAway = async () => {
    const answer = await fetch(link.dataset.status).catch(() => null);
    if (answer === null || answer.status === 429 || answer.status >= 500) return true;
    return answer.ok && (await answer.json()).state === "AWAY";
  };

  const watch = async () => {
    status.textContent = "This page goes on by itself as soon as your editor is back.";
    for (let round = 0; round < ROUNDS; round += 1) {
      if (!(await isAway())) return location.replace(link.href);
      await pause();
    }
    document.body.classList.add("stopped");
    status.textContent = "Your editor did not come back. Start again in VVS.";
  };

  watch();
}
