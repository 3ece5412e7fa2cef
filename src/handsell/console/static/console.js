// Draws charts, shows times in UTC, and says to screen readers what htmx has put into a page.
(() => {
  "use strict";

  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const drawn = new Map(); // plots by figure
  const writeIso = (seconds) => new Date(seconds * 1000).toISOString().replace("T", " ");

  // a day, or the time of a day with its date below where the day begins
  function nameTimes(plot, times, axis, space, step) {
    let day = "";
    return times.map((time) => {
      const text = writeIso(time), before = day;
      day = text.slice(0, 10);
      if (step >= 86_400) return day;
      return text.slice(11, step < 60 ? 19 : 16) + (day === before ? "" : `\n${day}`);
    });
  }

  // from zero to a little above a line that stays level; otherwise what fits the values
  function fitValues(plot, least, most) {
    if (least === null) return [0, 1];
    return least === most ? [Math.min(0, most * 1.1), Math.max(0, most * 1.1) || 1] : uPlot.rangeNum(least, most, 0.1, true);
  }

  function draw(figure) {
    if (!window.uPlot) return;
    drawn.get(figure)?.destroy();
    const place = figure.querySelector(".plot");
    const data = JSON.parse(figure.dataset.chart);
    if (!data.x.length) return;
    const names = typeof data.x[0] === "string" ? data.x : null;
    const x = names ? names.map((_, index) => index) : data.x;
    const colors = ["--series-1", "--series-2", "--series-3", "--series-4", "--series-5"].map(style);
    const dashes = [[], [6, 4], [2, 3], [10, 4, 2, 4], [1, 5]]; // color is not the only sign
    const bars = data.kind === "bars";
    const axis = { stroke: style("--muted"), grid: { stroke: style("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
    const options = {
      width: Math.max(260, place.clientWidth), height: 220, scales: { x: { time: data.time }, y: { range: fitValues } },
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      series: [{}, ...data.series.map((one, index) => ({
        label: one.label, stroke: colors[index % 5], dash: bars ? [] : dashes[index % 5], width: 2, spanGaps: false,
        ...(bars ? { fill: colors[index % 5], paths: uPlot.paths.bars({ size: [0.6, 60] }), points: { show: false } } : {}),
      }))],
      axes: [
        names ? { ...axis, splits: () => x, values: () => names }
          : data.time ? { ...axis, values: nameTimes, space: 90, label: "UTC", labelSize: 18, labelFont: axis.font } : axis,
        { ...axis, size: 60 },
      ],
      legend: { show: data.series.length > 1, live: false }, cursor: { points: { show: !bars } },
    };
    if (bars) options.scales.x.range = [-0.6, x.length - 0.4];
    drawn.set(figure, new uPlot(options, [x, ...data.series.map((one) => one.values)], place));
  }

  function refresh(root) {
    for (const figure of root.querySelectorAll?.("figure[data-chart]") ?? []) draw(figure);
    for (const cell of root.querySelectorAll?.("[data-time]") ?? [])
      cell.textContent = `${writeIso(Number(cell.dataset.time)).slice(0, 16)} UTC`;
    for (const range of root.querySelectorAll?.("input[type=range]") ?? []) show(range);
  }

  function show(range) {
    const output = range.parentElement.querySelector("output");
    if (output) output.textContent = Number(range.value).toLocaleString(undefined, { maximumFractionDigits: 2 });
  }

  // a link from another site comes without the cookie of a session, which a request of this page has
  async function findSession() {
    const next = document.querySelector("[data-next]")?.dataset.next;
    if (next && (await fetch(`${document.documentElement.dataset.root}/session`)).status === 204) location.replace(next);
  }

  let waiting;
  function redraw() {
    clearTimeout(waiting);
    waiting = setTimeout(() => { for (const figure of [...drawn.keys()]) figure.isConnected ? draw(figure) : drawn.delete(figure); }, 150);
  }

  addEventListener("DOMContentLoaded", () => { refresh(document); findSession(); });
  addEventListener("resize", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  document.addEventListener("input", (event) => { if (event.target.type === "range") show(event.target); });
  document.addEventListener("submit", (event) => { // come back to what is shown now
    const next = event.target.closest(".session") && event.target.querySelector("input[name=next]");
    if (next) next.value = location.pathname.slice(document.documentElement.dataset.root.length) + location.search;
  });
  document.addEventListener("htmx:afterSettle", (event) => {
    refresh(event.target);
    const said = event.target.querySelector?.("[data-say]")?.dataset.say;
    if (said) document.getElementById("live").textContent = said;
  });
})();
