"use strict";
/* Shows times in the reader's zone, and how long ago they were. */
const tritontune = (() => {
  const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto", style: "short" });
  const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60]];

  function words(seconds) {
    const [unit, size] = UNITS.find(([, size]) => Math.abs(seconds) >= size) ?? ["second", 1];
    return unit === "second" && Math.abs(seconds) < 10 ? "now" : relative.format(Math.round(seconds / size), unit);
  }

  function showTimes(root) {
    const now = Date.now();
    for (const time of root.querySelectorAll("time")) {
      const at = new Date(time.dateTime);
      const ago = words((at - now) / 1000);
      const text = "both" in time.dataset ? `${exact.format(at)} (${ago})` : ago;
      if (time.textContent !== text) time.textContent = text;
      time.title = exact.format(at);
    }
  }

  showTimes(document);
  setInterval(() => showTimes(document), 30000);
  return { showTimes };
})();
