// Watches a login whose editor is away, and follows the page's own link or sends its form when that changes.
"use strict";
{
  const next = document.querySelector("[data-status]");
  const status = document.querySelector("[role=status]");
  // An answer takes up to 20 seconds, so this outlasts every login.
  const ROUNDS = 300;
  const pause = () => new Promise((done) => setTimeout(done, 2000));

  const isAway = async () => {
    const answer = await fetch(next.dataset.status).catch(() => null);
    if (answer === null || answer.status === 429 || answer.status >= 500) return true;
    return answer.ok && (await answer.json()).state === "AWAY";
  };

  const watch = async () => {
    status.textContent = "This page continues as soon as the editor is back.";
    for (let round = 0; round < ROUNDS; round += 1) {
      // First, so that a page that leads back to itself does not do so at once.
      await pause();
      if (!(await isAway())) return next.href ? location.replace(next.href) : next.submit();
    }
    document.body.classList.add("stopped");
    status.textContent = "The editor did not come back. Try again with the button, or start again in VVS.";
  };

  watch();
}
