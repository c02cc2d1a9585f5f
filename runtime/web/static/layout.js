// Where the graph's nodes and edges go. Pure functions: partitions in, coordinates out.
//
// A network is mostly one long chain, and no screen is that wide: its ranks run like an ox ploughs,
//
//     0 -> 1 -> 2 -> 3
//                    |         nodes of the same rank (shards) stand below each other
//     7 <- 6 <- 5 <- 4

export const NODE = { width: 68, height: 38 };
const GAP = { x: 22, y: 10, band: 34 };
const MARGIN = 26;

/** Edges between partitions, by the names of their tensors: [{from, to, tensors}]. */
export function edgesOf(partitions) {
  const maker = new Map();
  partitions.forEach((partition, index) => partition.outputs.forEach((name) => maker.set(name, index)));
  const edges = new Map();
  partitions.forEach((partition, to) => {
    for (const name of partition.inputs) {
      const from = maker.get(name);
      if (from === undefined || from === to) continue; // an input of the whole network
      const key = `${from} ${to}`;
      if (!edges.has(key)) edges.set(key, { key, from, to, tensors: [] });
      edges.get(key).tensors.push(name);
    }
  });
  return [...edges.values()];
}

/** The longest way from an input; partitions come in an order in which they can be computed. */
function ranksOf(size, edges) {
  const ranks = new Array(size).fill(0);
  const into = Array.from({ length: size }, () => []);
  for (const { from, to } of edges) if (from < to) into[to].push(from);
  for (let index = 0; index < size; index++)
    for (const from of into[index]) ranks[index] = Math.max(ranks[index], ranks[from] + 1);
  return ranks;
}

/** {nodes: [{x, y, band, column, backward}], width, height} for the width there is. */
export function place(size, edges, width) {
  const ranks = ranksOf(size, edges);
  const columns = Math.max(2, Math.floor((width - 2 * MARGIN + GAP.x) / (NODE.width + GAP.x)));
  const filled = new Map(); // rank -> nodes in it so far
  const slots = ranks.map((rank) => {
    const slot = filled.get(rank) ?? 0;
    filled.set(rank, slot + 1);
    return slot;
  });
  const bands = Math.floor(Math.max(0, ...ranks) / columns) + 1;
  const tops = [];
  let top = MARGIN;
  for (let band = 0; band < bands; band++) {
    tops.push(top);
    let tallest = 1;
    for (let column = 0; column < columns; column++)
      tallest = Math.max(tallest, filled.get(band * columns + column) ?? 0);
    top += tallest * (NODE.height + GAP.y) - GAP.y + GAP.band;
  }
  const nodes = ranks.map((rank, index) => {
    const band = Math.floor(rank / columns);
    const backward = band % 2 === 1;
    const column = backward ? columns - 1 - (rank % columns) : rank % columns;
    return {
      x: MARGIN + column * (NODE.width + GAP.x),
      y: tops[band] + slots[index] * (NODE.height + GAP.y),
      band,
      column,
      backward,
    };
  });
  const used = Math.min(columns, Math.max(0, ...ranks) + 1);
  return { nodes, width: 2 * MARGIN + used * (NODE.width + GAP.x) - GAP.x, height: top - GAP.band + MARGIN };
}

/** The SVG path of an edge from node a to node b. */
export function pathOf(a, b) {
  const { width, height } = NODE;
  const middle = { a: a.x + width / 2, b: b.x + width / 2 };
  if (a.band === b.band && Math.abs(a.column - b.column) === 1) {
    const [from, to] = a.backward ? [a.x, b.x + width] : [a.x + width, b.x];
    const half = (from + to) / 2;
    const y = { a: a.y + height / 2, b: b.y + height / 2 };
    return `M${from} ${y.a}C${half} ${y.a} ${half} ${y.b} ${to} ${y.b}`;
  }
  if (a.band === b.band) {
    const rise = Math.min(a.y, b.y) - Math.min(22, 8 + 3 * Math.abs(a.column - b.column));
    return `M${middle.a} ${a.y}C${middle.a} ${rise} ${middle.b} ${rise} ${middle.b} ${b.y}`;
  }
  const [from, to] = [a.y + height, b.y];
  const half = (from + to) / 2;
  return `M${middle.a} ${from}C${middle.a} ${half} ${middle.b} ${half} ${middle.b} ${to}`;
}
