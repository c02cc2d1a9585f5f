// Draws the graph of partitions as SVG, once for each plan and width; later only colours and labels change.

import { $, el, roving, setAttribute, setClass, setStyle, setText, svg } from './dom.js';
import { count, mb, reasonOf, steps } from './format.js';
import { edgesOf, layout } from './layout.js';
import { hue, hueOf } from './state.js';

const NODE = { width: 68, height: 38 }; // pixels

let shown = null; // {key, partitions, edges, nodes: [element], lines: [element], width}
let chosen = null; // index of the node whose details are shown
let keepTabStop = () => {};

const clip = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);

function makeNode(index, [x, y]) {
  const label = svg('text', { x: NODE.width / 2, y: 31, class: 'node-label' });
  const node = svg(
    'g',
    { class: 'node', role: 'button', tabindex: '-1', 'data-step': index, transform: `translate(${x} ${y})` },
    svg('title'),
    svg('rect', { width: NODE.width, height: NODE.height, rx: 7 }),
    svg('text', { x: NODE.width / 2, y: 16, class: 'node-step' }, String(index)),
    label,
  );
  node.parts = { label, title: node.firstChild };
  return node;
}

function build(view, width) {
  const { partitions } = view;
  const edges = edgesOf(partitions);
  const drawing = layout(partitions.length, edges, NODE, width);
  const lines = edges.map(({ from, to, tensors }, index) =>
    svg(
      'path',
      { class: 'edge', d: drawing.paths[index], 'marker-end': 'url(#arrow)' },
      svg('title', {}, `${from} to ${to}: ${tensors.join(', ')}`),
    ),
  );
  const nodes = drawing.places.map((place, index) => makeNode(index, place));
  const arrow = svg(
    'marker',
    {
      id: 'arrow',
      viewBox: '0 0 8 8',
      refX: 7,
      refY: 4,
      markerWidth: 8,
      markerHeight: 8,
      markerUnits: 'userSpaceOnUse',
      orient: 'auto',
    },
    svg('path', { d: 'M0 0L8 4L0 8z', class: 'arrow' }),
  );
  const picture = svg(
    'svg',
    { width: drawing.width, height: drawing.height, viewBox: `0 0 ${drawing.width} ${drawing.height}` },
    svg('defs', {}, arrow),
    ...lines,
    ...nodes,
  );
  $('graph').replaceChildren(picture);
  shown = { key: view.key, partitions, edges, nodes, lines, width };
  if (chosen !== null && chosen >= partitions.length) chosen = null;
  nodes[chosen ?? 0]?.setAttribute('tabindex', '0');
  keepTabStop();
}

/** Draw a view: {key, partitions, homes: null, or for each step the names of its boards}. */
export function drawGraph(view) {
  const width = $('graph').clientWidth;
  if (!width) return;
  if (shown?.key !== view.key) {
    chosen = null;
    build(view, width);
    drawDetail(view);
  } else if (shown.width !== width) build(view, width);
  shown.homes = view.homes;
  view.partitions.forEach((partition, index) => {
    const node = shown.nodes[index];
    const boards = view.homes?.[index];
    const label = boards
      ? boards.length
        ? boards[0] + (boards.length > 1 ? ` +${boards.length - 1}` : '')
        : 'no board'
      : `${mb(partition.peak_bytes)} MB`;
    setText(node.parts.label, clip(label, 10));
    setClass(node, 'homeless', boards?.length === 0);
    setStyle(node, '--hue', boards ? (boards.length ? hueOf(boards[0]) : '0') : hue(index));
    const where = boards ? `, on ${boards.join(', ') || 'no board'}` : '';
    const size = `${count(partition.operators.length, 'operator')}, peak ${mb(partition.peak_bytes)} MB`;
    const name = `Step ${index}: ${partition.name}, ${size}${where}`;
    setAttribute(node, 'aria-label', name);
    setText(node.parts.title, name);
  });
  mark();
}

function mark() {
  shown.nodes.forEach((node, index) => {
    setClass(node, 'chosen', index === chosen);
    setAttribute(node, 'aria-pressed', String(index === chosen));
  });
  shown.edges.forEach(({ from, to }, index) =>
    setClass(shown.lines[index], 'chosen', from === chosen || to === chosen),
  );
}

function row(term, text) {
  return [el('dt', {}, term), el('dd', {}, text)];
}

function drawDetail() {
  const box = $('node');
  if (chosen === null) {
    box.replaceChildren(
      el('p', { class: 'hint' }, 'Choose a partition to see its operators and why the network is cut before it.'),
    );
    return;
  }
  const partition = shown.partitions[chosen];
  const neighbours = (mine, other, word) =>
    shown.edges
      .filter((edge) => edge[mine] === chosen)
      .map((edge) => `${edge.tensors.join(', ')} ${word} ${steps(edge[other], edge[other] + 1)}`);
  const from = neighbours('to', 'from', 'from');
  const to = neighbours('from', 'to', 'to');
  const boards = shown.homes?.[chosen];
  box.replaceChildren(
    el('h4', {}, `Step ${chosen}: ${partition.name}`),
    el('p', { role: 'status' }, reasonOf(partition)),
    el(
      'dl',
      { class: 'pairs' },
      ...row(
        'Peak',
        `${mb(partition.peak_bytes)} MB: weights ${mb(partition.weight_bytes)}, activations ${mb(partition.activation_bytes)}`,
      ),
      ...row('Reads', from.join('; ') || partition.inputs.join(', ')),
      ...row('Writes', `${to.join('; ') || partition.outputs.join(', ')} (${mb(partition.leaving_bytes)} MB)`),
      ...(boards ? row('Boards', boards.join(', ') || 'none') : []),
    ),
    el('h5', {}, count(partition.operators.length, 'operator')),
    el(
      'ol',
      { class: 'operators', tabindex: '0', 'aria-label': 'Operators' },
      ...partition.operators.map((name) => el('li', {}, name)),
    ),
  );
}

/** Show the details of a step, chosen in the graph or in the table. */
export function choose(index) {
  chosen = index;
  mark();
  drawDetail();
}

export function setUpGraph(redraw) {
  const graph = $('graph');
  keepTabStop = roving(graph, '.node');
  const pick = (event) => {
    const node = event.target.closest('.node');
    if (node) choose(Number(node.dataset.step));
  };
  graph.addEventListener('click', pick);
  graph.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' && event.key !== ' ') return;
    event.preventDefault();
    pick(event);
  });
  new ResizeObserver(redraw).observe(graph);
}
