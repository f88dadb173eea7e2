"use strict";
/* Draws the page's plots when they come near, in the page's own colours. */
const tritontune = { models: [], waiting: new Map() };

(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 40rem)");
  /* A finger that scrolls must not zoom. */
  const precise = matchMedia("(pointer: fine)");
  const PRINTED_WIDTH = 660;

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name.slice(1)}`).trim();

  /* The same figure, with colours in the place of their names. */
  function painted(node, key) {
    if (Array.isArray(node)) return node.map((each) => painted(each, key));
    if (node && typeof node === "object") {
      return Object.fromEntries(Object.entries(node).map(([name, value]) => [name, painted(value, name)]));
    }
    return key && key.endsWith("color") && typeof node === "string" && node.startsWith("@") ? colour(node) : node;
  }

  function themed(layout) {
    const axis = {
      gridcolor: colour("@line"),
      linecolor: colour("@line"),
      zerolinecolor: colour("@line"),
      tickcolor: colour("@line"),
      automargin: true,
      fixedrange: !precise.matches,
    };
    const { xaxis, yaxis, ...rest } = painted(layout);
    return {
      font: { family: getComputedStyle(document.body).fontFamily, size: narrow.matches ? 11 : 13, color: colour("@text") },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 8, r: 12, t: 8, b: 8 },
      hovermode: "closest",
      hoverlabel: {
        bgcolor: colour("@page"),
        bordercolor: colour("@muted"),
        font: { color: colour("@text"), size: 13 },
        align: "left",
      },
      legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", traceorder: "normal" },
      dragmode: precise.matches ? "zoom" : false,
      ...rest,
      xaxis: { ...axis, ...xaxis },
      yaxis: { ...axis, ...yaxis },
    };
  }

  const config = { displayModeBar: false, responsive: true, doubleClick: "reset" };

  function draw(canvas) {
    const { model, figure } = tritontune.waiting.get(canvas) ?? canvas.tritontune;
    tritontune.waiting.delete(canvas);
    const first = !canvas.tritontune;
    canvas.tritontune = { model, figure };
    const printed = document.documentElement.dataset.print !== undefined;
    const size = printed ? { width: PRINTED_WIDTH, height: canvas.clientHeight } : {};
    Plotly.react(canvas, painted(figure.traces), { ...themed(figure.layout), ...size }, config);
    if (first) {
      canvas.on("plotly_click", ({ points }) => {
        const trial = points[0].customdata;
        if (Number.isInteger(trial)) model.select(trial);
      });
    }
  }

  tritontune.redraw = (canvas) => {
    if (canvas.tritontune) draw(canvas);
  };

  function drawAll() {
    for (const canvas of [...tritontune.waiting.keys()]) draw(canvas);
  }

  function drawAnew() {
    for (const model of tritontune.models) {
      for (const canvas of model.canvases) tritontune.redraw(canvas);
    }
  }

  const near = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (isIntersecting && tritontune.waiting.has(target)) {
          near.unobserve(target);
          draw(target);
        }
      }
    },
    { rootMargin: "800px" },
  );

  for (const article of document.querySelectorAll(".model")) {
    const data = JSON.parse(article.querySelector("script.data").textContent);
    const canvases = [...article.querySelectorAll(".canvas")];
    const model = { article, data, canvases, select() {} };
    tritontune.models.push(model);
    for (const canvas of canvases) {
      tritontune.waiting.set(canvas, { model, figure: data.plots[canvas.dataset.plot] });
      near.observe(canvas);
    }
  }

  dark.addEventListener("change", drawAnew);
  narrow.addEventListener("change", drawAnew);
  addEventListener("beforeprint", () => {
    document.documentElement.dataset.print = "";
    drawAll();
    drawAnew();
  });
  addEventListener("afterprint", () => {
    delete document.documentElement.dataset.print;
    drawAnew();
  });
})();
