// Goes on to the identity provider at once, unless the person has just gone back from there. The page's first script has
// put the editor's state away before this one is loaded.
"use strict";
{
  const [navigation] = performance.getEntriesByType("navigation");
  if (navigation?.type !== "back_forward") location.replace(document.querySelector("[data-go-on]").href);
}
