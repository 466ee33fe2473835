// Sends the page's own form again, which is the same delivery, until the editor has it or the login is over.
"use strict";
{
  const form = document.querySelector("[data-deliver]");
  const status = document.querySelector("[role=status]");
  const trouble = document.querySelector("#trouble");
  const TRIES = 30;
  const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

  const send = () => fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)) }).catch(() => null);

  const deliver = async () => {
    status.textContent = "This page tries again by itself, every few seconds.";
    for (let tries = 1; tries <= TRIES; tries += 1) {
      // Half of the wait is chance, so that a relay that comes back is not met by all pages at once.
      await pause(Math.min(2000 * tries, 10000) * (0.5 + Math.random() / 2));
      const answer = await send();
      if (answer === null || answer.status === 429) continue;
      if (answer.redirected) return location.replace(answer.url);
      // Every other answer is a separate page, and a plain submit shows it.
      if (answer.status !== 503) return form.submit();
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const now = page.querySelector("#trouble")?.textContent;
      if (now && now !== trouble.textContent) trouble.textContent = now;
    }
    document.body.classList.add("stopped");
    status.textContent = "This page has stopped trying. Check that your editor is open and online, then try again.";
  };

  deliver();
}
