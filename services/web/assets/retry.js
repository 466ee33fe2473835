// Follows the page's own link as soon as that leads to anything but an outage.
"use strict";
{
  const next = document.querySelector("[data-retry]");
  const status = document.querySelector("[role=status]");
  const TRIES = 30;
  const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

  const isDown = async () => {
    const answer = await fetch(next.href).catch(() => null);
    return answer === null || answer.status === 429 || answer.status >= 500;
  };

  const retry = async () => {
    status.textContent = "This page tries again by itself, every few seconds.";
    for (let tries = 1; tries <= TRIES; tries += 1) {
      // Half of the wait is chance, so that a part that comes back is not met by all pages at once.
      await pause(Math.min(2000 * tries, 10000) * (0.5 + Math.random() / 2));
      if (!(await isDown())) return location.replace(next.href);
    }
    status.textContent = "This page has stopped trying.";
  };

  retry();
}
