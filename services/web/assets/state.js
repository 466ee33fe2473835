// Moves the editor's `state` from the address to this tab's storage, before anything else loads: an address ends up in
// the history, in screenshots and in the hands of every script that an identity provider brings along.
"use strict";
{
  // One that begins with a slash is a place within an identity provider's own form.
  const state = location.hash.startsWith("#/") ? null : new URLSearchParams(location.hash.slice(1)).get("state");
  const login = new URLSearchParams(location.search).get("connection_id");
  if (state !== null) {
    history.replaceState(history.state, "", location.pathname + location.search);
    if (login !== null && state.length <= 512) sessionStorage.setItem(`vvs-state ${login}`, state);
  }
}
