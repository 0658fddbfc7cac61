"use strict";
// Puts what /live says into the first page every two seconds, unless nobody can see it. Without this script the page has a link.
(() => {
  const live = document.getElementById("live");
  const state = document.getElementById("live-state");
  if (!live || !state) return;
  const everyMs = 2000;
  const patienceMs = 15000;
  let asking = false;

  const say = (text) => {
    if (state.textContent !== text) state.textContent = text;
  };

  const put = (text) => {
    const focused = live.contains(document.activeElement) ? document.activeElement.id : "";
    const fresh = new DOMParser().parseFromString(text, "text/html");
    live.replaceChildren(...fresh.body.childNodes);
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  };

  const refresh = async () => {
    if (asking || document.hidden) return;
    asking = true;
    try {
      const answer = await fetch(live.dataset.from, { cache: "no-store", signal: AbortSignal.timeout(patienceMs) });
      const text = await answer.text();
      if (answer.ok) {
        put(text);
        say("");
      } else {
        say(`Not up to date. ${text.trim()}`);
      }
    } catch {
      say("Not up to date. This page's server does not answer; trying again.");
    } finally {
      asking = false;
    }
  };

  setInterval(refresh, everyMs);
  document.addEventListener("visibilitychange", refresh);
})();
