"use strict";
/* Keeps the parts of a page current: every few seconds (data-every), and by the events of a job (data-events).

The server renders the parts, as it does for the whole page. Only those that differ are replaced, so the page stays as
small as it was, and selected text, focus and scrolled places stay. */
(() => {
  const root = document.querySelector("[data-live]");
  if (!root) return;

  const LEAST_MS = 1000; // between two looks, however fast the events come
  const RETRY_MS = 5000;
  const AFTER_END_MS = [2000, 6000, 20000, 60000];
  const ANNOUNCE_MS = 20000; // a screen reader is not to talk all the time
  const announcer = document.getElementById("announcer");
  const shown = new Map([...root.querySelectorAll("[data-part]")].map((part) => [part.id, part.innerHTML]));
  let stream = null;
  let lastEvent = Number(root.dataset.after || 0);
  let looking = false, wanted = false, timer = 0, ended = false, lastLook = 0;
  let said = root.querySelector("[data-announce]")?.dataset.announce ?? "", saidAt = 0;

  function offline(is) {
    const banner = root.querySelector(".offline");
    if (!is) banner?.remove();
    else if (!banner) {
      const text = document.createElement("p");
      text.className = "banner offline";
      text.textContent = "The service does not answer; trying again.";
      root.prepend(text);
    }
  }

  function announce(part) {
    const text = part?.dataset.announce;
    const now = Date.now();
    if (!text || text === said || (now - saidAt < ANNOUNCE_MS && !("final" in part.dataset))) return;
    said = text;
    saidAt = now;
    announcer.textContent = text;
  }

  /* What has the focus is found again by its address or name. */
  function focusKey(part) {
    const focused = document.activeElement;
    if (!part.contains(focused) || focused === part) return null;
    const href = focused.getAttribute("href");
    return href ? `[href="${CSS.escape(href)}"]` : focused.localName;
  }

  function replace(part, fresh) {
    const html = fresh.innerHTML;
    if (shown.get(part.id) === html) return;
    shown.set(part.id, html);
    const box = part.closest("[data-follow]");
    const atEnd = box && box.scrollTop + box.clientHeight >= box.scrollHeight - 8;
    const key = focusKey(part);
    part.innerHTML = html;
    for (const { name, value } of fresh.attributes) part.setAttribute(name, value);
    if (key) part.querySelector(key)?.focus({ preventScroll: true });
    if (atEnd) box.scrollTop = box.scrollHeight;
    tritontune.showTimes(part);
  }

  function apply(html) {
    const page = new DOMParser().parseFromString(html, "text/html");
    const parts = [...page.querySelectorAll("[data-part]")];
    // A part that was not there before, such as the first front, needs the structure around it.
    if (parts.some((part) => !document.getElementById(part.id)) && root.dataset.events) {
      root.innerHTML = page.body.innerHTML;
      shown.clear();
      for (const part of parts) shown.set(part.id, part.innerHTML);
      tritontune.showTimes(root);
    } else {
      for (const fresh of parts) {
        const part = document.getElementById(fresh.id);
        if (part) replace(part, fresh);
      }
    }
    const head = root.querySelector("[data-announce]");
    announce(head);
    if (head && "final" in head.dataset) finish();
  }

  async function look() {
    looking = true;
    wanted = false;
    try {
      const answer = await fetch(root.dataset.live, { headers: { Accept: "text/html" }, credentials: "same-origin" });
      if (answer.redirected || answer.status === 401) return location.reload();
      if (!answer.ok) throw new Error(answer.statusText);
      apply(await answer.text());
      offline(false);
    } catch {
      offline(true);
      wanted = true;
    } finally {
      looking = false;
      lastLook = Date.now();
      if (wanted && !ended) later(root.querySelector(".offline") ? RETRY_MS : LEAST_MS);
    }
  }

  function later(least) {
    clearTimeout(timer);
    timer = setTimeout(look, Math.max(0, least - (Date.now() - lastLook)));
  }

  function want() {
    if (wanted && !looking) return;
    wanted = true;
    if (!looking && !document.hidden) later(LEAST_MS);
  }

  function finish() {
    if (ended) return;
    ended = true;
    clearTimeout(timer);
    stream?.close();
    for (const pause of AFTER_END_MS) setTimeout(look, pause); // its proposals come a little later
  }

  function listen() {
    stream = new EventSource(`${root.dataset.events}?after=${lastEvent}`);
    const heard = (event) => {
      lastEvent = Math.max(lastEvent, Number(event.lastEventId) || 0);
      want();
    };
    stream.onmessage = heard;
    for (const name of root.dataset.types.split(" ")) stream.addEventListener(name, heard);
    stream.onerror = () => {
      want();
      // The browser connects again by itself, with the id of the last event, unless it was refused.
      if (stream.readyState === EventSource.CLOSED && !ended) setTimeout(listen, RETRY_MS);
    };
  }

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && !ended) later(0);
  });
  for (const box of root.querySelectorAll("[data-follow]")) box.scrollTop = box.scrollHeight;
  if (root.dataset.events) listen();
  // Beside the events, too: a queued job has none while its reason changes, and some proxies hold them back.
  setInterval(() => document.hidden || ended || want(), 1000 * Number(root.dataset.every));
})();
