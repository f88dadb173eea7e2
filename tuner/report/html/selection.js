"use strict";
/* A trial is chosen by a click on a point, or by its button in the table; then its config and its points are shown. */
(() => {
  /* What is shown comes from the study, so it is only ever set as text. */
  function element(name, attributes, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  const number = (value) =>
    value >= 100 ? Math.round(value).toLocaleString("en-US") : String(Number(value.toPrecision(3)));

  const range = ([, low, high]) => (high === null ? `${number(low)} and more` : `${number(low)} to ${number(high)}`);

  function diff(lines) {
    if (!lines.length) return element("p", {}, "It is the baseline.");
    const code = element("code", {});
    for (const [kind, text] of lines) code.append(element("span", { class: kind }, text), "\n");
    return element("pre", { class: "diff", tabindex: "0", "aria-label": "Diff against the baseline" }, code);
  }

  function points(candidate, percentile) {
    if (!candidate.points.length) {
      return element("p", {}, candidate.failure ?? "No operating point answered all requests.");
    }
    const closed = candidate.points.every((point) => point.concurrency !== null);
    const head = element("tr", {});
    for (const title of [closed ? "concurrency" : "load", "inferences/s", "95 % interval", `${percentile}, ms`, "95 % interval", "mean batch", ""]) {
      head.append(element("th", { scope: "col", class: title && (closed || title !== "load") ? "number" : "" }, title));
    }
    const body = element("tbody", {});
    for (const point of candidate.points) {
      const slow = point.latency[percentile];
      const marks = [point.verified ? "verified" : "", point.doubts ? "quality warning" : ""].filter(Boolean).join(", ");
      const row = element("tr", {});
      const load = closed ? point.concurrency.toLocaleString("en-US") : point.load;
      row.append(element("th", { scope: "row", class: closed ? "number" : "" }, load));
      for (const text of [
        number(point.throughput[0]),
        range(point.throughput),
        number(slow[0]),
        range(slow),
        point.batch === null ? "" : point.batch.toFixed(1),
      ]) {
        row.append(element("td", { class: "number" }, text));
      }
      row.append(element("td", {}, marks));
      body.append(row);
    }
    const table = element("table", {}, element("thead", {}, head), body);
    const box = { class: "table-box", tabindex: "0", role: "region", "aria-label": "Its operating points" };
    return element("div", {}, element("div", box, table), ...doubts(candidate.points));
  }

  function doubts(points) {
    const doubtful = points.filter((point) => point.doubts);
    if (!doubtful.length) return [];
    const reasons = doubtful.map((point) => element("li", {}, `at ${point.load}: ${point.doubts}`));
    return [element("details", {}, element("summary", {}, "Quality warnings"), element("ul", {}, ...reasons))];
  }

  function show(model, candidate) {
    const panel = model.article.querySelector(".selection");
    panel.replaceChildren(
      element("h3", {}, `Trial ${candidate.trial}: ${candidate.words}`),
      element("p", {}, candidate.outcome),
      element("div", { class: "columns" }, diff(candidate.diff), points(candidate, model.data.percentile)),
    );
    model.article.querySelector(".chosen-link").textContent = `Trial ${candidate.trial} is shown above`;
    for (const row of model.article.querySelectorAll(".trials tbody tr")) {
      const chosen = Number(row.dataset.trial) === candidate.trial;
      row.classList.toggle("chosen", chosen);
      row.querySelector("button").setAttribute("aria-pressed", String(chosen));
    }
  }

  /* The curve of the chosen trial, over all others, with its intervals. */
  function highlight(figure, candidate, percentile) {
    const trace = figure.traces.find(({ name }) => name === "selected candidate");
    if (!trace) return;
    const bars = (values, of) => {
      const told = values.map(of);
      return {
        type: "data",
        symmetric: false,
        array: told.map(([value, , high]) => (high === null ? 0 : high - value)),
        arrayminus: told.map(([value, low]) => value - low),
        color: "@muted",
        thickness: 1,
        width: 3,
      };
    };
    trace.x = candidate.points.map((point) => point.latency[percentile][0]);
    trace.y = candidate.points.map((point) => point.upward[0]);
    trace.error_x = bars(candidate.points, (point) => point.latency[percentile]);
    trace.error_y = bars(candidate.points, (point) => point.upward);
    trace.name = "selected candidate";
    trace.hoverinfo = "skip";
    trace.hovertemplate = null;
  }

  for (const model of tritontune.models) {
    const { candidates, percentile, plots, selected } = model.data;
    const byTrial = new Map(candidates.map((candidate) => [candidate.trial, candidate]));
    model.select = (trial) => {
      const candidate = byTrial.get(trial);
      if (!candidate) return;
      model.selected = trial;
      show(model, candidate);
      if (plots.front) {
        highlight(plots.front, candidate, percentile);
        tritontune.redraw(model.canvases.find((canvas) => canvas.dataset.plot === "front"));
      }
    };
    model.article.querySelector(".trials")?.addEventListener("click", ({ target }) => {
      const row = target.closest("tbody tr");
      if (row) model.select(Number(row.dataset.trial));
    });
    if (selected !== null) model.select(selected);
  }
})();
