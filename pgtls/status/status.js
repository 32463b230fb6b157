// Fetches the page every few seconds, and replaces what has changed in place, so that focus,
// scrolling and selections stay. Without this script the page reloads itself.
"use strict";
(() => {
  const SECONDS = 5;
  const pause = document.getElementById("pause");
  const filter = document.getElementById("filter");
  const rows = document.getElementById("session-rows");
  let paused = false;

  function applyFilter() {
    const wanted = filter.value.trim().toLowerCase();
    for (const row of rows.rows) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
    }
  }

  function replaceParts(fresh) {
    document.title = fresh.title;
    for (const part of document.querySelectorAll("[data-live]")) {
      const now = fresh.getElementById(part.id);
      if (now === null || now.innerHTML === part.innerHTML) continue;
      if (now.dateTime) part.dateTime = now.dateTime;
      part.replaceChildren(...now.childNodes);
    }
    applyFilter();
  }

  async function update() {
    if (paused || document.hidden) return;
    try {
      const answer = await fetch(location.pathname, { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.statusText);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (paused) return;
      replaceParts(fresh);
      document.body.classList.remove("stale");
    } catch {
      document.body.classList.add("stale"); // the daemon does not answer: what is shown is old
      document.title = "pgtls: no answer";
    }
  }

  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Go on" : "Pause";
    update();
  });
  filter.closest("label").hidden = false;
  filter.addEventListener("input", applyFilter);
  document.addEventListener("visibilitychange", update);
  setInterval(update, SECONDS * 1000);
})();
