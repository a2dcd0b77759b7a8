// Keys for the buttons that have one, and no verdict by a click that was meant for the page before.
"use strict";

const SETTLE_MS = 400;
const shown = performance.now();
const settled = () => performance.now() - shown > SETTLE_MS;
const WRITING = "textarea, select, input:not([type=checkbox])";

document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.altKey || event.metaKey || event.target.closest(WRITING)) return;
  const button = document.querySelector(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
  if (button && settled()) button.form.requestSubmit(button);
});
document.addEventListener("submit", (event) => {
  if (!settled()) event.preventDefault();
});
