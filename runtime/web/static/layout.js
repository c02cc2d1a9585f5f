// Places the nodes of a layered graph and routes its edges. The page and 'hypsc report' share this file.
//
// A network is mostly one long chain, and no screen is that wide. Its ranks are set like text, from left to right, band
// below band; every arrow enters its node from the left:
//
//     0 -> 1 -> 2 -> 3 ,
//    ,----------------'     nodes of one rank (branches, shards) stand below each other, many of them in a block
//     `> 4 -> 5 -> 6

const GAP = { x: 30, y: 12, band: 40 }; // pixels between columns, between nodes of a column, and between bands
const MARGIN = 30; // room for the highest edge above the first band, too
const TALL = 7; // nodes of a rank that stand in one column; more stand in several
const ASPECT = 1.9; // width over height, where no width is given
const CORNER = 7; // radius

/**
 * Lay out count nodes of size {width, height}; every edge {from, to} goes from a node to a later one.
 * Without a width the drawing gets the shape of a screen. Returns {places: [[x, y]], paths: [SVG path], width, height}.
 */
export function layout(count, edges, size, width = null) {
  if (!count) return { places: [], paths: [], width: 2 * MARGIN, height: 2 * MARGIN };
  const ranks = ranksOf(count, edges);
  const { slots, counts } = slotsOf(ranks, edges);
  const grids = columnsToTry(counts, size, width).map((columns) => gridOf(counts, columns, size));
  const distance = (grid) => Math.abs(Math.log(grid.width / grid.height / ASPECT));
  const grid = grids.reduce((best, each) => (distance(each) < distance(best) ? each : best));
  const places = ranks.map((rank, index) => placeOf(grid.ranks[rank], slots[index], size));
  const end = (index) => ({ rank: ranks[index], place: places[index] });
  const paths = edges.map(({ from, to }) => pathOf(grid, size, end(from), end(to)));
  return { places, paths, width: grid.width, height: grid.height };
}

/** Edges between partitions, by the names of their tensors: [{from, to, tensors}]. */
export function edgesOf(partitions) {
  const maker = new Map();
  partitions.forEach((partition, index) => partition.outputs.forEach((name) => maker.set(name, index)));
  const edges = new Map();
  partitions.forEach((partition, to) => {
    for (const name of partition.inputs) {
      const from = maker.get(name);
      if (from === undefined || from >= to) continue; // an input of the whole network
      const key = `${from} ${to}`;
      if (!edges.has(key)) edges.set(key, { from, to, tensors: [] });
      edges.get(key).tensors.push(name);
    }
  });
  return [...edges.values()];
}

/** The rank of each node: its longest path from a start. A node that reads nothing stands before its first reader. */
function ranksOf(count, edges) {
  const ranks = new Array(count).fill(0);
  const readers = new Map();
  const reads = new Set(edges.map(({ to }) => to));
  for (const { from, to } of [...edges].sort((a, b) => a.to - b.to)) {
    ranks[to] = Math.max(ranks[to], ranks[from] + 1);
    if (!readers.has(from)) readers.set(from, []);
    readers.get(from).push(to);
  }
  for (const [index, targets] of readers)
    if (!reads.has(index)) ranks[index] = Math.max(0, Math.min(...targets.map((to) => ranks[to])) - 1);
  const used = new Map([...new Set(ranks)].sort((a, b) => a - b).map((rank, place) => [rank, place]));
  return ranks.map((rank) => used.get(rank));
}

/** The position of each node in its rank, near the nodes that it reads; and the number of nodes of each rank. */
function slotsOf(ranks, edges) {
  const members = [];
  ranks.forEach((rank, index) => (members[rank] ??= []).push(index));
  const reads = ranks.map(() => []);
  for (const { from, to } of edges) reads[to].push(from);
  const slots = [];
  const middles = [];
  for (const own of members) {
    const wished = new Map(own.map((index) => [index, mean(reads[index].map((from) => middles[from]))]));
    [...own]
      .sort((a, b) => wished.get(a) - wished.get(b) || a - b)
      .forEach((index, slot) => {
        slots[index] = slot;
        middles[index] = slot - (own.length - 1) / 2;
      });
  }
  return { slots, counts: members.map((own) => own.length) };
}

const mean = (numbers) => (numbers.length ? numbers.reduce((sum, each) => sum + each, 0) / numbers.length : 0);

/** The numbers of columns in a band to choose from. */
function columnsToTry(counts, size, width) {
  if (width !== null) return [Math.max(2, Math.floor((width - 2 * MARGIN + GAP.x) / (size.width + GAP.x)))];
  const most = counts.reduce((sum, count) => sum + Math.ceil(count / TALL), 0);
  return Array.from({ length: 60 }, (_, power) => Math.min(most, Math.floor(4 * 1.12 ** power)));
}

/** Each rank's corner {x, y}, rows and band, in bands of at most so many columns; and the size of the drawing. */
function gridOf(counts, columns, size) {
  const step = { x: size.width + GAP.x, y: size.height + GAP.y };
  const ranks = [];
  const tallest = [];
  let used = columns; // of the band so far
  let widest = 0;
  for (const count of counts) {
    const breadth = Math.min(columns, Math.ceil(count / TALL));
    if (used + breadth > columns) {
      tallest.push(0);
      used = 0;
    }
    const rank = { band: tallest.length - 1, x: MARGIN + used * step.x, rows: Math.ceil(count / breadth) };
    ranks.push(rank);
    tallest[rank.band] = Math.max(tallest[rank.band], rank.rows);
    used += breadth;
    widest = Math.max(widest, used);
  }
  const tops = [MARGIN];
  for (const rows of tallest) tops.push(tops.at(-1) + rows * step.y - GAP.y + GAP.band);
  for (const rank of ranks) rank.y = tops[rank.band] + ((tallest[rank.band] - rank.rows) * step.y) / 2;
  return { ranks, tops, width: 2 * MARGIN + widest * step.x - GAP.x, height: tops.at(-1) - GAP.band + MARGIN };
}

function placeOf(rank, slot, size) {
  const column = Math.floor(slot / rank.rows);
  return [rank.x + column * (size.width + GAP.x), rank.y + (slot % rank.rows) * (size.height + GAP.y)];
}

/** The SVG path of an edge from node a to node b. */
function pathOf(grid, size, a, b) {
  const [first, last] = [grid.ranks[a.rank], grid.ranks[b.rank]];
  const start = [a.place[0] + size.width, a.place[1] + size.height / 2];
  const end = [b.place[0], b.place[1] + size.height / 2];
  if (first.band === last.band && b.rank - a.rank === 1) {
    const half = (start[0] + end[0]) / 2;
    return `M${start}C${half},${start[1]} ${half},${end[1]} ${end}`;
  }
  // Over the ranks between, or through the space above the other band; the spaces between columns are free.
  const between = grid.ranks.slice(a.rank + 1, b.rank);
  const level =
    first.band === last.band
      ? Math.min(...between.map((rank) => rank.y)) - Math.min(GAP.band - 12, 4 + 3 * between.length)
      : grid.tops[last.band] - GAP.band / 2;
  const [out, back] = [start[0] + GAP.x / 2, end[0] - GAP.x / 2];
  return rounded([start, [out, start[1]], [out, level], [back, level], [back, end[1]], end]);
}

/** The SVG path through points, whose turns are rounded. */
function rounded(points) {
  const toward = (from, to) => {
    const [x, y] = [to[0] - from[0], to[1] - from[1]];
    const part = Math.min(0.5, CORNER / Math.max(1e-9, Math.hypot(x, y)));
    return [from[0] + x * part, from[1] + y * part];
  };
  const turns = points
    .slice(1, -1)
    .map((point, index) => `L${toward(point, points[index])}Q${point} ${toward(point, points[index + 2])}`);
  return `M${points[0]}${turns.join('')}L${points.at(-1)}`;
}
