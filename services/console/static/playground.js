// The playground's answers while they are written. Without it the form is posted, and its page has them whole.
"use strict";

const form = document.querySelector("form[data-stream]");
const place = document.getElementById("answers-place");
const stop = document.getElementById("stop");
let running = null;

async function* readEvents(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const each of events) yield JSON.parse(each.slice("data: ".length));
  }
}

// The console's own HTML, in which a model's text is escaped.
function parse(html) {
  return new DOMParser().parseFromString(html, "text/html").body.firstElementChild;
}

function show(event) {
  if ("answers" in event) {
    place.replaceChildren(parse(event.answers));
    place.scrollIntoView();
  } else if ("text" in event) {
    place.querySelector(`[data-side="${event.side}"] .said`).append(event.text);
  } else if ("card" in event) {
    place.querySelector(`[data-side="${event.side}"]`).replaceWith(parse(event.card));
  }
}

function end(message) {
  for (const each of place.querySelectorAll("[aria-busy]")) each.removeAttribute("aria-busy");
  const state = document.getElementById("answers-state");
  if (state) state.textContent = message;
  else place.textContent = message;
}

async function follow(body, signal) {
  const answer = await fetch(form.dataset.stream, { method: "POST", body, signal });
  // What is no stream is a login that expired, a setting out of bounds and the like: the form's own page tells it.
  const kind = answer.headers.get("content-type") ?? "";
  if (!answer.ok || answer.redirected || !kind.startsWith("text/event-stream")) return form.submit();
  let message = "The connection broke off; what is here is incomplete.";
  for await (const event of readEvents(answer)) {
    if ("end" in event) message = event.end;
    else show(event);
  }
  end(message);
}

async function compare() {
  running?.abort();
  const mine = (running = new AbortController());
  stop.hidden = false;
  try {
    await follow(new URLSearchParams(new FormData(form)), mine.signal);
  } catch (error) {
    if (running !== mine) return; // Another comparison has taken its place.
    end(mine.signal.aborted ? "Stopped." : `The console cannot be reached (${error.message}); try again.`);
  }
  if (running !== mine) return;
  if (document.activeElement === stop) form.querySelector("button.main").focus();
  stop.hidden = true;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  compare();
});
stop.addEventListener("click", () => running.abort());
