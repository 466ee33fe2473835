// Asks for the code again at once, unless the person has just gone back from there.
"use strict";
{
  const [navigation] = performance.getEntriesByType("navigation");
  if (navigation?.type !== "back_forward") document.querySelector("[data-resume]").submit();
}
