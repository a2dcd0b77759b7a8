// Keys for the buttons that have one, no verdict by a click that was meant for the page before, and none into the void.
"use strict";

const SETTLE_MS = 400;
const PATIENCE_MS = 10000;
const WRITING = "textarea, select, input:not([type=checkbox])";
const root = document.documentElement;
const settled = () => "settled" in root.dataset;

function settle() {
  delete root.dataset.settled;
  setTimeout(() => (root.dataset.settled = ""), SETTLE_MS);
}

// Sent while nobody listens, a form leaves the browser's own page of an error, and what was written is lost with it.
async function isReached() {
  try {
    return (await fetch("/health", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) })).status < 500;
  } catch {
    return false;
  }
}

settle();
window.addEventListener("pageshow", (event) => event.persisted && settle());
document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.altKey || event.metaKey || event.target.closest(WRITING)) return;
  const button = document.querySelector(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
  if (button && settled()) button.form.requestSubmit(button);
});

let passing = false;
document.addEventListener("submit", async (event) => {
  const { target: form, submitter } = event;
  if (passing || !form.closest("main")) return;
  event.preventDefault();
  if (!settled()) return;
  delete root.dataset.settled;
  const reached = await isReached();
  document.getElementById("unsent").hidden = reached;
  if (reached) {
    passing = true;
    form.requestSubmit(submitter);
    passing = false;
  }
  settle();
});
