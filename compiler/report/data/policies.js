// Draw accuracy against energy and time, and a histogram of exits for the beta of the slider. Text only, never markup.
const data = JSON.parse(document.getElementById("data").textContent);
const COLOURS = {
  "thresholds": "#2f6fab", "optimum": "#3a8f5c", "guaranteed": "#b5642d", "never exit": "#777777", "this policy": "#b02a4c",
};
const WIDTH = 440, HEIGHT = 300, MARGIN = 52;

function make(name, attributes, parent, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  parent.append(element);
  return element;
}

function drawing(id, label) {
  const svg = make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label, width: WIDTH },
    document.getElementById(id));
  svg.style.maxWidth = "100%";
  return svg;
}

function scale(values, start, end) {
  const low = Math.min(...values), span = Math.max(...values) - low || 1;
  return { at: (value) => start + ((end - start) * (value - low)) / span, low, high: low + span };
}

function scatter(field, label, factor) {
  const svg = drawing("plots", `accuracy against ${label}`);
  const x = scale([0, ...data.points.map((each) => factor * each[field])], MARGIN, WIDTH - 12);
  const y = scale(data.points.map((each) => 100 * each.accuracy), HEIGHT - MARGIN, 14);
  make("path", { d: `M${MARGIN} 10V${HEIGHT - MARGIN}H${WIDTH - 8}`, fill: "none", stroke: "currentColor" }, svg);
  for (const value of [y.low, (y.low + y.high) / 2, y.high])
    make("text", { x: MARGIN - 6, y: y.at(value) + 4, "text-anchor": "end", "font-size": 11, fill: "currentColor" }, svg,
      `${value.toFixed(1)} %`);
  for (const value of [x.low, (x.low + x.high) / 2, x.high])
    make("text", { x: x.at(value), y: HEIGHT - MARGIN + 16, "text-anchor": "middle", "font-size": 11, fill: "currentColor" },
      svg, value.toPrecision(3));
  make("text", { x: WIDTH / 2, y: HEIGHT - 14, "text-anchor": "middle", "font-size": 12, fill: "currentColor" }, svg, label);
  return data.points.map((each) => {
    const mark = make("circle", { cx: x.at(factor * each[field]), cy: y.at(100 * each.accuracy), r: 3.5, fill: COLOURS[each.kind] },
      svg);
    make("title", {}, mark, `${each.kind} ${each.setting}: ${(100 * each.accuracy).toFixed(2)} %`);
    return mark;
  });
}

const marks = [scatter("joules", data.energy, 1), scatter("seconds", data.time, data.time_factor)];
const legend = document.createElement("p");
for (const [kind, colour] of Object.entries(COLOURS)) {
  const item = document.createElement("span");
  item.style.color = colour;
  item.textContent = `\u25cf ${kind}  `;
  legend.append(item);
}
document.getElementById("plots").append(legend);

const betas = [...new Set(data.points.map((each) => each.beta).filter((beta) => beta !== null))].sort((a, b) => a - b);
const slider = document.getElementById("beta");
const bars = drawing("histogram", "histogram of exits");

function choose() {
  const beta = betas[Number(slider.value)];
  const chosen = data.points.filter((each) => each.beta === beta || each.kind === "this policy");
  document.getElementById("value").textContent = [`${beta.toPrecision(3)}:`, ...chosen.map(
    (each) => `${each.kind} ${(100 * each.accuracy).toFixed(2)} %`)].join(" ");
  data.points.forEach((each, index) => marks.forEach((group) => group[index].setAttribute("r", chosen.includes(each) ? 7 : 3.5)));
  bars.replaceChildren();
  const step = (WIDTH - MARGIN) / data.exits.length, wide = (0.8 * step) / chosen.length;
  data.exits.forEach((name, place) => {
    make("text", { x: MARGIN + step * (place + 0.4), y: HEIGHT - 14, "text-anchor": "middle", "font-size": 11,
      fill: "currentColor" }, bars, name.slice(0, 12));
    chosen.forEach((each, number) => {
      const height = each.shares[place] * (HEIGHT - 60);
      const bar = make("rect", { x: MARGIN + step * place + wide * number, y: HEIGHT - 30 - height, width: wide, height,
        fill: COLOURS[each.kind] }, bars);
      make("title", {}, bar, `${each.kind}: ${(100 * each.shares[place]).toFixed(1)} %`);
    });
  });
}

slider.max = betas.length - 1;
slider.value = Math.floor(betas.length / 2);
slider.addEventListener("input", choose);
choose();
