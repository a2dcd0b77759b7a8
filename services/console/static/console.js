// Live parts of a page, a question before what cannot be undone, and no form twice. Every page works without it.
"use strict";

// Parts are replaced where their text has changed; what the reader opened or focused stays as it is.
function replacePart(old, fresh) {
  if (old.dataset.shown === fresh.innerHTML) return;
  const shown = fresh.innerHTML;
  const known = new Set(Array.from(old.querySelectorAll("details[id]"), (each) => each.id));
  const opened = new Set(Array.from(old.querySelectorAll("details[id][open]"), (each) => each.id));
  for (const each of fresh.querySelectorAll("details[id]")) {
    if (known.has(each.id)) each.open = opened.has(each.id);
  }
  old.replaceChildren(...fresh.childNodes);
  old.dataset.shown = shown;
}

async function refresh(area) {
  const answer = await fetch(area.dataset.refresh, { headers: { Accept: "text/html" } });
  if (answer.redirected) return location.reload(); // The login has expired.
  if (!answer.ok) throw new Error(answer.status);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const fresh of page.querySelectorAll("[data-part]")) {
    const old = area.querySelector(`[data-part="${fresh.dataset.part}"]`);
    if (!old) continue;
    old.toggleAttribute("data-live", fresh.hasAttribute("data-live"));
    if (!old.contains(document.activeElement)) replacePart(old, fresh);
  }
}

function keepFresh(area) {
  const wait = 1000 * Number(area.dataset.every);
  const look = async () => {
    if (!document.hidden) {
      try {
        await refresh(area);
        area.classList.remove("stale");
      } catch {
        area.classList.add("stale");
      }
    }
    if (area.querySelector("[data-live]")) setTimeout(look, wait);
  };
  if (area.querySelector("[data-live]")) setTimeout(look, wait);
}

document.querySelectorAll("[data-refresh]").forEach(keepFresh);
document.getElementById("problems")?.focus();
document.addEventListener("submit", (event) => {
  if (event.defaultPrevented) return; // Another script has taken it over.
  const { confirm: question, once } = event.target.dataset;
  if (question && !window.confirm(question)) return event.preventDefault();
  if (once !== undefined) event.target.querySelectorAll("button").forEach((each) => (each.disabled = true));
});
// The back button shows the page as it was left, with its buttons off.
window.addEventListener("pageshow", () => document.querySelectorAll("[data-once] button").forEach((each) => (each.disabled = false)));
