// Shows ClerkJS's sign-in form, or takes a person who is already signed in to the callback. Runs
// before Clerk's own scripts are in the page, so that it sees whether they arrive.
"use strict";
{
  const place = document.querySelector("#clerk");
  const status = document.querySelector("#clerk-status");
  const failure = document.querySelector("#clerk-failure");
  const { callback, here, forgets } = place.dataset;
  const { nonce } = document.currentScript;
  // Nobody looks at an empty page for longer.
  const PATIENCE = 15_000;
  const NO_SCRIPT = "The sign-in service's script could not be loaded.";
  const NO_ANSWER = "The sign-in service does not answer.";
  let trouble = NO_SCRIPT;
  let isOver = false;

  const fail = () => {
    if (isOver) return;
    failure.querySelector(".bad").textContent = trouble;
    failure.hidden = false;
    status.textContent = "";
  };
  // What was slow may still come.
  const show = (text) => {
    isOver = true;
    failure.hidden = true;
    status.textContent = text;
  };

  let missing = 2;
  const loaded = new Promise((done, failed) => {
    // On their way down: neither of the two events bubbles.
    const onClerks = (name, then) =>
      document.addEventListener(name, ({ target }) => target.dataset?.clerkScript !== undefined && then(), true);
    onClerks("load", () => (missing -= 1) === 0 && done());
    onClerks("error", failed);
  });

  const forget = async () => {
    // With a function of our own ClerkJS does not lead to its own page behind a sign-out.
    await Clerk.signOut(() => {});
    // Once: the form may come back to this address, from an identity provider of Clerk's.
    history.replaceState(history.state, "", here);
  };

  const start = async () => {
    await loaded;
    trouble = NO_ANSWER;
    const ui = { ClerkUI: window.__internal_ClerkUICtor };
    await Clerk.load({ ui, signInUrl: here, nonce, telemetry: false });
    if (forgets !== undefined) await forget();
    if (Clerk.isSignedIn) {
      await Clerk.session.getToken({ skipCache: true });
      show("You are signed in. This page continues by itself.");
      return location.replace(callback);
    }
    new MutationObserver(() => show("")).observe(place, { childList: true });
    Clerk.mountSignIn(place, { routing: "hash", forceRedirectUrl: callback, signUpForceRedirectUrl: callback });
  };

  status.textContent = "The sign-in form is loading.";
  setTimeout(fail, PATIENCE);
  start().catch(fail);
}
